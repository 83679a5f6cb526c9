"""One pass over many pods: its work grows with the pods, not with their square."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from builders.rollouts import desired, observed, pods, status, version
from modelparams_operator.core.model import Observed
from modelparams_operator.core.plan import plan

BOTH = (version("1.0.0"), version("1.1.0"))


def _at_rest(count: int) -> Observed:
    return observed(*BOTH, *pods(count, "1.1.0", staged=["1.0.0"]), memory=status("1.1.0"))


def _canary(count: int) -> Observed:
    return observed(*BOTH, *pods(count, "1.0.0", staged=["1.1.0"]), memory=status("1.0.0"))


def _first_deploy(count: int) -> Observed:
    return observed(version("1.0.0"), *pods(count, ordered=None))


def _calls(seen: Observed) -> int:
    """Python calls that one pass makes: the same on every machine."""
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        plan(desired(), seen)
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize("world", [_at_rest, _canary, _first_deploy])
def test_twice_the_pods_take_twice_the_work(world: Any) -> None:
    plan(desired(), world(300))  # what is remembered between passes is no work of this one
    assert 1.5 < _calls(world(600)) / _calls(world(300)) < 2.2


def test_a_pass_orders_as_many_pods_as_the_step_allows() -> None:
    found = [len(plan(desired(), world(1000)).actions) for world in (_at_rest, _canary, _first_deploy)]
    assert found == [0, 1, 1000]
