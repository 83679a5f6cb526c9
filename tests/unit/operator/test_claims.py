"""Whose pod is it."""

from __future__ import annotations

import pytest

from builders.rollouts import desired
from modelparams.api import MODEL_LABEL
from modelparams.api.rollout import LabelExpression, LabelSelector
from modelparams_operator.core.claims import claims, other_claims, selects

CHAT = {MODEL_LABEL: "chat"}


def only(**labels: str) -> LabelSelector:
    return LabelSelector(match_labels=labels)


@pytest.mark.parametrize(
    ("selector", "labels", "want"),
    [
        pytest.param(LabelSelector(), CHAT, True, id="the-opt-in-label-is-enough"),
        pytest.param(LabelSelector(), {}, False, id="without-the-opt-in-label-never"),
        pytest.param(LabelSelector(), {MODEL_LABEL: "other"}, False, id="another-model"),
        pytest.param(only(tier="gpu"), {**CHAT, "tier": "gpu"}, True, id="a-label-matches"),
        pytest.param(only(tier="gpu"), {**CHAT, "tier": "cpu"}, False, id="a-label-differs"),
    ],
)
def test_a_selector_selects(selector: LabelSelector, labels: dict[str, str], want: bool) -> None:
    assert selects(desired(selector=selector).spec, labels) is want


@pytest.mark.parametrize(
    ("operator", "values", "label", "want"),
    [
        ("In", ("a", "b"), "a", True),
        ("In", ("a", "b"), "c", False),
        ("In", ("a", "b"), None, False),
        ("NotIn", ("a",), "c", True),
        ("NotIn", ("a",), "a", False),
        ("NotIn", ("a",), None, True),
        ("Exists", (), "x", True),
        ("Exists", (), None, False),
        ("DoesNotExist", (), None, True),
        ("DoesNotExist", (), "x", False),
    ],
)
def test_an_expression_holds_as_kubernetes_says(
    operator: str, values: tuple[str, ...], label: str | None, want: bool
) -> None:
    expression = LabelExpression(key="tier", operator=operator, values=values)  # type: ignore[arg-type]
    labels = CHAT if label is None else {**CHAT, "tier": label}
    assert selects(desired(selector=LabelSelector(match_expressions=(expression,))).spec, labels) is want


def test_a_pod_of_two_rollouts_is_claimed_by_the_other() -> None:
    rollouts = {"all": desired().spec, "gpu": desired(selector=only(tier="gpu")).spec}
    found = claims(rollouts, {"p0": CHAT, "p1": {**CHAT, "tier": "gpu"}})
    assert other_claims("all", found, ["p0", "p1"]) == {"p1": ("gpu",)}
    assert other_claims("gpu", found, ["p1"]) == {"p1": ("all",)}


def test_of_many_claims_of_a_pod_each_rollout_is_told_of_another() -> None:
    rollouts = {name: desired().spec for name in ("d", "b", "a", "c")}
    found = claims(rollouts, {"p0": CHAT})
    assert found == {"p0": ("a", "b")}
    assert [other_claims(name, found, ["p0"])["p0"][0] for name in "abcd"] == ["b", "a", "a", "a"]
