"""The CRDs and the Python kinds say the same about every field. `crds/` is the source of truth."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders import crds, objects
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus
from modelparams.api.base import Wire
from modelparams.api.conditions import ConditionStatus
from modelparams.api.rollout import RolloutSpec, RolloutStatus
from modelparams.api.version import VersionSpec, VersionStatus
from modelparams.digest import Digest
from modelparams.errors import UsageError
from modelparams.names import ModelName, Version, VersionRange
from modelparams.reasons import Reason

PARTS: list[tuple[str, str, type[Wire]]] = [
    ("modelparamversions", "spec", VersionSpec),
    ("modelparamversions", "status", VersionStatus),
    ("modelparamrollouts", "spec", RolloutSpec),
    ("modelparamrollouts", "status", RolloutStatus),
    ("modelparamassignments", "spec", AssignmentSpec),
    ("modelparamassignments", "status", AssignmentStatus),
]
EACH_PART = pytest.mark.parametrize(("plural", "part", "model"), PARTS, ids=[f"{p}.{q}" for p, q, _ in PARTS])

# Conditions are map-like for other writers' sake: Python reads the types that it knows.
LOOSER_IN_THE_CRD = {"conditions[].type"}

MINIMAL = {
    VersionSpec: objects.version()["spec"],
    RolloutSpec: objects.rollout()["spec"],
    AssignmentSpec: {"rolloutName": "web", "podUID": "1"},
    VersionStatus: {},
    RolloutStatus: {},
    AssignmentStatus: {},
}


@EACH_PART
def test_every_field_has_the_same_type_bounds_values_and_duty(plural: str, part: str, model: type[Wire]) -> None:
    declared, written = crds.facts(crds.schema(plural, part)), crds.facts(crds.of_model(model))
    assert declared.keys() == written.keys()
    differing = {at: (declared[at], written[at]) for at in declared if declared[at] != written[at]}
    assert differing.keys() - LOOSER_IN_THE_CRD == set(), differing


@EACH_PART
def test_what_the_api_server_fills_in_is_what_python_assumes(plural: str, part: str, model: type[Wire]) -> None:
    filled = crds.defaulted(crds.schema(plural, part), MINIMAL[model])
    assert model.parse(filled) == model.parse(MINIMAL[model])


@pytest.mark.parametrize(("plural", "part", "model"), [part for part in PARTS if part[1] == "spec"])
def test_a_default_that_says_something_is_shown_by_the_api_server(plural: str, part: str, model: type[Wire]) -> None:
    shown = crds.defaulted(crds.schema(plural, part), MINIMAL[model])
    assumed = model.parse(MINIMAL[model]).wire()
    assert list(_missing(assumed, shown)) == []


def _missing(assumed: Any, shown: Any, at: str = "") -> list[str]:
    """Fields of which Python assumes more than nothing and the object shows no value."""
    if not isinstance(assumed, dict):
        return []
    said = shown if isinstance(shown, dict) else {}
    absent = [f"{at}.{k}" for k, v in assumed.items() if k not in said and v not in ("", 0, False, [], {})]
    return absent + [hit for k, v in assumed.items() if k in said for hit in _missing(v, said[k], f"{at}.{k}")]


@pytest.mark.parametrize("plural", crds.PLURALS)
def test_an_unseen_object_reads_as_in_progress(plural: str) -> None:
    assert crds.schema(plural, "status")["default"] == {"observedGeneration": -1}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_may_stand_in_a_condition(reason: Reason) -> None:
    node = dict(crds.nodes(crds.schema("modelparamrollouts", "status")))["conditions[].reason"]
    assert re.search(_anchored(node), reason)
    assert len(reason) <= node["maxLength"]


def test_conditions_have_the_three_values() -> None:
    node = dict(crds.nodes(crds.schema("modelparamrollouts", "status")))["conditions[].status"]
    assert set(node["enum"]) == {str(value) for value in ConditionStatus}


def _anchored(node: crds.Schema) -> str:
    """The pattern for Python, whose `$` alone also matches before a last line break."""
    text = crds.pattern(node)
    assert text is not None
    assert text.startswith("^")
    assert text.endswith("$")
    return text[:-1] + r"\Z"


def _is_one(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except (UsageError, ValueError):
        return False
    return True


SPEC = dict(crds.nodes(crds.schema("modelparamversions", "spec")))
RANGE = dict(crds.nodes(crds.schema("modelparamrollouts", "spec")))["versionPolicy.range"]
KINDS: list[tuple[Callable[[str], object], crds.Schema]] = [
    (ModelName, SPEC["modelName"]),
    (Version, SPEC["version"]),
    (Digest, SPEC["manifestDigest"]),
    (VersionRange, RANGE),
]


def _agree(kind: Callable[[str], object], node: crds.Schema, text: str) -> None:
    accepted = len(text) <= node["maxLength"] and re.search(_anchored(node), text) is not None
    assert accepted is _is_one(kind, text), text


@pytest.mark.parametrize(("kind", "node"), KINDS, ids=["model", "version", "digest", "range"])
@given(text=st.text("abz019.-+:=<>! \nAsh", max_size=30))
@example("smollm2")
@example("1.0.0")
@example("1.0.0\n")
@example("1.0.0-rc.1")
@example("1.0.0-01")
@example("1.0.0-0-1")
@example("1.0.0--a")
@example("1.0.0-a-")
@example("1.0.0-a..b")
@example("1.0.0-")
@example("01.0.0")
@example("1.0.0+build")
@example("1.0.0-RC.1")
@example(">=1.0.0 <2.0.0")
@example(">=1.0.0  <2.0.0")
@example(">=1.0")
@example("sha256:" + "a" * 64)
@example("sha256:" + "A" * 64)
@example("a" * 64)
@example("")
def test_both_accept_the_same_strings(kind: Callable[[str], object], node: crds.Schema, text: str) -> None:
    _agree(kind, node, text)


@given(text=st.from_regex(crds.pattern(SPEC["version"]) or "", alphabet="abz019.-"))
def test_every_version_that_the_crd_takes_makes_a_legal_object_name(text: str) -> None:
    _agree(Version, SPEC["version"], text)
    name = f"m-{text}".removesuffix("\n")
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label) for label in name.split("."))
