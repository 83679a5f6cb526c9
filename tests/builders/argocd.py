"""gitops/argocd: what Argo CD's own tests read beside the scripts, and the ConfigMap for those who cannot wait for it.

`PYTHONPATH=tests python -m builders.argocd` writes both anew; tests/contract/test_argocd.py fails while one is old.
The layout is that of github.com/argoproj/argo-cd, resource_customizations. Laid into its tree (37ee0097cf85), its own
`go test ./util/lua` passes; but `retry` writes the time, for which testNormalizer there needs a line.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from builders.rollouts import NOW
from builders.states import Object, State, all_states
from modelparams.api import GROUP

ROOT = Path(__file__).parents[2]
HOME = ROOT / "gitops" / "argocd"
OF_KIND = HOME / "resource_customizations" / GROUP
CONFIG = HOME / "argocd-cm.yaml"
KINDS = ("ModelParamRollout", "ModelParamVersion", "ModelParamAssignment")
ICONS = {"pause": "pause", "resume": "play", "retry": "redo", "withdraw": "ban"}
WITH_ACTIONS = {"ModelParamRollout": ("pause", "resume", "retry"), "ModelParamVersion": ("withdraw",)}
OFFERED = {
    "ModelParamRollout": {
        "promoted": {"pause"},
        "paused_at_rest": {"resume"},
        "failed": {"pause", "retry"},
        "not_seen_yet": {"pause"},
    },
    "ModelParamVersion": {"live": {"withdraw"}, "withdrawn": set(), "not_seen_yet": {"withdraw"}},
}
"""In which state which actions can be clicked."""
OF_AN_ORDER = {
    "not_answered_yet": "The pod has not answered this order yet",
    "answered_by_a_namesake": "The pod has not answered this order yet",
    "engine_away": "Waiting",
    "staging": "Staging 61%, serves chat-1.0.0",
    "staged": "Staged",
    "swapping": "Swapping, serves chat-1.0.0",
    "live": "Live, serves chat-1.0.0",
    "trying_again": "Staging, serves chat-1.0.0; chat-1.1.0: SourceUnavailable: it did not work",
    "failed": "Failed, serves chat-1.0.0; chat-1.1.0: SwapFailed: it did not work",
}
TOKEN = f"argocd-{NOW:%Y-%m-%dT%H-%M-%SZ}"
DOES: tuple[tuple[str, str, str, Object], ...] = (
    ("ModelParamRollout", "pause", "promoted", {"paused": True}),
    ("ModelParamRollout", "resume", "paused_at_rest", {"paused": None}),
    ("ModelParamRollout", "retry", "failed", {"retryToken": TOKEN}),
    ("ModelParamVersion", "withdraw", "live", {"lifecycle": "Withdrawn"}),
)
"""Kind, action, state, and the change of its spec."""
CONFIG_HEAD = """\
# For `kubectl patch -n argocd configmap argocd-cm --type=merge --patch-file`: health and actions of our kinds.
# Written from resource_customizations beside it: PYTHONPATH=tests python -m builders.argocd
"""


def script(kind: str, name: str) -> str:
    """One of the scripts."""
    return (OF_KIND / kind / name).read_text()


def message(state: State) -> str:
    """What is to be read beside the icon."""
    if state.kind == "ModelParamAssignment":
        return OF_AN_ORDER[state.name]
    ready, told = state.ready, state.object["status"]
    if told["observedGeneration"] != state.object["metadata"]["generation"]:
        return "The operator has not seen this generation yet"
    return f"{ready['reason']}: {ready['message']}"


def files() -> Iterator[tuple[Path, str]]:
    """Everything that is written, with its place."""
    states = all_states()
    for state in states:
        yield OF_KIND / state.kind / _input(state), _yaml(state.object)
    for kind in KINDS:
        tests = [
            {"healthStatus": {"status": s.argo, "message": message(s)}, "inputPath": str(_input(s))}
            for s in states
            if s.kind == kind
        ]
        yield OF_KIND / kind / "health_test.yaml", _yaml({"tests": tests})
    for kind in WITH_ACTIONS:
        yield from _actions(kind, {s.name: s.object for s in states if s.kind == kind})
    yield CONFIG, CONFIG_HEAD + _config()


def _actions(kind: str, states: dict[str, Object]) -> Iterator[tuple[Path, str]]:
    home, does = OF_KIND / kind / "actions", [row[1:] for row in DOES if row[0] == kind]
    for state in OFFERED[kind]:
        yield home / "testdata" / f"{state}.yaml", _yaml(states[state])
    for action, state, change in does:
        spec = {key: value for key, value in {**states[state]["spec"], **change}.items() if value is not None}
        yield home / "testdata" / f"{state}_after_{action}.yaml", _yaml(states[state] | {"spec": spec})
    discovery = [
        {"inputPath": f"testdata/{state}.yaml", "result": [_offer(name, offered) for name in WITH_ACTIONS[kind]]}
        for state, offered in OFFERED[kind].items()
    ]
    acts = [
        {
            "action": action,
            "inputPath": f"testdata/{state}.yaml",
            "expectedOutputPath": f"testdata/{state}_after_{action}.yaml",
        }
        for action, state, _ in does
    ]
    yield home / "action_test.yaml", _yaml({"discoveryTests": discovery, "actionTests": acts})


def _offer(name: str, offered: set[str]) -> Object:
    return {"name": name, "disabled": name not in offered, "iconClass": f"fa fa-fw fa-{ICONS[name]}"}


def _input(state: State) -> Path:
    return Path("testdata") / f"{state.argo.lower()}_{state.name}.yaml"


def _config() -> str:
    data: Object = {}
    for kind in KINDS:
        data[f"resource.customizations.health.{GROUP}_{kind}"] = script(kind, "health.lua")
    for kind, names in WITH_ACTIONS.items():
        actions = [{"name": name, "action.lua": script(kind, f"actions/{name}/action.lua")} for name in names]
        defined = {"discovery.lua": script(kind, "actions/discovery.lua"), "definitions": actions}
        data[f"resource.customizations.actions.{GROUP}_{kind}"] = _yaml(defined)
    return _yaml({"data": data})


class _Readable(yaml.SafeDumper):
    """Texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Readable, sort_keys=False, width=10_000, allow_unicode=True)


def write() -> None:
    """Write all of it anew."""
    for kind in KINDS:
        for room in (OF_KIND / kind / "testdata", OF_KIND / kind / "actions" / "testdata"):
            shutil.rmtree(room, ignore_errors=True)
    for path, text in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write()
