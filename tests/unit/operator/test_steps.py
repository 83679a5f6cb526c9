"""Counting pods."""

from __future__ import annotations

from datetime import timedelta

import pytest

from builders.rollouts import NOW, step
from modelparams_operator.core.steps import after_an_edit, allowance, pause_ends, resolve, wanted


@pytest.mark.parametrize(
    ("count", "total", "want"),
    [
        pytest.param(1, 10, 1, id="a-number"),
        pytest.param(20, 10, 10, id="a-number-is-capped"),
        pytest.param("25%", 12, 3, id="a-share"),
        pytest.param("25%", 10, 3, id="a-share-is-rounded-up"),
        pytest.param("1%", 5000, 50, id="one-percent"),
        pytest.param("1%", 3, 1, id="the-smallest-share-is-one-pod"),
        pytest.param("29%", 100, 29, id="no-floating-point-error"),
        pytest.param("100%", 7, 7, id="all"),
        pytest.param("50%", 0, 0, id="no-pods"),
    ],
)
def test_a_count_is_resolved(count: int | str, total: int, want: int) -> None:
    assert resolve(count, total) == want


def test_the_implicit_last_step_is_all_pods() -> None:
    assert [wanted((step(1), step("25%")), index, 12) for index in range(4)] == [1, 3, 12, 12]


def test_at_least_one_pod_may_be_away_or_nothing_could_move() -> None:
    assert allowance("1%", 0) == 1
    assert allowance("25%", 12) == 3


def test_a_pause_counts_from_the_moment_the_step_was_reached() -> None:
    steps = (step(1, pause=60), step(2))
    assert pause_ends(steps, 0, NOW) == NOW + timedelta(seconds=60)
    assert pause_ends(steps, 0, None) is None
    assert pause_ends(steps, 1, NOW) is None
    assert pause_ends(steps, 2, NOW) is None


@pytest.mark.parametrize(
    ("steps", "updated", "want"),
    [
        pytest.param([1, 2, 5], 3, 1, id="past-the-steps-that-are-done-but-the-last-of-them-whose-pause-counts"),
        pytest.param([2, 5], 3, 0, id="a-step-that-asks-for-fewer-than-came-keeps-its-pause"),
        pytest.param([1, 3, 5], 3, 1, id="a-step-that-asks-for-just-as-many-keeps-its-pause"),
        pytest.param([8], 3, 0, id="the-first-that-asks-for-more"),
        pytest.param([1, 8], 0, 0, id="from-the-beginning-where-nothing-is-done"),
        pytest.param([1, 2], 5, 1, id="the-last-step-that-is-done-is-looked-at"),
        pytest.param([], 3, 0, id="no-steps-left"),
    ],
)
def test_an_edited_plan_goes_on_where_it_is(steps: list[int], updated: int, want: int) -> None:
    assert after_an_edit(tuple(step(count) for count in steps), 12, updated) == want
