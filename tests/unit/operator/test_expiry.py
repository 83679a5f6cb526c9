"""A version whose signed time is over is not taken up; what is live is never left by a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from builders.rollouts import (
    NOW,
    desired,
    digest,
    failure,
    observed,
    pod,
    pods,
    release,
    revision,
    status,
    step,
    version,
    withdrawn,
)
from modelparams.api.conditions import ConditionType, find
from modelparams.api.rollout import RolloutStatus
from modelparams.reasons import Reason
from modelparams_operator.core.memory import is_at_rest, is_failed
from modelparams_operator.core.model import Assign, Plan
from modelparams_operator.core.plan import plan

OLD, NEW, NEXT = "1.0.0", "1.1.0", "1.2.0"
PAST, SOON = NOW - timedelta(seconds=1), NOW + timedelta(seconds=90)
CANARY = status(OLD, NEW, started_at=NOW, progressed_at=NOW)
FIRST = status(target=NEW, started_at=NOW)


def ready(made: Plan) -> tuple[str, Reason, str]:
    found = find(made.status.conditions, ConditionType.READY)
    assert found is not None
    return found.status, found.reason, found.message


def held_or_served(made: Plan) -> set[str]:
    """Every version that a new order names."""
    orders = (action.order for action in made.actions if isinstance(action, Assign))
    return {str(one.version) for order in orders for one in order.releases}


def test_a_version_may_be_taken_up_in_the_very_second_of_its_not_after() -> None:
    made = plan(desired(), observed(version(OLD), version(NEW, not_after=NOW), *pods(2, OLD), memory=status(OLD)))
    assert made.status.target == release(NEW)


def test_an_expired_version_that_is_not_live_is_not_ordered() -> None:
    seen = observed(version(OLD), version(NEW, not_after=PAST), *pods(3, OLD), memory=status(OLD))
    made = plan(desired(), seen)
    assert (made.actions, made.status.target) == ((), release(OLD))


def test_an_expired_version_that_is_live_stays_live_and_goes_to_new_pods() -> None:
    new = pod("p9", ordered=None)
    made = plan(desired(), observed(version(OLD, not_after=PAST), *pods(3, OLD), new, memory=status(OLD)))
    assert made.status.live == made.status.target == release(OLD)
    assert held_or_served(made) == {OLD}


def test_a_first_version_that_expired_is_ordered_to_nobody_and_says_what_to_do() -> None:
    made = plan(desired(), observed(version(NEW, not_after=PAST), *pods(3, ordered=None)))
    assert made.actions == ()
    assert ready(made) == (
        "False",
        Reason.EXPIRED,
        "chat-1.1.0: its notAfter 2026-11-24T11:59:59Z has passed; publish a new version; pods keep what they serve",
    )


def test_a_withdrawn_pin_goes_back_to_no_version_whose_time_is_over() -> None:
    memory = status(OLD, history=(revision(OLD), revision(NEW), revision(NEXT)))
    seen = observed(withdrawn(OLD), version(NEW, not_after=PAST), version(NEXT), *pods(3, OLD), memory=memory)
    assert plan(desired(pin=OLD), seen).status.target == release(NEXT)


def test_of_several_the_next_one_that_may_be_served_is_taken() -> None:
    seen = observed(version(OLD), version(NEW), version(NEXT, not_after=PAST), *pods(3, OLD), memory=status(OLD))
    assert plan(desired(), seen).status.target == release(NEW)


def test_a_rollout_under_way_goes_back_when_its_time_is_over() -> None:
    canary = pod("p0", NEW, staged=[OLD])
    seen = observed(version(OLD), version(NEW, not_after=PAST), canary, pod("p1", OLD, staged=[NEW]), memory=CANARY)
    made = plan(desired(), seen)
    assert made.status.target == release(OLD)
    assert [revision.outcome for revision in made.status.history] == ["RolledBack"]
    assert made.status.failed_versions == ()


def test_a_first_version_whose_time_ends_on_the_way_is_served_on_where_it_is() -> None:
    seen = observed(version(NEW, not_after=PAST), pod("p0", NEW), pod("p1", staged=[NEW]), memory=FIRST)
    made = plan(desired(), seen)
    assert made.actions == ()
    assert ready(made)[:2] == ("False", Reason.EXPIRED)


def test_a_pinned_version_that_expired_leaves_the_last_good_one_and_says_so() -> None:
    seen = observed(version(OLD), version(NEW, not_after=PAST), *pods(3, OLD), memory=status(OLD))
    made = plan(desired(pin=NEW), seen)
    assert made.actions == ()
    assert ready(made) == (
        "False",
        Reason.EXPIRED,
        "chat-1.1.0 is pinned, and its notAfter 2026-11-24T11:59:59Z has passed; chat-1.0.0 stays",
    )


def test_a_pinned_version_that_is_live_stays_though_it_expired() -> None:
    made = plan(desired(pin=OLD), observed(version(OLD, not_after=PAST), *pods(3, OLD), memory=status(OLD)))
    assert ready(made)[:2] == ("True", Reason.PROMOTED)


def test_there_is_no_return_to_an_expired_version_that_is_not_live_any_more() -> None:
    seen = observed(version(OLD, not_after=PAST), withdrawn(NEW), *pods(3, NEW, staged=[OLD]), memory=status(NEW))
    made = plan(desired(), seen)
    assert made.actions == ()
    assert ready(made)[:2] == ("False", Reason.EXPIRED)


@pytest.mark.parametrize("memory", [CANARY, FIRST], ids=["canary", "first"])
def test_a_pod_whose_clock_is_ahead_does_not_take_the_rollout_down(memory: RolloutStatus) -> None:
    early = pod("p0", OLD if memory.live else None, failed=failure(NEW, Reason.EXPIRED))
    seen = observed(version(OLD), version(NEW, not_after=SOON), early, memory=memory)
    made = plan(desired(), seen)
    assert not is_failed(made.status, digest(NEW))
    assert made.status.target == release(NEW)


def test_the_end_of_a_time_is_when_the_plan_is_made_again() -> None:
    seen = observed(version(OLD), version(NEW, not_after=SOON), *pods(3, OLD), memory=status(OLD))
    made = plan(desired(steps=[step(1, pause=3600)]), seen)
    assert made.wake_at == SOON + timedelta(seconds=1)


def test_a_rollout_that_went_back_in_time_rests() -> None:
    seen = observed(version(OLD), version(NEW, not_after=PAST), *pods(3, OLD, staged=[NEW]), memory=status(OLD))
    made = plan(desired(), seen)
    assert is_at_rest(made.status)
    assert ready(made)[:2] == ("True", Reason.PROMOTED)


def test_a_time_at_the_end_of_all_calendars_wakes_nobody_too_late() -> None:
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    made = plan(desired(), observed(version(OLD, not_after=never), *pods(2, OLD), memory=status(OLD)))
    assert made.wake_at == never
