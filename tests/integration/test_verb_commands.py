"""The verbs as commands, each as its own process, with a person's own rights on a real API server."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest

from builders import objects
from builders.guarded import ROLLOUTS, VERSIONS, Guarded, apply_binding
from builders.objects import rollout, version
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("policies")]

MANAGER = "modelparams-management"
_NUMBERS = itertools.count(1000)


@pytest.fixture(scope="session")
def managed(guarded: Guarded) -> Guarded:
    """With an account that has the verbs."""
    apply_binding(guarded, MANAGER)
    wait_until(lambda: _reads(guarded), "its rights", seconds=20)
    return guarded


def _reads(scene: Guarded) -> bool:
    try:
        return bool(scene.login(MANAGER).get(scene.path(VERSIONS)))
    except Exception:  # not yet
        return False


def run(scene: Guarded, verb: str, *arguments: str, who: str = MANAGER) -> subprocess.CompletedProcess[str]:
    start = "from modelparams.cli import main; main()"
    command = [sys.executable, "-c", start, verb, "--namespace", scene.namespace, *arguments]
    environment = {**os.environ, "KUBECONFIG": str(scene.kubeconfig(who))}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def under_way(scene: Guarded) -> str:
    """A rollout of 1.1.0 over 1.0.0 that waits in its first step, as an operator reports it."""
    model = f"m{next(_NUMBERS)}"
    subject = rollout(model, model=model)
    subject["spec"]["strategy"] = {"steps": [{"pods": 1, "pause": {}}, {"pods": 2}]}
    scene.admin.post(scene.path(ROLLOUTS), subject)
    live, target = (_release(model, number) for number in ("1.0.0", "1.1.0"))
    report = {"observedGeneration": 1, "live": live, "target": target, "stepIndex": 0, "step": "1/3"}
    scene.operator.patch(scene.path(ROLLOUTS, model, "status"), {"status": report})
    return model


def _release(model: str, number: str) -> dict[str, Any]:
    spec = version(number, model=model)["spec"]
    return {"versionName": f"{model}-{number}", **{k: v for k, v in spec.items() if k != "suspend"}}


def spec_of(scene: Guarded, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = scene.admin.get(scene.path(ROLLOUTS, name))["spec"]
    return spec


def test_an_approval_is_written_once_under_the_name_that_the_server_knows(managed: Guarded) -> None:
    name = under_way(managed)
    done = run(managed, "approve", name)
    who = f"system:serviceaccount:{managed.namespace}:{MANAGER}"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{who} approves {name}-1.1.0 through step 1 of 3 in {name}\n"
    (written,) = spec_of(managed, name)["approvals"]
    assert written.pop("stepsHash")
    assert written == objects.approval("1.1.0", who, model=name)
    again = run(managed, "approve", name)
    assert (again.returncode, again.stdout.endswith(", as before\n")) == (0, True)


def test_who_may_not_approve_is_told_why_and_nothing_is_written(managed: Guarded) -> None:
    name = under_way(managed)
    refused = run(managed, "approve", name, who="edit")
    assert refused.returncode not in (0, 2)
    assert "you need the verb promote on modelparamrollouts" in " ".join(refused.stderr.split())
    assert "approvals" not in spec_of(managed, name)


def test_holding_hurrying_and_trying_again(managed: Guarded) -> None:
    name = under_way(managed)
    assert run(managed, "pause", name).returncode == 0
    assert spec_of(managed, name)["paused"] is True
    assert run(managed, "resume", name).returncode == 0
    assert "paused" not in spec_of(managed, name)
    managed.admin.post(managed.path(VERSIONS), version("1.2.0", model=name))
    assert run(managed, "expedite", name, "--version", "1.2.0").returncode == 0
    assert spec_of(managed, name)["expedite"] == objects.expedite("1.2.0", model=name)
    nowhere = run(managed, "expedite", name, "--version", "1.3.0")
    assert (nowhere.returncode, f"no ModelParamVersion {name}-1.3.0" in " ".join(nowhere.stderr.split())) == (2, True)
    idle = run(managed, "retry", name)
    assert (idle.returncode, "nothing has failed" in idle.stderr) == (2, True)


def test_a_version_is_withdrawn_and_brought_back_and_git_engines_see_whose_field_it_is(managed: Guarded) -> None:
    model = f"m{next(_NUMBERS)}"
    managed.admin.post(managed.path(VERSIONS), version(model=model))
    path = managed.path(VERSIONS, f"{model}-1.0.0")
    assert run(managed, "withdraw", f"{model}-1.0.0").returncode == 0
    taken_out = managed.admin.get(path)
    assert taken_out["spec"]["lifecycle"] == "Withdrawn"
    assert "modelparams-cli" in {field["manager"] for field in taken_out["metadata"]["managedFields"]}
    assert run(managed, "withdraw", f"{model}-1.0.0", "--undo").returncode == 0
    assert "lifecycle" not in managed.admin.get(path)["spec"]


def test_why_a_rollout_is_where_it_is_and_what_comes_next_is_explained_to_whoever_may_look(managed: Guarded) -> None:
    name = under_way(managed)
    managed.admin.post(managed.path(VERSIONS), version("1.1.0", model=name))
    told = run(managed, "explain", name, who="view")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"rollout {name} at 20")
    assert f"verify {name}-1.1.0" in told.stdout
    assert f"no pod is selected; {name}-1.1.0 is rolled out when there are some" in told.stdout
    past = run(managed, "history", name, "--output", "json", who="view")
    assert (past.returncode, past.stdout) == (0, "[]\n")
    assert f"{name}-1.1.0" in run(managed, "history", name, who="view").stdout


def test_an_object_that_is_not_there_is_named(managed: Guarded) -> None:
    missing = run(managed, "approve", "nobody")
    assert missing.returncode == 2
    assert f"there is no ModelParamRollout nobody in namespace {managed.namespace}" in " ".join(missing.stderr.split())
