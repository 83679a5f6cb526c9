"""gitops/argocd, as Argo CD's own tests run it: each state that the planner writes, each action, in Lua 5.1."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import pytest
import yaml
from lupa import lua51

from builders import argocd, states
from builders.crds import nodes, schema
from builders.lua import cleaned, run
from builders.rollouts import NOW
from modelparams.reasons import Reason

PAGES = {
    "ModelParamRollout": argocd.ROOT / "crds" / "modelparamrollouts.md",
    "ModelParamVersion": argocd.ROOT / "crds" / "modelparamversions.md",
}
HEALTH = [
    pytest.param(kind, case, id=f"{kind}-{case['inputPath']}")
    for kind in argocd.KINDS
    for case in yaml.safe_load((argocd.OF_KIND / kind / "health_test.yaml").read_text())["tests"]
]
ACTIONS = {
    kind: yaml.safe_load((argocd.OF_KIND / kind / "actions" / "action_test.yaml").read_text())
    for kind in argocd.WITH_ACTIONS
}
KEPT = states.all_states()


def kept(kind: str, path: str) -> Any:
    """An object of the test data."""
    return yaml.safe_load((argocd.OF_KIND / kind / path).read_text())


def health(kind: str, subject: Any) -> Any:
    return run(argocd.script(kind, "health.lua"), subject)


@pytest.mark.parametrize(("kind", "case"), HEALTH)
def test_a_state_has_the_health_that_is_told_of_it(kind: str, case: Any) -> None:
    assert health(kind, kept(kind, case["inputPath"])) == case["healthStatus"]


def test_files_are_what_the_planner_writes() -> None:
    written = dict(argocd.files())
    old = [str(path) for path, text in written.items() if not path.exists() or path.read_text() != text]
    assert old == [], "write them anew: PYTHONPATH=tests python -m builders.argocd"
    assert set(argocd.OF_KIND.rglob("*.yaml")) - set(written) == set()


@pytest.mark.parametrize("kind", PAGES)
def test_every_state_of_a_kind_s_page_is_among_them(kind: str) -> None:
    """By its reason, and by Ready: the rows of its table of conditions."""
    table = PAGES[kind].read_text().partition("## Conditions")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `(\w+)` \| [^|]*\| `(\w+)` \|", table, re.MULTILINE))
    passed = [*chain.from_iterable(map(states.passed_through, states.FAILURES))]
    known = [s.ready for s in (*KEPT, *passed) if s.kind == kind]
    assert rows
    assert rows - {(ready.get("status"), ready.get("reason")) for ready in known} == set()


@pytest.mark.parametrize("reason", states.FAILURES)
def test_what_is_final_is_degraded_and_what_is_tried_again_progresses(reason: Reason) -> None:
    for state in states.passed_through(reason):
        found = health(state.kind, state.object)
        assert (found["status"], found["message"].partition(":")[0]) == (state.argo, reason)


def test_rollouts_and_versions_are_judged_by_one_script() -> None:
    """Argo CD has a script for each kind; what one learns the other must learn too."""
    assert argocd.script("ModelParamRollout", "health.lua") == argocd.script("ModelParamVersion", "health.lua")


@pytest.mark.parametrize("kind", argocd.KINDS)
@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": 1}, {"observedGeneration": 1, "conditions": []}])
def test_an_object_that_says_little_is_waited_for(kind: str, status: Any) -> None:
    """A script that fails makes the health Unknown, and tells nothing."""
    bare = {"metadata": {"generation": 1}, "spec": {"podUID": "1"}} | ({} if status is None else {"status": status})
    assert health(kind, bare)["status"] == "Progressing"


def test_a_condition_without_a_message_is_told_by_its_reason() -> None:
    told = {"type": "Ready", "status": "True", "reason": "Promoted"}
    subject = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": [told]}}
    assert health("ModelParamRollout", subject) == {"status": "Healthy", "message": "Promoted"}


def cases(part: str) -> list[Any]:
    return [pytest.param(kind, case, id=f"{kind}-{case.get('action', '')}-{case['inputPath']}")
            for kind, both in ACTIONS.items() for case in both[part]]  # fmt: skip


@pytest.mark.parametrize(("kind", "case"), cases("discoveryTests"))
def test_only_what_makes_sense_can_be_clicked(kind: str, case: Any) -> None:
    found = run(argocd.script(kind, "actions/discovery.lua"), kept(kind, f"actions/{case['inputPath']}"))
    offered = {action["name"]: {k: v for k, v in action.items() if k != "name"} for action in case["result"]}
    assert found == offered


@pytest.mark.parametrize(("kind", "case"), cases("actionTests"))
def test_an_action_changes_its_field_of_the_spec_and_nothing_else(kind: str, case: Any) -> None:
    before = kept(kind, f"actions/{case['inputPath']}")
    made = run(argocd.script(kind, f"actions/{case['action']}/action.lua"), before, now=NOW)
    assert cleaned(made, before) == kept(kind, f"actions/{case['expectedOutputPath']}")


def test_every_action_is_offered_and_tried() -> None:
    for kind, names in argocd.WITH_ACTIONS.items():
        folders = {file.parent.name for file in (argocd.OF_KIND / kind / "actions").glob("*/action.lua")}
        tried = {case["action"] for case in ACTIONS[kind]["actionTests"]}
        assert folders == tried == set(names)


def test_another_token_is_one_that_the_api_server_takes() -> None:
    state = next(s for s in KEPT if s.name == "failed")
    token = run(argocd.script("ModelParamRollout", "actions/retry/action.lua"), state.object)["spec"]["retryToken"]
    assert len(token) <= schema("modelparamrollouts", "spec")["properties"]["retryToken"]["maxLength"]


def test_the_config_map_has_the_same_scripts() -> None:
    data = yaml.safe_load(argocd.CONFIG.read_text())["data"]
    for kind in argocd.KINDS:
        assert data[f"resource.customizations.health.modelparams.dev_{kind}"] == argocd.script(kind, "health.lua")
    for kind, names in argocd.WITH_ACTIONS.items():
        actions = yaml.safe_load(data[f"resource.customizations.actions.modelparams.dev_{kind}"])
        assert [one["name"] for one in actions["definitions"]] == list(names)
        for one in actions["definitions"]:
            assert one["action.lua"] == argocd.script(kind, f"actions/{one['name']}/action.lua")


def test_a_script_that_asks_for_a_library_fails_here_as_it_does_there() -> None:
    for script in ("return string.format('%d', 1)", "return ('a'):upper()", "return io.open('x')", "return math.huge"):
        with pytest.raises(lua51.LuaError):
            run(script, {})


def test_states_are_kept_under_names_of_their_own() -> None:
    names = [(state.kind, state.name) for state in KEPT]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("plural", ["modelparamrollouts", "modelparamversions"])
def test_the_api_server_adds_nothing_that_an_engine_would_see_as_a_difference(plural: str) -> None:
    """A default inside a list's items keeps an Application out of sync (argoproj/argo-cd#28724)."""
    defaults = {path for path, node in nodes(schema(plural, "spec")) if "default" in node}
    assert [path for path in defaults if "[]" in path] == []


@pytest.mark.parametrize(
    ("plural", "people_s"),
    [
        ("modelparamrollouts", {"paused", "suspend", "approvals", "expedite", "retryToken"}),
        ("modelparamversions", {"lifecycle", "suspend"}),
    ],
)
def test_what_people_write_beside_git_is_there_only_when_somebody_wrote_it(plural: str, people_s: set[str]) -> None:
    spec = schema(plural, "spec")
    assert [name for name in people_s if "default" in spec["properties"][name]] == []
    assert people_s & set(spec.get("required", ())) == set()
