"""Each alert fires for what it is meant for and is silent otherwise, by Prometheus' own promtool where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from builders.rollouts import desired
from builders.world import World
from cluster.tools import debian_package
from modelparams_operator.shell import metrics

RULES = Path(__file__).parents[2] / "charts" / "modelparams" / "files" / "alerts.yaml"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["rules"]}
OPERATOR, AGENT = "modelparams_operator", "modelparams_agent"
CHECKS = f"{OPERATOR}_verification_seconds_count"
ROLLOUT = 'namespace="models", rollout="smollm2"'
STALLED = f"{OPERATOR}_rollout_stalled"

Series = dict[str, str]
"""A series to its values, one a minute: `1x20` stays, `0+1x20` grows, `_` is missing."""

WELL: Series = {
    f'{OPERATOR}_leader{{pod="a"}}': "1x120",
    f'{OPERATOR}_leader{{pod="b"}}': "0x120",
    f'{OPERATOR}_reconcile_seconds_count{{result="ok"}}': "0+9x120",
    f'{OPERATOR}_reconcile_seconds_count{{result="error"}}': "4x120",
    f'{OPERATOR}_api_errors_total{{code="409"}}': "0+60x120",
    f'{CHECKS}{{reason="Verified"}}': "0+1x120",
    f'{CHECKS}{{reason="SignerUnknown"}}': "3x120",
    f'{OPERATOR}_rollout_pods{{state="total", {ROLLOUT}}}': "3x120",
    f'{OPERATOR}_rollout_pods{{state="updated", {ROLLOUT}}}': "3x120",
    f'{OPERATOR}_rollout_pods{{state="failed", {ROLLOUT}}}': "0x120",
    f"{OPERATOR}_loop_lag_seconds": "0.01x120",
    f'{AGENT}_engine_up{{pod="web"}}': "1x120",
}
ILL: dict[str, list[Series]] = {
    "ModelParamsNoLeader": [
        {f'{OPERATOR}_leader{{pod="a"}}': "0x120"},
        {f'{OPERATOR}_leader{{pod="{pod}"}}': "_x120" for pod in "ab"},
    ],
    "ModelParamsPassesFail": [{f'{OPERATOR}_reconcile_seconds_count{{result="error"}}': "0+6x120"}],
    "ModelParamsAPIErrors": [{f'{OPERATOR}_api_errors_total{{code="none"}}': "0+9x120"}],
    "ModelParamsVersionRefused": [
        {f'{CHECKS}{{reason="SealBroken"}}': "_x114 1x6"},
        {f'{CHECKS}{{reason="SignerUnknown"}}': "3x114 4x6"},
        {  # its rollout has no other version
            f'{CHECKS}{{reason="SignerUnknown"}}': "3x110 4x10",
            f'{STALLED}{{reason="SignerUnknown", {ROLLOUT}}}': "_x110 1x10",
        },
    ],
    "ModelParamsStoreFails": [
        {f'{CHECKS}{{reason="SourceDenied"}}': "0+4x120"},
        {f'{CHECKS}{{reason="ObjectMissing"}}': "0+4x120"},
    ],
    "ModelParamsPodsFail": [{f'{OPERATOR}_rollout_pods{{state="failed", {ROLLOUT}}}': "0x110 1x10"}],
    "ModelParamsRolloutStalled": [
        {f'{STALLED}{{reason="{reason}", {ROLLOUT}}}': "_x110 1x10"} for reason in ("SwapFailed", "PodsClaimedTwice")
    ],
    "ModelParamsRolloutStands": [{f'{OPERATOR}_rollout_pods{{state="updated", {ROLLOUT}}}': "2x120"}],
    "ModelParamsEngineAway": [{f'{AGENT}_engine_up{{pod="web"}}': "1x100 0x20"}],
    "ModelParamsOperatorLags": [{f"{OPERATOR}_loop_lag_seconds": "3x120"}],
}


def promtool(folder: Path, given: Series, firing: str = "") -> str:
    """What is wrong with the rules when this is seen for two hours; empty when nothing is."""
    program = shutil.which("promtool") or debian_package.program("prometheus", "usr/bin/promtool")
    if program is None:
        pytest.skip("promtool is not on PATH, and apt-get does not give Debian's package prometheus, which has it")
    names = [name for name in ALERTS if name != firing]
    silent = [{"eval_time": "2h", "alertname": name, "exp_alerts": []} for name in names]
    # Counted rather than compared, since labels and texts are not what is asked here.
    loud = [
        {
            "expr": f'count(ALERTS{{alertname="{firing}", alertstate="firing"}}) > bool 0',
            "eval_time": "2h",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
    ]
    series = [{"series": name, "values": values} for name, values in given.items()]
    case = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": silent,
        "promql_expr_test": loud if firing else [],
    }
    (folder / "rules.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": list(ALERTS.values())}]}))
    (folder / "test.yaml").write_text(
        json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]})
    )
    done = subprocess.run(
        [program, "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""


def test_every_alert_has_a_case() -> None:
    assert set(ILL) == set(ALERTS)


def test_all_is_silent_when_all_is_well(tmp_path: Path) -> None:
    assert promtool(tmp_path, WELL) == ""


@pytest.mark.parametrize(("name", "seen"), [(name, seen) for name, cases in ILL.items() for seen in cases])
def test_it_fires_for_what_it_is_meant_for_and_no_other_does(name: str, seen: Series, tmp_path: Path) -> None:
    assert promtool(tmp_path, WELL | seen, name) == ""


@pytest.fixture
def failed(request: pytest.FixtureRequest) -> Iterator[Series]:
    """What the gauges show of a rollout, a pass a minute, whose new version fails in its first pod after 90 of them."""
    world, shown, minutes = World(0, calm=True), defaultdict[str, dict[int, str]](dict), range(120)
    world.desired = desired(on_failure=request.param)
    world.add_version("1.0.0")
    for _ in range(4):
        world.add_pod()
    for minute in minutes:
        if minute == 90:
            world.add_version("1.1.0", breaks="swap")
        metrics.show_rollout("models", "chat", world.operate().status)
        world.work(chance=1.0)
        world.tick(60)
        for series, value in gauges():
            shown[series][minute] = f"{value:g}"
    yield {series: " ".join(values.get(minute, "_") for minute in minutes) for series, values in shown.items()}
    metrics.forget_rollout("models", "chat")


def gauges() -> Iterator[tuple[str, float]]:
    for family in metrics.REGISTRY.collect():
        for sample in family.samples:
            if sample.labels.get("rollout") == "chat":
                labels = ", ".join(f'{name}="{value}"' for name, value in sample.labels.items())
                yield f"{sample.name}{{{labels}}}", sample.value


@pytest.mark.parametrize("failed", ["Rollback"], indirect=True)
def test_a_rollout_that_went_back_stays_in_the_gauge(failed: Series) -> None:
    """The pass that sees a pod fail turns the target round, and from then on no pod is one that failed the target."""
    labels = 'namespace="models", rollout="chat"'
    assert "1" not in failed[f'{OPERATOR}_rollout_pods{{{labels}, state="failed"}}'].split()
    assert failed[f'{STALLED}{{{labels}, reason="SwapFailed"}}'].split()[-10:] == ["1"] * 10


@pytest.mark.parametrize(
    ("failed", "name"),
    [("Rollback", "ModelParamsRolloutStalled"), ("Pause", "ModelParamsPodsFail")],
    indirect=["failed"],
)
def test_a_version_that_fails_in_its_first_pod_wakes_somebody_once(failed: Series, name: str, tmp_path: Path) -> None:
    assert promtool(tmp_path, WELL | failed, name) == ""
