"""One pass over many pods, versions or rollouts: its work grows with them, not with their square."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from builders.rollouts import NOW, desired, observed, pods, revision, status, version
from modelparams.api import MODEL_LABEL
from modelparams.api.rollout import LabelSelector, RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams_operator.core.claims import claims
from modelparams_operator.core.model import Observed
from modelparams_operator.core.plan import plan
from modelparams_operator.core.version_status import RolloutUse, judge
from modelparams_operator.shell.observe import Model, joined
from modelparams_operator.shell.observe import desired as seen_desired
from modelparams_operator.shell.observe import observed as seen_by
from modelparams_operator.shell.ports import ModelKey, ObjectKey
from modelparams_operator.shell.views import Custom, Pod

BOTH = (version("1.0.0"), version("1.1.0"))


def _at_rest(count: int) -> Observed:
    return observed(*BOTH, *pods(count, "1.1.0", staged=["1.0.0"]), memory=status("1.1.0"))


def _canary(count: int) -> Observed:
    return observed(*BOTH, *pods(count, "1.0.0", staged=["1.1.0"]), memory=status("1.0.0"))


def _first_deploy(count: int) -> Observed:
    return observed(version("1.0.0"), *pods(count, ordered=None))


def _one_pass(seen: Observed) -> None:
    """Plan, then sum up each version."""
    made = plan(desired(), seen)
    uses = [RolloutUse.of(desired(), made.status, seen.versions, NOW)]
    for view in seen.versions:
        judge(view, uses, VersionStatus(), NOW)


def _many_versions(count: int) -> Observed:
    """All but the live one are superseded."""
    numbers = [f"1.{minor}.0" for minor in range(count)]
    memory = status(numbers[-1], history=tuple(revision(number) for number in numbers[-20:]))
    return observed(*map(version, numbers), *pods(3, numbers[-1]), memory=memory)


def _calls(work: Callable[[], object]) -> int:
    """Python calls that the work makes: the same on every machine."""
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize("world", [_at_rest, _canary, _first_deploy])
def test_twice_the_pods_take_twice_the_work(world: Any) -> None:
    plan(desired(), world(300))  # what is remembered between passes is no work of this one
    few, many = world(300), world(600)
    assert 1.5 < _calls(lambda: plan(desired(), many)) / _calls(lambda: plan(desired(), few)) < 2.2


def test_twice_the_versions_take_twice_the_work() -> None:
    few, many = _many_versions(100), _many_versions(200)
    _one_pass(many)  # as above
    assert 1.5 < _calls(lambda: _one_pass(many)) / _calls(lambda: _one_pass(few)) < 2.3


def _of_many_rollouts(count: int, selector: LabelSelector) -> int:
    """Calls to plan for so many rollouts of the same selector in turn."""
    spec = desired(selector=selector).spec
    rollouts = tuple(
        Custom(ObjectKey("ns", f"r{number:03}"), f"uid-{number}", 1, "1", False, spec, RolloutStatus())
        for number in range(count)
    )
    labels = {MODEL_LABEL: "chat"}
    there = {name: Pod(name, f"{name}-uid", "chat", labels, True, False, False) for name in map(str, range(50))}

    def see() -> None:
        model = joined(Model(ModelKey("ns", "chat"), (), rollouts), there, {})
        for rollout in model.rollouts:
            plan(seen_desired(rollout), seen_by(model, rollout, (), now=NOW, term=1, watching_since=None))

    return _calls(see)


@pytest.mark.parametrize(
    "selector", [LabelSelector(), LabelSelector(match_labels={"tier": "gpu"})], ids=["of all pods", "of no pod"]
)
def test_twice_the_rollouts_take_twice_the_work(selector: LabelSelector) -> None:
    _of_many_rollouts(1, selector)  # as above
    assert 1.5 < _of_many_rollouts(60, selector) / _of_many_rollouts(30, selector) < 2.3


def test_twice_the_rollouts_of_many_pods_cost_hardly_more_to_ask_for_claims() -> None:
    specs = [desired(selector=LabelSelector(match_labels={"tier": f"t{n % 3}"})).spec for n in range(60)]
    there = {f"p{n}": {MODEL_LABEL: "chat", "tier": f"t{n % 3}", "pod-name": f"p{n}"} for n in range(400)}
    few, many = ({str(n): specs[n] for n in range(count)} for count in (30, 60))
    assert _calls(lambda: claims(many, there)) / _calls(lambda: claims(few, there)) < 1.5


def test_a_pass_orders_as_many_pods_as_the_step_allows() -> None:
    found = [len(plan(desired(), world(1000)).actions) for world in (_at_rest, _canary, _first_deploy)]
    assert found == [0, 1, 1000]
