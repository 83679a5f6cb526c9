"""What Flux and kstatus make of every state that the planner writes: by their own code (cluster/tools/verdict).

Flux's fork of cli-utils is what Helm 4 waits by as well.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from builders import states
from builders.argocd import ROOT
from builders.kstatus import KStatus, contradictions, kstatus
from builders.states import Object, State
from cluster.tools import binary

pytestmark = pytest.mark.integration
FLUX = ROOT / "gitops" / "flux" / "kustomization.yaml"
STATES = (
    *states.rollouts(),
    *states.versions(),
    *(state for reason in states.FAILURES for state in states.passed_through(reason)),
)


def exprs() -> dict[str, Any]:
    """Of each kind."""
    listed = yaml.safe_load(FLUX.read_text())["spec"]["healthCheckExprs"]
    return {one["kind"]: {k: v for k, v in one.items() if k not in ("apiVersion", "kind")} for one in listed}


def asked(objects: list[Object]) -> list[dict[str, str]]:
    """What the tools say of each."""
    text = json.dumps({"exprs": exprs(), "objects": objects})
    done = subprocess.run([binary("verdict")], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, str]] = json.loads(done.stdout)
    return answers


def differing(told: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Those that are told otherwise than expected, for a message that can be read."""
    return {name: (told[name], want) for name, want in expected.items() if told[name] != want}


def name(state: State) -> str:
    return f"{state.kind} {state.name}"


@pytest.fixture(scope="module")
def verdicts(verdict_tool: None) -> dict[str, dict[str, str]]:
    """All at once: a process for each would take seconds."""
    return dict(zip(map(name, STATES), asked([state.object for state in STATES]), strict=True))


def test_kstatus_itself_says_what_is_told_of_each_state(verdicts: dict[str, dict[str, str]]) -> None:
    said = {at: answer["kstatus"] for at, answer in verdicts.items()}
    assert differing(said, {name(state): state.kstatus for state in STATES}) == {}


def test_our_reading_of_kstatus_is_its_own(verdicts: dict[str, dict[str, str]]) -> None:
    said = {at: answer["kstatus"] for at, answer in verdicts.items()}
    assert differing(said, {name(state): kstatus(state.object) for state in STATES}) == {}


def test_no_state_says_one_thing_twice_and_differently() -> None:
    assert {name(state): found for state in STATES if (found := contradictions(state.object))} == {}


def test_flux_takes_a_wait_for_a_person_as_applied(verdicts: dict[str, dict[str, str]]) -> None:
    said = {at: answer["flux"] for at, answer in verdicts.items()}
    assert differing(said, {name(state): state.flux for state in STATES}) == {}


@pytest.mark.parametrize("kind", ["ModelParamRollout", "ModelParamVersion"])
def test_flux_waits_for_an_object_that_says_little_and_stumbles_over_none(kind: str, verdict_tool: None) -> None:
    """An expression that fails is told to nobody: Flux waits until its timeout."""
    head = {"apiVersion": "modelparams.dev/v1alpha1", "kind": kind, "metadata": {"name": "a", "generation": 1}}
    seen: Object = {"observedGeneration": 1}
    little: list[Object] = [{}, {"observedGeneration": -1}, seen, {**seen, "conditions": []}]
    found = asked([{**head, "status": status} for status in little])
    assert [answer["flux"] for answer in found] == ["InProgress"] * 4


def test_deletion_goes_first(verdict_tool: None) -> None:
    marked = {"deletionTimestamp": "2026-11-24T12:00:00Z"}
    deleted = [state.object | {"metadata": state.object["metadata"] | marked} for state in STATES]
    assert {answer["kstatus"] for answer in asked(deleted)} == {"Terminating"}
    assert {kstatus(one) for one in deleted} == {KStatus.TERMINATING}


def test_both_kinds_are_asked_the_same() -> None:
    assert exprs()["ModelParamRollout"] == exprs()["ModelParamVersion"]
