"""Argo CD's and Flux's ways with objects, played on the real API server: what each change in Git does to the pods.

In each story every pod serves one verified version after the other, and never nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.git_engines import ArgoCD, Flux, GitEngine
from builders.operator_stage import Stage
from cluster.kubectl import Kubectl
from modelparams.reasons import Reason

pytestmark = pytest.mark.integration

OLD, NEW = "1.0.0", "1.1.0"
each_engine = pytest.mark.parametrize("engine_of", [ArgoCD, Flux])


def served(stage: Stage) -> list[list[str]]:
    """What each pod served, one after the other."""
    return [pod.served for pod in stage.agents.all()]


@each_engine
def test_an_addition_and_its_revert_go_forth_and_back(stage: Stage, engine_of: type[GitEngine]) -> None:
    engine = engine_of(stage)
    stage.pods("web-0", "web-1")
    with stage.operator():
        for versions, live in (((OLD,), OLD), ((OLD, NEW), NEW), ((OLD,), OLD)):
            engine.sync(*versions)
            stage.wait_until_all_live(live)
            stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
    assert served(stage) == [[OLD, NEW, OLD]] * 2


@each_engine
def test_an_addition_that_is_reverted_while_a_person_is_waited_for_moves_the_canary_alone(
    stage: Stage, engine_of: type[GitEngine]
) -> None:
    engine = engine_of(stage)
    stage.pods("web-0", "web-1", "web-2")
    stage.apply_rollout(strategy={"steps": [{"pods": 1, "pause": {}}]})
    with stage.operator():
        engine.sync(OLD)
        stage.wait_until_all_live(OLD)
        stage.wait_for_rollout("tiny-llama", Ready=f"True/{Reason.PROMOTED}")
        engine.sync(OLD, NEW)
        stage.wait_for_rollout("tiny-llama", Ready=f"Unknown/{Reason.AWAITING_APPROVAL}")
        stage.wait_for_version(NEW, Ready=f"Unknown/{Reason.AWAITING_APPROVAL}")
        engine.sync(OLD)
        stage.wait_until_all_live(OLD)
        stage.wait_for_rollout("tiny-llama", Ready=f"True/{Reason.PROMOTED}")
    assert sorted(served(stage)) == [[OLD], [OLD], [OLD, NEW, OLD]]


@each_engine
def test_a_rename_and_its_revert_go_forth_and_back(stage: Stage, engine_of: type[GitEngine]) -> None:
    """Argo CD leaves no object at all in between, and the operator sees that."""
    engine = engine_of(stage)
    stage.pods("web-0", "web-1")

    def halfway() -> None:
        if engine_of is ArgoCD:
            stage.wait_for_rollout(Ready=f"False/{Reason.NO_VERSION_SELECTED}")
        assert set(stage.agents.live()) == {"web-0", "web-1"}

    with stage.operator():
        engine.sync(OLD)
        stage.wait_until_all_live(OLD)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        engine.sync(NEW, between=halfway)
        stage.wait_until_all_live(NEW)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        engine.sync(OLD, between=halfway)
        stage.wait_until_all_live(OLD)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
    assert served(stage) == [[OLD, NEW, OLD]] * 2


@each_engine
def test_a_prune_that_does_not_come_through_is_made_up_for(stage: Stage, engine_of: type[GitEngine]) -> None:
    """Old and new stand side by side for a while; the late deletion moves nobody."""
    engine = engine_of(stage)
    stage.pods("web-0")
    with stage.operator():
        engine.sync(OLD)
        stage.wait_until_all_live(OLD)
        engine.sync(NEW, is_prune_down=True)
        stage.wait_until_all_live(NEW)
        stage.wait_for_version(OLD, Ready=f"True/{Reason.SUPERSEDED}")
        engine.sync(NEW)
        assert stage.version(OLD) == {}
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
    assert served(stage) == [[OLD, NEW]]


def withdraw(kubeconfig: Path, namespace: str, name: str) -> None:
    """By the command line."""
    command = [sys.executable, "-c", "from modelparams.cli import main; main()", "withdraw", name]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    subprocess.run([*command, "--namespace", namespace], env=environment, timeout=60, check=True, capture_output=True)


@each_engine
def test_what_a_person_withdrew_stays_withdrawn_at_the_next_sync(
    stage: Stage, engine_of: type[GitEngine], kubeconfig: Path
) -> None:
    engine = engine_of(stage)
    stage.pods("web-0")
    with stage.operator():
        engine.sync(OLD, NEW)
        stage.wait_until_all_live(NEW)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        withdraw(kubeconfig, stage.namespace, f"tiny-llama-{NEW}")
        stage.wait_until_all_live(OLD)
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        stage.wait_for_version(NEW, Ready=f"True/{Reason.WITHDRAWN}")
        engine.sync(OLD, NEW)
        after = stage.version(NEW)
        assert after["spec"]["lifecycle"] == "Withdrawn"
        assert after["metadata"]["generation"] == 2, "the spec is not even written"
    assert served(stage)[0][-2:] == [NEW, OLD]


@pytest.mark.parametrize(("engine_of", "stays"), [(ArgoCD, True), (Flux, False)])
def test_what_was_withdrawn_by_plain_kubectl_stays_with_argo_cd_and_not_with_flux(
    stage: Stage, kubectl: Kubectl, engine_of: type[GitEngine], stays: bool
) -> None:
    """Flux undoes what kubectl wrote. The page says so, and what to use instead."""
    engine = engine_of(stage)
    engine.sync(OLD)
    kubectl("patch", "mpv", f"tiny-llama-{OLD}", "--type=merge", "--patch", '{"spec":{"lifecycle":"Withdrawn"}}')
    assert stage.version(OLD)["spec"]["lifecycle"] == "Withdrawn"
    engine.sync(OLD)
    assert ("lifecycle" in stage.version(OLD)["spec"]) is stays
