"""The planner's rules about pods, a row or a test each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from builders.rollouts import (
    NOW,
    desired,
    digest,
    failed,
    failure,
    final,
    observed,
    order,
    pod,
    pods,
    release,
    revision,
    sequence_of,
    status,
    step,
    transient,
    version,
    withdrawn,
)
from modelparams.api.assignment import ReleaseFailure
from modelparams.api.conditions import Condition, ConditionType, find
from modelparams.api.release import Encryption, KeyReference, S3Source, Source
from modelparams.api.rollout import Fall, PodCounts, RolloutStatus
from modelparams.names import ModelName
from modelparams.reasons import Reason
from modelparams_operator.core.failing import behind, is_stoppable
from modelparams_operator.core.fleet import Fleet
from modelparams_operator.core.memory import is_at_rest
from modelparams_operator.core.model import Assign, Desired, Observed, Plan, PodView, Verify, VersionView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.predecessors import lessons

OLD, NEW, NEXT = "1.0.0", "1.1.0", "1.2.0"
BOTH = (version(OLD), version(NEW))
CANARY = status(OLD, NEW, started_at=NOW, progressed_at=NOW)
"""1.1.0 is rolled out over 1.0.0; the step is being done."""
LATER = NOW + timedelta(seconds=120)
ALL_AT_ONCE = desired(steps=(), max_unavailable="100%")


def orders(made: Plan) -> dict[str, str | None]:
    """Pod name → the version that it is newly ordered to serve (None: only to hold)."""
    names = {digest(number): number for number in (OLD, NEW, NEXT)}
    assigns = [action for action in made.actions if isinstance(action, Assign)]
    return {a.pod_name: names[a.order.activate] if a.order.activate else None for a in assigns}


def holds(made: Plan, name: str) -> list[str]:
    action = next(a for a in made.actions if isinstance(a, Assign) and a.pod_name == name)
    return [str(one.version) for one in action.order.releases]


def stalled(made: Plan) -> Condition:
    condition = find(made.status.conditions, ConditionType.STALLED)
    assert condition is not None
    return condition


def moved(made: Plan, to: str = NEW) -> list[str]:
    return [name for name, number in orders(made).items() if number == to]


def staged(count: int, serving: str = OLD, beside: str = NEW) -> tuple[PodView, ...]:
    return pods(count, serving, staged=[beside])


def named(*names: str, serving: str = OLD, beside: Iterable[str] = (NEW,), **fields: object) -> tuple[PodView, ...]:
    return tuple(pod(name, serving, staged=beside, **fields) for name in names)  # type: ignore[arg-type]


# Verification before anything.


def test_an_unverified_version_is_checked_and_no_pod_is_touched() -> None:
    made = plan(desired(), observed(version(NEW, verified=False), *pods(3, ordered=None)))
    assert made.actions == (Verify("chat-1.1.0"),)


def test_a_check_that_failed_for_now_is_asked_for_again() -> None:
    made = plan(desired(), observed(version(NEW, failure=transient()), *pods(3, ordered=None)))
    assert made.actions == (Verify("chat-1.1.0"),)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(version(NEW), id="verified"),
        pytest.param(version(NEW, failure=final()), id="refused-for-good"),
        pytest.param(version(NEW, verified=False, lifecycle="Withdrawn"), id="withdrawn"),
        pytest.param(version(NEW, verified=False, suspend=True), id="suspended"),
        pytest.param(version(NEW, verified=False, deleting=True), id="being-deleted"),
    ],
)
def test_nothing_is_to_be_checked(view: object) -> None:
    made = plan(desired(), observed(view))  # type: ignore[arg-type]
    assert not [action for action in made.actions if isinstance(action, Verify)]


def test_facts_about_other_bytes_do_not_count() -> None:
    view = version(NEW, content="other bytes")
    forged = dataclasses.replace(view, verified=version(NEW).verified)
    made = plan(desired(), observed(forged, *pods(2, ordered=None)))
    assert made.actions == (Verify("chat-1.1.0"),)


# First deploy.


def test_a_first_version_is_staged_on_every_pod_at_once() -> None:
    made = plan(desired(), observed(version(NEW), *pods(5, ordered=None)))
    assert orders(made) == dict.fromkeys((f"p{i:02}" for i in range(5)), None)
    assert holds(made, "p00") == [NEW]


def test_a_first_version_takes_no_steps_and_no_budget() -> None:
    seen = observed(version(NEW), *pods(5, staged=[NEW], ordered=None), memory=status(target=NEW))
    assert len(moved(plan(desired(), seen))) == 5


def test_a_pod_is_ordered_to_serve_only_what_it_holds() -> None:
    seen = observed(
        version(NEW), pod("a", staged=[NEW], ordered=None), pod("b", ordered=None), memory=status(target=NEW)
    )
    assert orders(plan(desired(), seen)) == {"a": NEW, "b": None}


def test_a_first_version_is_live_when_all_pods_serve_it() -> None:
    made = plan(desired(), observed(version(NEW), *pods(3, NEW), memory=status(target=NEW)))
    assert made.status.live == release(NEW)
    assert made.status.live_sequence == 110
    assert [(r.version_name, r.outcome) for r in made.status.history] == [("chat-1.1.0", "Promoted")]


def test_one_sick_pod_does_not_take_a_first_version_from_the_others() -> None:
    sick = pod("z", staged=[NEW], ordered=NEW, failed=failure(NEW))
    made = plan(desired(), observed(*BOTH, *pods(2, NEW), sick, memory=status(target=NEW)))
    assert made.status.failed_versions == ()
    assert made.status.target == release(NEW)


def test_a_first_version_that_works_nowhere_gives_way_to_the_next() -> None:
    sick = pods(2, staged=[NEW], ordered=NEW, failed=failure(NEW))
    made = plan(desired(), observed(*BOTH, *sick, memory=status(target=NEW)))
    assert made.status.target == release(OLD)
    assert [f.version_name for f in made.status.failed_versions] == ["chat-1.1.0"]


# Staging everywhere, activation in waves.


def test_the_target_is_staged_on_every_pod_beside_what_it_serves() -> None:
    made = plan(desired(), observed(*BOTH, *pods(4, OLD), memory=status(OLD)))
    assert orders(made) == dict.fromkeys((f"p{i:02}" for i in range(4)), OLD)
    assert holds(made, "p03") == [OLD, NEW]


def test_the_first_step_is_one_pod() -> None:
    assert moved(plan(desired(), observed(*BOTH, *staged(12), memory=CANARY))) == ["p00"]


def test_a_pod_that_has_not_staged_yet_is_passed_over() -> None:
    seen = observed(*BOTH, pod("a", OLD, holds=[OLD, NEW]), *named("b", "c"), memory=CANARY)
    assert moved(plan(desired(), seen)) == ["b"]


def test_a_broken_pod_goes_first() -> None:
    seen = observed(*BOTH, *named("a", "b"), *named("c", ready=False), memory=CANARY)
    assert moved(plan(desired(), seen)) == ["c"]


def test_of_the_broken_pods_those_on_a_version_that_was_given_up_go_first() -> None:
    broken = (pod("a", OLD, staged=[NEXT], ready=False), pod("b", NEW, staged=[NEXT], ready=False))
    seen = observed(version(OLD), version(NEXT), *broken, memory=status(OLD, NEXT))
    assert moved(plan(desired(), seen), NEXT) == ["b"]


def test_a_broken_pod_that_does_not_recover_stands_in_for_nobody() -> None:
    broken = pod("c", NEW, staged=[OLD], ready=False)
    assert moved(plan(desired(), observed(*BOTH, *named("a", "b"), broken, memory=CANARY))) == ["a"]


def test_no_more_broken_pods_are_tried_at_once_than_the_step_has_pods() -> None:
    seen = observed(*BOTH, *named("a", "b"), *named("c", "d", "e", ready=False), memory=CANARY)
    assert moved(plan(desired(steps=(step(2),)), seen)) == ["c", "d"]


def test_while_one_broken_pod_is_tried_a_healthy_one_takes_the_step() -> None:
    tried = pod("d", NEW, staged=[OLD], ready=False)
    seen = observed(*BOTH, *named("a", "b"), *named("c", ready=False), tried, memory=CANARY)
    assert moved(plan(desired(), seen)) == ["a"]


def test_a_pod_that_gave_the_target_up_takes_no_place_in_the_step_from_another() -> None:
    """On the way back from a withdrawn version, which no pod's failure stops."""
    refused = pod("a", NEW, staged=[OLD], failed=failure(OLD))
    seen = observed(version(OLD), withdrawn(NEW), refused, *named("b", serving=NEW, beside=[OLD]))
    back = dataclasses.replace(seen, status=status(NEW, OLD, started_at=NOW, progressed_at=NOW))
    assert moved(plan(desired(), back), OLD) == ["b"]


def test_none_joins_while_ready_pods_are_on_a_version_that_was_given_up() -> None:
    given_up = named("a", "b", serving=NEW, beside=[OLD])
    seen = observed(version(OLD), version(NEXT), *given_up, *named("c", beside=[NEXT]), memory=status(OLD, NEXT))
    made = plan(desired(max_unavailable=3), seen)
    assert moved(made, NEXT) == []
    assert moved(made, OLD) == ["a", "b"]


@pytest.mark.parametrize(
    "given_up",
    [
        pytest.param(pod("a", NEW, staged=[OLD], ready=False), id="it-is-not-ready"),
        pytest.param(pod("a", NEW, staged=[OLD], failed=failure(OLD)), id="it-refused-to-leave"),
    ],
)
def test_a_pod_on_a_version_that_was_given_up_holds_nobody_if(given_up: PodView) -> None:
    seen = observed(version(OLD), version(NEXT), given_up, *named("c", beside=[NEXT]), memory=status(OLD, NEXT))
    assert moved(plan(desired(max_unavailable=3), seen), NEXT) == ["c"]


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(
            pod("a", NEW, staged=[OLD], ordered=OLD, moved_in=0), id="it-was-ordered-back-and-serves-it-still"
        ),
        pytest.param(pod("a", OLD, staged=[NEW], ordered=NEW, moved_in=0), id="it-was-ordered-there-and-may-arrive"),
    ],
)
def test_a_pod_between_two_versions_is_on_the_one_that_was_given_up(between: PodView) -> None:
    seen = observed(version(OLD), version(NEXT), between, *named("c", beside=[NEXT]), memory=status(OLD, NEXT))
    assert moved(plan(desired(max_unavailable=3), seen), NEXT) == []


def test_pods_on_a_version_that_was_given_up_leave_first() -> None:
    memory = status(NEW, OLD, history=(revision(NEW), revision(OLD)))
    on_live, on_canary = named("a", "b", serving=NEW, beside=[OLD]), named("z", serving=NEXT, beside=[OLD])
    seen = observed(version(OLD), withdrawn(NEW), withdrawn(NEXT), *on_live, *on_canary, memory=memory)
    assert moved(plan(desired(), seen), OLD) == ["z"]


def test_a_pod_that_is_away_because_of_us_holds_the_promotion() -> None:
    away = pod("z", NEW, staged=[OLD], ready=False, moved_in=0)
    made = plan(desired(), observed(*BOTH, *pods(3, NEW, staged=[OLD]), away, memory=status(OLD, NEW, step_index=2)))
    assert made.status.live == release(OLD)


def test_a_step_is_reached_when_its_pods_are_ready_on_the_target() -> None:
    want = desired(steps=(step(1, pause=60), step(3)))
    made = plan(want, observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c"), memory=CANARY))
    assert (made.status.step_index, made.status.step_reached_at) == (0, NOW)
    assert made.wake_at == NOW + timedelta(seconds=60)
    assert moved(made) == []


def test_a_pause_ends_by_time_alone() -> None:
    want = desired(steps=(step(1, pause=60), step(2)))
    memory = status(OLD, NEW, step_reached_at=NOW)
    parts = (*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c"))
    early = plan(want, observed(*parts, memory=memory, now=NOW + timedelta(seconds=59)))
    late = plan(want, observed(*parts, memory=memory, now=NOW + timedelta(seconds=60)))
    assert (early.status.step_index, moved(early)) == (0, [])
    assert (late.status.step_index, moved(late)) == (1, ["b"])


def test_a_pause_counts_only_while_all_pods_of_its_step_are_live() -> None:
    want = desired(steps=(step(1, pause=86_400), step(2)))
    fell, others = pod("a", NEW, staged=[OLD], ready=False, moved_in=0), named("b", "c")
    memory = status(OLD, NEW, step_reached_at=NOW, pods=PodCounts(total=3, staged=3, updated=1, available=3))
    fallen = plan(want, observed(*BOTH, fell, *others, memory=memory, now=NOW + timedelta(seconds=60)))
    assert (fallen.status.step_index, fallen.status.step_reached_at) == (0, None)
    ready = find(fallen.status.conditions, ConditionType.READY)
    assert ready is not None
    assert (ready.reason, ready.message) == (
        Reason.SWAPPING,
        f"step 1/3: 1 of 3 pods serve chat-{NEW}; pod a is not ready",
    )
    back = plan(want, observed(*BOTH, pod("a", NEW, staged=[OLD]), *others, memory=fallen.status, now=LATER))
    assert back.status.step_reached_at == LATER


def test_pods_that_come_and_go_begin_no_pause_again() -> None:
    want, memory = desired(steps=(step("50%", pause=60),)), status(OLD, NEW, step_reached_at=NOW)
    gone = plan(want, observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c", "d"), memory=memory)).status
    assert (gone.step_index, gone.step_reached_at) == (0, NOW), "one of two that were live is gone"


def test_a_share_of_more_pods_has_its_pause_when_all_of_them_are_there() -> None:
    """The fleet grew in the pause: most of the step's pods were not looked at yet."""
    want = desired(steps=(step("25%", pause=600),))
    canary = pod("a", NEW, staged=[OLD], moved_in=0)
    few = plan(want, observed(*BOTH, canary, *named("b", "c", "d"), memory=CANARY)).status
    many = (canary, *named(*"bcdefgh"))
    grown = plan(want, observed(*BOTH, *many, memory=few, now=NOW + timedelta(seconds=500))).status
    assert (few.step_reached_at, grown.step_reached_at, grown.step) == (NOW, None, "1/2")
    both = (canary, pod("b", NEW, staged=[OLD], moved_in=0), *named(*"cdefgh"))
    later = NOW + timedelta(seconds=520)
    assert plan(want, observed(*BOTH, *both, memory=grown, now=later)).status.step_reached_at == later


def test_a_canary_that_falls_over_in_its_pause_and_stays_down_has_failed() -> None:
    want = desired(steps=(step(1, pause=86_400), step(2)))
    fell, others = pod("a", NEW, staged=[OLD], ready=False, moved_in=0), named("b", "c")
    memory = status(OLD, NEW, step_reached_at=NOW, pods=PodCounts(total=3, staged=3, updated=1, available=3))
    fallen = plan(want, observed(*BOTH, fell, *others, memory=memory)).status
    late = plan(want, observed(*BOTH, fell, *others, memory=fallen, now=NOW + timedelta(seconds=600)))
    (one,) = late.status.failed_versions
    assert one.message == "pod a: it serves it and is not ready"
    assert "a" in moved(late, OLD)


def test_a_clock_that_jumps_back_only_lengthens_a_pause() -> None:
    want = desired(steps=(step(1, pause=60),))
    memory = status(OLD, NEW, step_reached_at=NOW)
    made = plan(
        want, observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b"), memory=memory, now=NOW - timedelta(minutes=10))
    )
    assert (made.status.step_index, moved(made)) == (0, [])


def test_a_step_that_an_edit_leads_to_has_its_pause_from_then_on() -> None:
    want = desired(steps=(step(1, pause=60), step(3, pause=60)), generation=2)
    parts = (*BOTH, *named("a", "b", "c", serving=NEW, beside=[OLD]), *named("d", "e"))
    later, memory = NOW + timedelta(seconds=50), status(OLD, NEW, step_reached_at=NOW, steps_hash="of another plan")
    made = plan(want, observed(*parts, memory=memory, now=later))
    assert (made.status.step_index, made.status.step_reached_at) == (1, later)


def test_a_rollout_without_pods_takes_no_step_and_promotes_nothing() -> None:
    assert plan(desired(), observed(*BOTH, memory=CANARY)).status.step_index == 0
    at_its_end = plan(desired(), observed(*BOTH, memory=status(OLD, NEW, step_index=2)))
    assert at_its_end.status.live == release(OLD)


def test_paused_holds_a_step_that_is_reached_and_the_promotion() -> None:
    parts = (*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c", "d", "e"))
    assert plan(desired(paused=True), observed(*parts, memory=CANARY)).status.step_index == 0
    done = observed(*BOTH, *pods(4, NEW, staged=[OLD]), memory=status(OLD, NEW, step_index=2))
    assert plan(desired(paused=True), done).status.live == release(OLD)


def test_steps_without_pauses_go_on_as_soon_as_they_are_reached() -> None:
    seen = observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c", "d", "e"), memory=CANARY)
    made = plan(desired(), seen)
    assert (made.status.step_index, made.status.step, moved(made)) == (1, "2/3", ["b"])


def test_a_canary_that_is_not_ready_holds_its_step() -> None:
    away = pod("a", NEW, staged=[OLD], ready=False, moved_in=0)
    made = plan(desired(), observed(*BOTH, away, *named("b", "c"), memory=CANARY))
    assert (made.status.step_index, moved(made)) == (0, [])


def test_the_last_step_is_all_pods_and_then_the_target_is_live() -> None:
    made = plan(desired(), observed(*BOTH, *pods(4, NEW, staged=[OLD]), memory=CANARY))
    assert is_at_rest(made.status)
    assert made.status.live == release(NEW)
    assert made.status.history[0].outcome == "Promoted"
    assert made.actions == ()


def test_the_previous_version_stays_resident_after_a_promotion() -> None:
    seen = observed(*BOTH, *pods(4, NEW, staged=[OLD]), memory=status(NEW))
    assert plan(desired(), seen).actions == ()


def test_a_pod_that_was_not_serving_does_not_hold_a_promotion() -> None:
    crashing = pod("z", ordered=OLD, holds=[OLD, NEW])
    made = plan(desired(), observed(*BOTH, *pods(3, NEW, staged=[OLD]), crashing, memory=CANARY))
    assert made.status.live == release(NEW)
    sick = pod("z", OLD, ready=False, holds=[OLD, NEW])
    made = plan(desired(), observed(*BOTH, *pods(3, NEW, staged=[OLD]), sick, memory=CANARY))
    assert made.status.live == release(NEW)


def test_a_version_that_was_live_before_takes_its_steps_again_when_it_is_the_higher_one() -> None:
    memory = status(OLD, NEW, history=(revision(OLD), revision(NEW)))
    assert moved(plan(desired(max_unavailable=3), observed(*BOTH, *staged(12), memory=memory))) == ["p00"]


def test_the_way_back_to_what_was_live_and_never_promoted_here_takes_no_steps() -> None:
    """One pod was sick while it came, say."""
    want = desired(steps=(step(1, pause=3600),))
    came = plan(want, observed(*BOTH, *pods(3, NEW, staged=[OLD]), memory=status(OLD, NEW, step_index=1))).status
    assert [one.version_name for one in came.history] == [f"chat-{NEW}", f"chat-{OLD}"]
    made = plan(want, observed(version(OLD), *pods(3, NEW, staged=[OLD]), memory=came)).status
    assert (made.target, made.step) == (release(OLD), "2/2")


@pytest.mark.parametrize(("window", "count"), [(0, 1), (1, 3)])
def test_what_is_live_takes_no_place_in_the_rollback_window(window: int, count: int) -> None:
    memory = status(NEXT, NEW, history=(revision(NEXT), revision(NEW), revision(OLD)))
    seen = observed(version(NEW), version(NEXT), *pods(12, NEXT, staged=[NEW]), memory=memory)
    assert len(moved(plan(desired(pin=NEW, window=window, max_unavailable=3), seen))) == count


# maxUnavailable.


@pytest.mark.parametrize(
    ("most", "want"),
    [pytest.param(1, 1, id="one"), pytest.param(3, 3, id="a-number"), pytest.param("25%", 3, id="a-share-rounded-up")],
)
def test_no_more_pods_move_at_once_than_may_be_unavailable(most: int | str, want: int) -> None:
    made = plan(desired(steps=(), max_unavailable=most), observed(*BOTH, *staged(10), memory=CANARY))
    assert len(moved(made)) == want


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(pod("a", OLD, staged=[NEW], ordered=NEW, moved_in=0), id="ordered-and-not-there-yet"),
        pytest.param(pod("a", NEW, staged=[OLD], ready=False, moved_in=0), id="there-and-not-ready-yet"),
        pytest.param(pod("a", None, staged=[OLD, NEW], ordered=NEW, moved_in=0), id="its-engine-died-while-swapping"),
    ],
)
def test_a_pod_that_is_away_because_of_us_spends_the_budget(away: PodView) -> None:
    assert moved(plan(desired(steps=()), observed(*BOTH, away, *named("b", "c"), memory=CANARY))) == []


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(pod("a", OLD, ready=False, holds=[OLD, NEW]), id="it-was-broken-before"),
        pytest.param(pod("a", None, ordered=OLD, holds=[OLD, NEW]), id="it-is-starting"),
        pytest.param(pod("a", NEW, staged=[OLD], ready=False), id="it-was-broken-when-it-was-moved"),
        pytest.param(pod("a", OLD, ready=False, deleting=True), id="it-is-being-deleted"),
    ],
)
def test_a_pod_that_is_away_for_its_own_reasons_does_not(away: PodView) -> None:
    assert moved(plan(desired(steps=()), observed(*BOTH, away, *named("b", "c"), memory=CANARY))) == ["b"]


@pytest.mark.parametrize(
    ("refused", "want"),
    [
        pytest.param(
            pod("a", NEW, staged=[OLD], holds=[OLD], ordered=OLD, failed=failure(OLD), moved_in=0),
            ["b"],
            id="serves-on",
        ),
        pytest.param(
            pod("a", NEW, staged=[OLD], holds=[OLD], ordered=OLD, failed=failure(OLD), moved_in=0, ready=False),
            [],
            id="is-not-ready",
        ),
        pytest.param(
            pod("a", staged=[OLD], holds=[OLD], ordered=OLD, failed=failure(OLD), moved_in=0, ready=True),
            [],
            id="serves-nothing",
        ),
    ],
)
def test_a_pod_that_refused_to_move_spends_the_budget_until_it_serves_again(refused: PodView, want: list[str]) -> None:
    """On the way back from a withdrawn version, which no pod's failure stops."""
    rest = named("b", "c", serving=NEW, beside=[OLD])
    made = plan(desired(steps=()), observed(version(OLD), withdrawn(NEW), refused, *rest, memory=status(NEW, OLD)))
    assert moved(made, OLD) == want


def test_a_pod_that_is_taken_from_serving_is_noted_in_its_order() -> None:
    made = plan(desired(), observed(*BOTH, *staged(3), memory=status(OLD, NEW, revision=4)))
    assert [a.order.moved_in for a in made.actions if isinstance(a, Assign)] == [4]


@pytest.mark.parametrize(
    ("sent", "want"),
    [
        pytest.param(pod("a", None, staged=[OLD, NEW], ordered=NEW, moved_in=4), 4, id="it-is-away-because-of-us"),
        pytest.param(pod("a", None, staged=[OLD], ordered=None, ready=True), None, id="it-never-served"),
    ],
)
def test_an_order_notes_that_a_pod_is_away_because_of_us_wherever_it_is_sent(sent: PodView, want: int | None) -> None:
    memory = status(OLD, revision=4, failed_versions=(failed(NEW),))
    made = plan(desired(), observed(*BOTH, *named("b", beside=()), sent, memory=memory))
    assert [(a.pod_name, a.order.moved_in) for a in made.actions if isinstance(a, Assign)] == [("a", want)]


def test_a_pod_that_dies_when_the_fleet_is_at_rest_does_not_spend_the_next_budget() -> None:
    back = plan(desired(), observed(version(OLD), *pods(3, OLD, moved_in=0), memory=status(OLD))).status
    assert back.revision == 1
    dead = pod("a", OLD, ready=False, holds=[OLD, NEW], moved_in=0)
    memory = back.model_copy(update={"target": release(NEW), "step_index": 0})
    assert moved(plan(desired(steps=()), observed(*BOTH, dead, *named("b", "c", moved_in=0), memory=memory))) == ["b"]


def test_a_pod_that_does_not_come_back_in_time_is_waited_for_no_longer() -> None:
    """Else one broken pod would spend the budget of every later rollout."""
    dead = pod("a", OLD, ready=False, moved_in=0)
    parts = (version(OLD), dead, *named("b", "c", beside=()))
    waiting = plan(desired(), observed(*parts, memory=status(OLD))).status
    assert (waiting.revision, waiting.progressed_at) == (0, NOW)
    just_before = plan(desired(), observed(*parts, memory=waiting, now=NOW + timedelta(seconds=599))).status
    in_vain = plan(desired(), observed(*parts, memory=waiting, now=NOW + timedelta(seconds=600))).status
    assert (just_before.revision, in_vain.revision, in_vain.progressed_at) == (0, 1, None)


def test_the_way_back_is_not_over_while_a_pod_is_where_it_may_not_stay() -> None:
    back, left = pod("a", OLD, staged=[NEW], moved_in=0), pod("b", NEW, staged=[OLD])
    memory = status(OLD, failed_versions=(failed(NEW),))
    assert plan(desired(), observed(*BOTH, back, left, memory=memory)).status.revision == 0
    arrived = pod("b", OLD, staged=[NEW], moved_in=0)
    assert plan(desired(), observed(*BOTH, back, arrived, memory=memory)).status.revision == 1


MANY = tuple(f"1.{number}.0" for number in range(1, 51))


def test_of_many_versions_that_fail_no_one_is_tried_again_when_the_memory_of_them_is_full() -> None:
    """Pods without memory for any of them, say: the first ones would be forgotten, and tried again in a circle."""
    versions = [version(number) for number in ("1.0.0", *MANY, "1.51.0")]
    full = status(OLD, failed_versions=tuple(failed(number) for number in MANY))
    made = plan(desired(), observed(*versions, *pods(2, OLD), memory=full)).status
    assert made.target == release(OLD)
    assert {f.version_name for f in made.failed_versions} == {f"chat-{number}" for number in MANY}


def test_a_pinned_version_that_fails_is_remembered_though_the_memory_is_full() -> None:
    versions = [version(number) for number in ("1.0.0", *MANY, "1.51.0")]
    full = status(OLD, "1.51.0", failed_versions=tuple(failed(number) for number in MANY), progressed_at=NOW)
    gave_up = pod("a", OLD, failed=failure("1.51.0"))
    made = plan(desired(pin="1.51.0"), observed(*versions, gave_up, memory=full)).status
    assert made.failed_versions[-1].version_name == "chat-1.51.0"
    assert len(made.failed_versions) == 50


def test_failures_of_versions_that_are_gone_make_room_for_another_try_and_for_no_one_elses() -> None:
    full = status(OLD, failed_versions=tuple(failed(number) for number in MANY), attempt=1)
    versions = [version(number) for number in ("1.0.0", "1.50.0", "1.51.0")]
    made = plan(desired(), observed(*versions, *pods(2, OLD, attempt="1"), memory=full)).status
    assert made.target == release("1.51.0")
    assert ([f.version_name for f in made.failed_versions], made.attempt) == (["chat-1.50.0"], 1)


def test_failures_of_versions_to_which_no_way_leads_keep_no_newer_version_away() -> None:
    full = status("1.51.0", failed_versions=tuple(failed(number) for number in MANY))
    versions = [version(number) for number in (*MANY, "1.50.1", "1.51.0", "1.52.0")]
    made = plan(desired(), observed(*versions, *pods(2, "1.51.0"), memory=full)).status
    assert made.target == release("1.52.0")
    assert {f.version_name for f in made.failed_versions} == {f"chat-{number}" for number in MANY[1:]}


def test_failures_that_a_revert_would_meet_hold_a_newer_version_up_and_it_is_told() -> None:
    full = status("1.51.0", failed_versions=tuple(failed(number) for number in MANY))
    versions = [version(number) for number in (OLD, *MANY, "1.51.0", "1.52.0")]
    made = plan(desired(), observed(*versions, *pods(2, "1.51.0"), memory=full))
    assert made.status.target == release("1.51.0")
    assert stalled(made).message.startswith("chat-1.52.0 waits: 50 others have failed")
    assert len(made.status.failed_versions) == 50


def test_failures_out_of_the_range_keep_no_version_away() -> None:
    above = tuple(f"2.{number}.0" for number in range(50))
    full = status("1.9.0", failed_versions=tuple(failed(number) for number in above))
    versions = [version(number) for number in (*above, "1.9.0", "1.10.0")]
    assert plan(desired(), observed(*versions, *pods(2, "1.9.0"), memory=full)).status.target == release("1.10.0")


def test_a_failure_of_what_is_pinned_or_above_what_there_is_to_go_back_to_is_not_forgotten() -> None:
    full = status("1.60.0", failed_versions=tuple(failed(number) for number in MANY))
    versions = [version(number) for number in (OLD, *MANY, "1.60.0")]
    pinned = plan(desired(pin="1.1.0"), observed(*versions, *pods(2, "1.60.0"), memory=full)).status
    assert (pinned.target, len(pinned.failed_versions)) == (release("1.60.0"), 50)
    reverted = plan(desired(), observed(*versions[:-1], *pods(2, "1.60.0"), memory=full)).status
    assert reverted.target == release(OLD)


def test_who_waits_because_so_many_failed_is_told_on_the_rollout() -> None:
    full = status(OLD, failed_versions=tuple(failed(number) for number in MANY))
    versions = [version(number) for number in ("1.0.0", *MANY, "1.51.0")]
    stalled = find(
        plan(desired(), observed(*versions, *pods(2, OLD), memory=full)).status.conditions, ConditionType.STALLED
    )
    assert stalled is not None
    assert stalled.message.startswith("chat-1.51.0 waits: 50 others have failed: delete their objects")


# Orders.


def test_an_order_carries_the_term_and_the_attempt() -> None:
    made = plan(desired(retry_token="a"), observed(version(NEW), *pods(1, ordered=None), term=7))
    order = next(a.order for a in made.actions if isinstance(a, Assign))
    assert (order.term, order.attempt, order.pod_uid, order.rollout_name) == (7, "1", "uid-p00", "chat")


def test_a_new_attempt_alone_rewrites_an_order() -> None:
    made = plan(desired(), observed(version(OLD), *pods(1, OLD), memory=status(OLD, attempt=1)))
    assert [a.order.attempt for a in made.actions if isinstance(a, Assign)] == ["1"]


def test_a_new_term_alone_rewrites_no_order() -> None:
    assert plan(desired(), observed(version(OLD), *pods(3, OLD), memory=status(OLD), term=9)).actions == ()


def test_a_version_that_all_pods_serve_is_live_before_a_newer_one_begins() -> None:
    memory = status(OLD, NEW, step_index=2, history=(revision(OLD),))
    made = plan(desired(), observed(*BOTH, version(NEXT), *staged(50, NEW, OLD), memory=memory))
    assert (made.status.live, made.status.target) == (release(NEW), release(NEXT))
    assert [(one.version_name, one.outcome) for one in made.status.history] == [
        (f"chat-{NEW}", "Promoted"),
        (f"chat-{OLD}", "Promoted"),
    ]
    assert moved(made, OLD) == []


@pytest.mark.parametrize(
    "before",
    [withdrawn(NEW), version(NEW, deleting=True), None],
    ids=["withdrawn", "in-deletion", "gone"],
)
def test_a_version_that_was_taken_out_is_not_live_though_all_pods_serve_it(before: VersionView | None) -> None:
    versions = [version(OLD), version(NEXT), *([before] if before else [])]
    made = plan(desired(), observed(*versions, *staged(5, NEW, OLD), memory=status(OLD, NEW, step_index=2)))
    assert (made.status.live, made.status.target) == (release(OLD), release(NEXT))


def test_a_version_that_most_pods_serve_is_not_live_when_a_newer_one_begins() -> None:
    pods_ = [*staged(4, NEW, OLD), pod("z", OLD, staged=[NEW])]
    made = plan(desired(), observed(*BOTH, version(NEXT), *pods_, memory=status(OLD, NEW, step_index=2)))
    assert (made.status.live, made.status.history[0].outcome) == (release(OLD), "Superseded")


def test_progress_that_a_fast_clock_noted_counts_from_now() -> None:
    memory = status(OLD, NEW, progressed_at=NOW + timedelta(days=365), pods=PodCounts(total=2, staged=0, summary="0/2"))
    made = plan(desired(), observed(*BOTH, *pods(2, OLD), memory=memory))
    assert made.status.progressed_at == NOW


@pytest.mark.parametrize(("lost_for", "reason"), [(14, None), (15, "APIUnavailable")])
def test_while_pods_cannot_be_followed_nobody_is_moved_and_no_step_is_taken(lost_for: int, reason: str | None) -> None:
    since, memory = NOW - timedelta(seconds=lost_for), status(OLD, NEW, progressed_at=NOW)
    made = plan(desired(), observed(*BOTH, *staged(4), memory=memory, blind_since=since))
    assert made.actions == ()
    assert made.wake_at == NOW + timedelta(seconds=1)
    assert (made.status.target, made.status.step_index) == (memory.target, memory.step_index)
    ready = find(made.status.conditions, ConditionType.READY)
    assert (ready.reason if ready else None) == reason


def test_while_pods_cannot_be_followed_versions_are_checked() -> None:
    made = plan(desired(), observed(version(NEW, verified=False), *pods(3, ordered=None), blind_since=NOW))
    assert made.actions == (Verify("chat-1.1.0"),)


def test_a_paused_rollout_takes_over_what_all_pods_serve_and_gives_it_to_new_ones() -> None:
    theirs = [*pods(3, NEW, rollout="before"), pod("z", staged=[NEW], ordered=None)]
    seen = observed(*BOTH, *theirs)
    first = plan(desired(paused=True), seen)
    assert (first.status.target, orders(first)["z"]) == (release(NEW), NEW)
    settled = dataclasses.replace(seen, status=first.status, pods=pods(4, NEW))
    assert plan(desired(paused=True), settled).status.live == release(NEW)


@pytest.mark.parametrize("serving", [None, OLD])
def test_a_paused_rollout_brings_its_first_version_to_no_pod(serving: str | None) -> None:
    there = [pod(name, serving, staged=[NEW], rollout="before") for name in ("a", "b")]
    mixed = [pod("c", NEW, rollout="before")] if serving else []
    made = plan(desired(paused=True), observed(*BOTH, *there, *mixed))
    assert [name for name in moved(made) if name != "c"] == []
    assert made.status.live != release(NEW)


def test_an_order_of_another_rollout_with_a_higher_term_outranks_only_that_one() -> None:
    theirs = dataclasses.replace(
        pod("z", OLD, rollout="other"), order=order(OLD, activate=OLD, uid="uid-z", term=9, rollout="other")
    )
    seen = observed(*BOTH, *staged(3), theirs, other_claims={"z": ("other",)}, memory=CANARY)
    made = plan(desired(), seen)
    assert (made.is_outranked, len(moved(made))) == (False, 1)


def test_of_two_versions_that_a_new_rollout_finds_that_of_most_pods_is_live() -> None:
    there = [*pods(1, OLD, staged=[NEW]), *(pod(name, NEW, staged=[OLD]) for name in ("x", "y"))]
    made = plan(desired(), observed(*BOTH, version(NEXT), *there))
    assert (made.status.live, made.status.target) == (release(NEW), release(NEXT))


def test_what_a_pod_of_another_model_served_before_its_label_was_changed_is_not_found_live() -> None:
    foreign = release(NEW).model_copy(update={"model_name": ModelName("other"), "version_name": "other-1.1.0"})
    standing = order(NEW, activate=NEW, uid="uid-a").model_copy(update={"releases": (foreign,)})
    relabelled = dataclasses.replace(pod("a", NEW), order=standing)
    assert plan(desired(), observed(version(NEXT), relabelled)).status.live is None


def test_a_version_that_failed_is_in_no_rollback_window() -> None:
    memory = status(NEXT, OLD, history=(revision(NEXT), revision(OLD, "Failed")))
    seen = observed(version(OLD), *pods(4, NEXT, staged=[OLD]), memory=memory)
    made = plan(desired(steps=(step(1),), max_unavailable=4), seen)
    assert len(moved(made, OLD)) == 1


def test_a_pod_that_was_not_serving_when_it_was_moved_is_not_counted_as_taken() -> None:
    broken = pod("a", OLD, staged=[NEW], ready=False)
    made = plan(desired(steps=(), max_unavailable=1), observed(*BOTH, broken, *named("b"), memory=CANARY))
    notes = {a.pod_name: a.order.moved_in for a in made.actions if isinstance(a, Assign)}
    assert notes == {"a": None, "b": 0}


def test_a_first_version_that_every_pod_that_answers_gave_up_has_failed_though_one_says_nothing() -> None:
    gave_up = [pod(name, failed=failure(NEW), staged=[]) for name in ("a", "b")]
    silent = pod("c", ordered=None, answers=False)
    made = plan(desired(), observed(version(NEW), *gave_up, silent, memory=status(target=NEW)))
    assert [f.manifest_digest for f in made.status.failed_versions] == [digest(NEW)]


def test_an_operator_that_was_replaced_writes_nothing() -> None:
    seen = observed(*BOTH, *pods(3, OLD), memory=status(OLD), term=0)
    made = plan(desired(), seen)
    assert (made.actions, made.status, made.is_outranked) == ((), seen.status, True)


def test_pods_that_obeyed_a_higher_term_stall_the_rollout_and_fail_no_version() -> None:
    beyond = [pod(name, OLD, holds=[OLD, NEW], obeyed=9) for name in ("a", "b")]
    late = status(OLD, NEW, progressed_at=NOW - timedelta(seconds=601), pods=PodCounts(total=2))
    made = plan(desired(), observed(*BOTH, *beyond, memory=late, term=3))
    assert stalled(made).reason is Reason.STALE_TERM
    assert "pods a and 1 more obey no order below term 9, and ours have 3; restart" in stalled(made).message
    assert made.status.failed_versions == ()


@pytest.mark.parametrize(
    ("obeyed", "next_step"),
    [
        (2**30, "restart the operator, which then takes a higher term"),
        (2**30 + 1, "no operator has such a term"),
    ],
)
def test_a_term_that_no_restart_would_reach_is_the_pod_s_own_affair(obeyed: int, next_step: str) -> None:
    made = plan(desired(), observed(version(OLD), pod("a", OLD, obeyed=obeyed), memory=status(OLD), term=3))
    assert next_step in stalled(made).message


def test_a_pod_that_obeys_and_is_late_fails_the_version_beside_one_that_cannot() -> None:
    late = status(OLD, NEW, progressed_at=NOW - timedelta(seconds=601), pods=PodCounts(total=2))
    beyond, slow = pod("a", OLD, holds=[OLD, NEW], obeyed=9), pod("b", OLD, holds=[OLD, NEW])
    seen = observed(*BOTH, beyond, slow, memory=late, term=3)
    failure = plan(desired(), seen).status.last_failure
    assert failure is not None
    assert failure.pod_name == "b"


def on_the_way_home_with_a_fix(**fields: Any) -> RolloutStatus:
    """1.1.0 failed, its pods go home to 1.0.0, and 1.2.0 is to mend it."""
    return status(OLD, NEXT, failed_versions=(failed(NEW),), started_at=NOW, **fields)


def test_a_pod_that_is_broken_where_it_was_sent_gets_the_fix_though_others_are_not_home_yet() -> None:
    sick = pod("a", OLD, ready=False, staged=[NEXT], moved_in=0)
    parts = (version(NEXT), sick, pod("b", NEW, staged=[OLD]), pod("c", OLD, staged=[NEXT]))
    made = plan(desired(), observed(*BOTH, *parts, memory=on_the_way_home_with_a_fix()))
    assert moved(made, NEXT) == ["a"]


def after_the_deadline(*parts: PodView | VersionView, memory: RolloutStatus) -> Plan:
    """The plan when nothing has changed for 601 s."""
    before = plan(desired(), observed(*parts, memory=memory)).status
    return plan(desired(), observed(*parts, memory=before, now=NOW + timedelta(seconds=601)))


def test_a_fix_that_waits_for_pods_to_come_home_is_not_to_blame_for_that() -> None:
    sick, stray = pod("a", OLD, ready=False, holds=[OLD, NEXT], moved_in=0), pod("b", NEW, staged=[OLD])
    parts = (*BOTH, version(NEXT), sick, stray, pod("c", OLD, staged=[NEXT]))
    made = after_the_deadline(*parts, memory=on_the_way_home_with_a_fix())
    assert [one.version_name for one in made.status.failed_versions] == [f"chat-{NEW}"]
    assert (made.status.revision, moved(made, OLD)) == (1, ["b"]), "the sick one had its time, and c is well there"


def test_a_fix_that_is_fetched_while_a_pod_does_not_come_home_is_not_late() -> None:
    """Nobody may be moved as long as that one is away, and so nothing that the others fetch counts as progress."""
    away, fetching = (
        pod("a", NEW, ordered=OLD, staged=[OLD], moved_in=0),
        pod("b", OLD, holds=[OLD, NEXT], progress="40%"),
    )
    made = after_the_deadline(*BOTH, version(NEXT), away, fetching, memory=on_the_way_home_with_a_fix())
    assert [one.version_name for one in made.status.failed_versions] == [f"chat-{NEW}"]


def test_a_pod_that_has_no_order_for_a_version_says_nothing_of_it() -> None:
    waits, refuses = pod("a", OLD), pod("b", OLD, holds=[OLD, NEW])
    assert after_the_deadline(*BOTH, waits, memory=CANARY).status.failed_versions == ()
    (failed,) = after_the_deadline(*BOTH, waits, refuses, memory=CANARY).status.failed_versions
    assert failed.message.startswith("pod b")


def test_the_blame_names_the_pod_that_is_not_well_and_none_that_waits_for_it() -> None:
    waits, sick = pod("a", OLD, staged=[NEW]), pod("b", NEW, staged=[OLD], ready=False, moved_in=0)
    (failed,) = after_the_deadline(*BOTH, waits, sick, memory=CANARY).status.failed_versions
    assert failed.message.startswith("pod b")


def test_one_pod_that_is_not_well_at_home_keeps_the_others_from_it_no_longer_than_its_time() -> None:
    sick, memory = pod("a", OLD, ready=False, moved_in=0), status(OLD, failed_versions=(failed(NEW),))
    made = after_the_deadline(*BOTH, sick, pod("b", NEW, staged=[OLD]), pod("c", NEW, staged=[OLD]), memory=memory)
    assert (made.status.revision, moved(made, OLD)) == (1, ["b"]), "it may be sick for reasons of its own"


@pytest.mark.parametrize("at_home", [(), (pod("z", OLD),)], ids=["nobody-else-there", "one-well-that-never-moved"])
def test_no_pod_follows_two_to_a_version_on_which_neither_is_well(at_home: tuple[PodView, ...]) -> None:
    sick, memory = (
        [pod(name, OLD, ready=False, moved_in=0) for name in "ab"],
        status(OLD, failed_versions=(failed(NEW),)),
    )
    made = after_the_deadline(*BOTH, *sick, *at_home, *named("c", "d", serving=NEW, beside=[OLD]), memory=memory)
    assert (made.status.revision, moved(made, OLD)) == (0, [])
    found = stalled(made)
    assert found.reason is Reason.PROGRESS_DEADLINE_EXCEEDED
    assert found.message.endswith("the first pod behind is a: see its events and logs, mend or delete it")


def test_a_newcomer_that_is_not_ready_yet_begins_no_pause_anew() -> None:
    """Nobody took it from serving: it has not fallen over."""
    want = desired(steps=(step(1, pause=600),))
    memory = CANARY.model_copy(update={"step_reached_at": NOW})
    came = pod("z", NEW, staged=[OLD], ready=False)
    parts = (*BOTH, pod("a", NEW, staged=[OLD], moved_in=0), came, *named("c", "d"))
    assert plan(want, observed(*parts, memory=memory, now=LATER)).status.step_reached_at == NOW


def test_a_pause_begins_again_when_its_canary_was_evicted() -> None:
    """Nobody is left who could be looked at."""
    want, memory = desired(steps=(step(1, pause=600),)), CANARY.model_copy(update={"step_reached_at": NOW})
    made = plan(want, observed(*BOTH, *named("b", "c"), memory=memory, now=LATER))
    assert (made.status.step_reached_at, moved(made)) == (None, ["b"])


def test_a_hold_in_a_pause_that_more_pods_share_than_the_step_asks_ends_no_pause() -> None:
    """The fleet was scaled down in the pause; then somebody wanted a closer look."""
    memory = CANARY.model_copy(update={"step_reached_at": NOW})
    parts = (*BOTH, *(pod(name, NEW, staged=[OLD], moved_in=0) for name in "ab"), *named("c", "d"))
    want = desired(steps=(step("25%", pause=3600),), paused=True, generation=2)
    held = plan(want, observed(*parts, memory=memory, now=LATER)).status
    assert (held.step, held.step_reached_at) == ("1/2", NOW)


def test_twenty_versions_that_came_to_nothing_do_not_lengthen_the_way_back() -> None:
    """What was live is remembered before what was not."""
    lost = tuple(revision(f"1.1.{number}", "Superseded") for number in range(1, 19))
    memory = status(NEW, NEXT, history=(*lost, revision(NEW), revision(OLD)), started_at=NOW)
    want = desired(pin=OLD, steps=(step(1, pause=7200),))
    made = plan(want, observed(*BOTH, version(NEXT), *named("a", "b", serving=NEW, beside=[OLD]), memory=memory))
    assert len(made.status.history) == 20
    assert [one.outcome for one in made.status.history[-2:]] == ["Promoted", "Promoted"]
    assert any("no steps" in line for line in made.why)


def test_the_last_ready_pod_does_not_follow_to_where_the_other_fell_over() -> None:
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    fell = pod("a", OLD, ready=False, staged=[NEW], moved_in=0)
    made = after_the_deadline(version(OLD), fell, *named("b", serving=NEW, beside=[OLD]), memory=memory)
    assert (made.status.revision, moved(made, OLD)) == (0, [])
    assert "the first pod behind is a" in stalled(made).message


def test_the_last_ready_pod_follows_past_one_whose_agent_hangs() -> None:
    """That one is no evidence: it has not come to it."""
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    hangs = pod("a", NEW, ready=False, ordered=OLD, staged=[OLD], moved_in=0)
    made = after_the_deadline(version(OLD), hangs, *named("b", serving=NEW, beside=[OLD]), memory=memory)
    assert moved(made, OLD) == ["b"]


def test_time_under_suspend_does_not_count_for_the_deadline() -> None:
    parts = (*BOTH, *(pod(name, OLD, holds=[OLD, NEW]) for name in "ab"))
    before = plan(desired(), observed(*parts, memory=CANARY)).status
    during = plan(desired(suspend=True), observed(*parts, memory=before, now=NOW + timedelta(seconds=10))).status
    after = plan(desired(), observed(*parts, memory=during, now=NOW + timedelta(seconds=5000)))
    assert (after.status.failed_versions, after.status.progressed_at) == ((), NOW + timedelta(seconds=5000))


def test_what_the_others_fetch_counts_anew_once_one_of_them_has_it() -> None:
    """The percents of those that are left are fewer than those of all."""
    want = desired(steps=(step(3),))
    both = (pod("b", OLD, holds=[OLD, NEW], progress="90%"), pod("c", OLD, holds=[OLD, NEW], progress="40%"))
    first = plan(want, observed(*BOTH, *named("a"), *both, memory=CANARY)).status
    left = (*named("b"), pod("c", OLD, holds=[OLD, NEW], progress="41%"))
    second = plan(want, observed(*BOTH, *named("a"), *left, memory=first, now=NOW + timedelta(seconds=100))).status
    later, left = NOW + timedelta(seconds=200), (*named("b"), pod("c", OLD, holds=[OLD, NEW], progress="42%"))
    assert plan(want, observed(*BOTH, *named("a"), *left, memory=second, now=later)).status.progressed_at == later


@pytest.mark.parametrize(
    ("live", "on_target"),
    [
        pytest.param(None, 1, id="pruned-in-mid-canary"),
        pytest.param(version(OLD), 1, id="standing"),
    ],
)
def test_a_canary_on_one_pod_is_not_live_because_a_newer_version_comes(
    live: VersionView | None, on_target: int
) -> None:
    """Git keeps the newest file alone, say: what is live is pruned, and nobody goes back from it."""
    want = desired(steps=(step(1, pause=600),))
    fleet = (pod("a", NEW, staged=[OLD], moved_in=0), *named("b", "c", "d"))
    seen = [version(NEW), version(NEXT), *([live] if live else [])]
    made = plan(want, observed(*seen, *fleet, memory=CANARY))
    assert (made.status.live, made.status.target) == (release(OLD), release(NEXT))


def test_nobody_is_back_yet_so_what_they_go_back_to_is_not_live_when_the_fix_comes() -> None:
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    made = plan(
        desired(), observed(version(OLD), version(NEXT), *named("a", "b", serving=NEW, beside=[OLD]), memory=memory)
    )
    assert made.status.live == release(NEW)


@pytest.mark.parametrize(("pin", "seen"), [(OLD, BOTH), (None, (version(OLD),))], ids=["a-pin", "a-revert"])
@pytest.mark.parametrize("is_silent", [False, True], ids=["sick", "silent"])
def test_a_return_goes_on_past_one_pod_that_does_not_come_and_not_past_two(
    pin: str | None, seen: tuple[VersionView, ...], is_silent: bool
) -> None:
    """It was live before, so silence does not fail it: that would bar the way back for good."""
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    kept = {"serving": NEW, "ordered": OLD} if is_silent else {"serving": OLD, "ready": False}
    a, b = (pod(name, staged=[NEW, OLD], moved_in=0, **kept) for name in "ab")  # type: ignore[arg-type]
    others = named("c", "d", serving=NEW, beside=[OLD])

    def late(*parts: PodView) -> Plan:
        before = plan(desired(pin=pin), observed(*seen, *parts, *others, memory=memory)).status
        return plan(desired(pin=pin), observed(*seen, *parts, *others, memory=before, now=NOW + timedelta(seconds=601)))

    first = late(a, pod("b", NEW, staged=[OLD]))
    assert (first.status.failed_versions, moved(first, OLD)) == ((), ["b"])
    second = late(a, b)
    assert moved(second, OLD) == []
    if is_silent or not pin:
        assert second.status.failed_versions == ()
        assert stalled(second).reason is Reason.PROGRESS_DEADLINE_EXCEEDED


def test_a_return_by_steps_takes_no_third_pod_to_a_version_on_which_two_are_not_well() -> None:
    """Who remembers no history goes back by steps, and home is what was deleted."""
    memory = status(NEW, OLD, step_index=1, started_at=NOW)
    sick = [pod(name, OLD, ready=False, staged=[NEW], moved_in=0) for name in "ab"]
    made = after_the_deadline(version(OLD), *sick, *named("c", "d", serving=NEW, beside=[OLD]), memory=memory)
    assert (made.status.revision, moved(made, OLD)) == (0, [])


def test_a_pin_to_a_version_on_which_two_are_not_well_goes_back_to_what_is_live() -> None:
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    parts = (*BOTH, *(pod(name, OLD, ready=False, staged=[NEW], moved_in=0) for name in "ab"))
    others = named("c", "d", serving=NEW, beside=[OLD])
    before = plan(desired(pin=OLD), observed(*parts, *others, memory=memory)).status
    late = plan(desired(pin=OLD), observed(*parts, *others, memory=before, now=NOW + timedelta(seconds=601)))
    assert (late.status.target, moved(late)[:2]) == (release(NEW), ["a", "b"])


def test_a_version_that_is_bad_for_pods_that_were_not_ready_yet_is_left_when_nobody_is_well() -> None:
    """One commit brought a new image and it, say."""
    (one,) = after_the_deadline(
        *BOTH, pod("a", NEW, staged=[OLD], ready=False), memory=status(OLD, NEW, step_index=2)
    ).status.failed_versions
    assert one.message == "pod a: it serves it and is not ready"


def test_the_blame_for_a_late_fetch_is_with_a_ready_pod_before_one_that_is_not() -> None:
    parts = (pod("a", OLD, ready=False, holds=[OLD, NEW]), pod("b", OLD, holds=[OLD, NEW]))
    (one,) = after_the_deadline(*BOTH, *parts, memory=CANARY).status.failed_versions
    assert one.message == "pod b: it has not fetched it"


@pytest.mark.parametrize(
    "never_came",
    [
        pytest.param(pod("a", ordered=OLD, holds=[OLD, NEW], answers=False), id="pending"),
        pytest.param(pod("a", OLD, holds=[OLD, NEW], ready=False), id="away-since-before"),
        pytest.param(pod("a", OLD, holds=[OLD, NEW], ready=False, progress="3%"), id="sick-where-it-was"),
    ],
)
@pytest.mark.parametrize("others", [(), (pod("z", NEW, staged=[OLD]),)], ids=["alone", "beside-one-that-is-well"])
def test_a_pod_that_was_not_well_before_and_does_not_fetch_a_version_says_nothing_of_it(
    never_came: PodView, others: tuple[PodView, ...]
) -> None:
    """A node that takes longer than the deadline to come, say, or that went away."""
    made = after_the_deadline(*BOTH, never_came, *others, memory=CANARY)
    assert made.status.failed_versions == ()
    assert made.status.target == release(NEW)
    assert others or "the first pod behind is a" in stalled(made).message


def test_a_version_that_takes_all_pods_down_before_they_can_say_so_is_stopped() -> None:
    """Whatever reads its order crashes, say."""
    down = [pod(name, OLD, holds=[OLD, NEW], ready=False) for name in "ab"]
    made = after_the_deadline(*BOTH, *down, memory=CANARY)
    assert [one.version_name for one in made.status.failed_versions] == [f"chat-{NEW}"]
    pending = [pod(name, ordered=OLD, holds=[OLD, NEW], answers=False) for name in "ab"]
    assert after_the_deadline(*BOTH, *pending, memory=CANARY).status.failed_versions == ()


@pytest.mark.parametrize(("seconds", "is_stopped"), [(0, False), (599, False), (600, True)])
def test_a_pod_that_came_back_has_its_own_time_to_fetch(seconds: int, is_stopped: bool) -> None:
    late = NOW + timedelta(seconds=900)
    back = dataclasses.replace(
        pod("a", OLD, holds=[OLD, NEW], progress="0%"), ready_since=late - timedelta(seconds=seconds)
    )
    before = plan(desired(), observed(*BOTH, pod("a", OLD, holds=[OLD, NEW], ready=False), memory=CANARY)).status
    made = plan(desired(), observed(*BOTH, back, memory=before, now=late))
    assert bool(made.status.failed_versions) is is_stopped


def test_a_canary_that_crashes_again_and_again_is_judged_though_it_is_up_in_between() -> None:
    want, memory = desired(steps=(step(1, pause=600),)), CANARY
    up, down = (pod("a", NEW, staged=[OLD], ready=ready, moved_in=0) for ready in (True, False))
    seen, seconds = [], 0
    for state, lasts in ((up, 60), (down, 240)) * 4:
        made = plan(want, observed(*BOTH, state, *named("b"), memory=memory, now=NOW + timedelta(seconds=seconds)))
        memory, seconds = made.status, seconds + lasts
        seen.append(bool(memory.failed_versions))
    assert seen.index(True) == 5, "the third fall, 600 s after the first"


@pytest.mark.parametrize("who", [("a", "a"), ("a", "b")])
def test_two_blinks_of_readiness_hours_apart_in_a_long_pause_condemn_nothing(who: tuple[str, str]) -> None:
    """No pass in between: nothing happened."""
    want, memory, seconds = desired(steps=(step(2, pause=86400),)), CANARY, 0
    for down in (None, who[0], None, who[1], None):
        canaries = [pod(name, NEW, staged=[OLD], ready=name != down, moved_in=0) for name in "ab"]
        at = NOW + timedelta(seconds=seconds)
        memory = plan(want, observed(*BOTH, *canaries, *named("c"), memory=memory, now=at)).status
        seconds += 20 if down else 3600
        assert memory.failed_versions == ()


def test_a_fall_that_lasted_while_no_operator_looked_has_its_deadline() -> None:
    want = desired(steps=(step(1, pause=86400),))
    known = CANARY.model_copy(update={"fallen": (Fall(pod_name="a", time=NOW),), "step_reached_at": LATER})
    down = pod("a", NEW, staged=[OLD], ready=False, moved_in=0)
    back = NOW + timedelta(seconds=700)
    seen = observed(*BOTH, down, *named("b"), memory=known, now=back, watching_since=back)
    assert plan(want, seen).status.failed_versions == ()


def test_a_version_made_again_with_other_bytes_under_the_live_one_s_name_can_fail() -> None:
    memory = status(NEW).model_copy(update={"target": release(NEW, content="other bytes")})
    assert is_stoppable(memory, (version(OLD), version(NEW, content="other bytes")))


def test_another_try_is_not_judged_by_the_falls_of_the_one_before() -> None:
    want = desired(steps=(step(1, pause=86400),), on_failure="Pause", retry_token="again")
    known = CANARY.model_copy(update={"fallen": (Fall(pod_name="a", time=NOW),), "step_reached_at": LATER})
    well = plan(want, observed(*BOTH, pod("a", NEW, staged=[OLD], moved_in=0), *named("b"), memory=known, now=LATER))
    assert (well.status.attempt, well.status.fallen) == (1, ())


def test_pods_that_each_blink_once_in_a_long_pause_condemn_nothing() -> None:
    """Kubelets are restarted, node by node."""
    want, memory, seconds = desired(steps=(step(3, pause=86400),)), CANARY, 0
    for down in (None, "a", None, "b", None, "c", None):
        canaries = [pod(name, NEW, staged=[OLD], ready=name != down, moved_in=0) for name in "abc"]
        at = NOW + timedelta(seconds=seconds)
        memory = plan(want, observed(*BOTH, *canaries, *named("d"), memory=memory, now=at)).status
        seconds += 20 if down else 310
        assert memory.failed_versions == ()
    assert [one.pod_name for one in memory.fallen] == ["a", "b", "c"]


def test_pods_that_crash_in_turn_are_judged_as_one_that_crashes_alone() -> None:
    want, memory, seconds = desired(steps=(step(2, pause=86400),)), CANARY, 0
    seen = []
    for down in (None, "a", None, "b", None, "a", None, "b", None):
        canaries = [pod(name, NEW, staged=[OLD], ready=name != down, moved_in=0) for name in "ab"]
        at = NOW + timedelta(seconds=seconds)
        memory = plan(want, observed(*BOTH, *canaries, *named("c"), memory=memory, now=at)).status
        seconds += 20 if down else 310
        seen.append(bool(memory.failed_versions))
    assert seen.index(True) == 5, "the second fall of the first one"


def test_a_canary_that_fell_over_once_and_a_second_one_that_is_not_up_yet_are_no_crash_loop() -> None:
    want = desired(steps=(step(1, pause=600),))
    fallen = CANARY.model_copy(update={"fallen": (Fall(pod_name="a", time=NOW),), "progressed_at": None})
    coming = pod("b", NEW, staged=[OLD], ready=False, moved_in=0)
    made = plan(want, observed(*BOTH, coming, *named("c"), memory=fallen, now=NOW + timedelta(seconds=3000)))
    assert made.status.failed_versions == ()


def test_a_step_that_is_passed_forgets_who_fell_over_in_it() -> None:
    want = desired(steps=(step(1, pause=60), step(2, pause=600)))
    memory = CANARY.model_copy(update={"fallen": (Fall(pod_name="a", time=NOW),), "step_reached_at": NOW})
    made = plan(
        want, observed(*BOTH, pod("a", NEW, staged=[OLD], moved_in=0), *named("b", "c"), memory=memory, now=LATER)
    )
    assert (made.status.step, made.status.fallen) == ("2/3", ())


def test_a_return_by_steps_goes_on_past_a_pod_that_had_its_time_also_where_a_step_pauses() -> None:
    want = desired(window=0, steps=(step(1, pause=300),))
    memory = status(NEW, OLD, started_at=NOW, revision=5)
    given_up = pod("a", OLD, staged=[NEW], ready=False, moved_in=4)
    well = pod("b", OLD, staged=[NEW], moved_in=5)
    others = named("c", "d", serving=NEW, beside=[OLD])
    first = plan(want, observed(version(OLD), given_up, well, *others, memory=memory)).status
    assert first.step_reached_at == NOW
    late = plan(want, observed(version(OLD), given_up, well, *others, memory=first, now=NOW + timedelta(seconds=301)))
    assert moved(late, OLD) == ["c"]


def test_two_dead_pods_at_home_keep_a_later_version_from_the_others_no_longer_than_their_time() -> None:
    """Nobody is to go home any more, so how it is there is no evidence against what comes."""
    dead = [pod(name, OLD, ready=False, moved_in=2) for name in "yz"]
    parts = (version(OLD), version(NEXT), *dead, *named("a", "b", beside=[NEXT]))
    made = after_the_deadline(*parts, memory=status(OLD, NEXT, revision=2, started_at=NOW))
    assert (made.status.revision, moved(made, NEXT)) == (3, ["a"])


def test_the_pod_that_is_named_as_behind_is_none_that_is_well_where_another_is_not() -> None:
    dead = [pod(name, OLD, ready=False, moved_in=2) for name in "yz"]
    named_first = behind(digest(NEXT), Fleet.of(desired(), observed(pod("a", OLD), *dead)))
    assert named_first is not None
    assert named_first.name == "y"


def test_a_pod_that_is_not_ready_and_says_that_it_cannot_fetch_a_version_speaks_against_it() -> None:
    said = failure(NEW, Reason.SOURCE_UNAVAILABLE, is_final=False)
    made = after_the_deadline(*BOTH, pod("a", OLD, holds=[OLD, NEW], ready=False, failed=said), memory=CANARY)
    assert [one.version_name for one in made.status.failed_versions] == [f"chat-{NEW}"]


def test_a_canary_that_fell_over_in_its_pause_has_the_deadline_though_enough_others_are_well() -> None:
    """The fleet was scaled down in the pause: as many are well as the step asks."""
    want = desired(steps=(step("25%", pause=600),))
    parts = (*BOTH, pod("a", NEW, staged=[OLD], moved_in=0), *named("c", "d"))
    sick = pod("b", NEW, staged=[OLD], ready=False, moved_in=0)
    memory = plan(want, observed(*parts, sick, memory=CANARY)).status
    assert (memory.step_reached_at, memory.progressed_at) == (None, NOW)
    again = plan(want, observed(*parts, sick, memory=memory, now=LATER))
    assert again.status == memory, "at rest nothing is written"
    late = plan(want, observed(*parts, sick, memory=memory, now=NOW + timedelta(seconds=601)))
    assert [one.message for one in late.status.failed_versions] == ["pod b: it serves it and is not ready"]


def test_a_dead_pod_on_what_was_given_up_keeps_no_later_version_from_its_deadline() -> None:
    dead = pod("a", NEW, ready=False, staged=[OLD], ordered=OLD, moved_in=0)
    sick = pod("b", NEXT, staged=[OLD], ready=False, moved_in=1)
    parts = (*BOTH, version(NEXT), dead, sick, *named("c", "d", beside=[NEXT]))
    made = after_the_deadline(*parts, memory=on_the_way_home_with_a_fix(revision=1))
    assert [one.version_name for one in made.status.failed_versions] == [f"chat-{NEW}", f"chat-{NEXT}"]
    assert made.status.failed_versions[1].message.startswith("pod b")


def test_a_fix_that_comes_in_the_midst_of_a_return_takes_no_pod_beyond_max_unavailable() -> None:
    """The pod that is on its way to the older version is away because of us, whatever comes next."""
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    back, coming = pod("a", OLD, staged=[NEW], moved_in=0), pod("b", OLD, staged=[NEW], ready=False, moved_in=0)
    parts = (version(OLD), version(NEXT), back, coming, *named("c", "d", serving=NEW, beside=[OLD]))
    made = plan(desired(), observed(*parts, memory=memory))
    assert (made.status.live, made.status.target) == (release(OLD), release(NEXT))
    assert set(moved(made, OLD)) <= {"a", "b"}, "these have that order already"


def test_a_pod_that_was_sick_where_it_was_keeps_no_others_from_their_way_back() -> None:
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), revision=3, started_at=NOW)
    before = pod("z", NEW, ready=False, staged=[OLD], moved_in=1)
    sent = pod("a", NEW, ready=False, staged=[OLD], ordered=OLD, moved_in=3)
    others = named("b", "c", serving=NEW, beside=[OLD])
    made = after_the_deadline(version(OLD), before, sent, *others, memory=memory)
    assert (made.status.revision, "b" in moved(made, OLD)) == (4, True)


def test_a_fix_whose_floor_is_above_what_pods_go_back_to_takes_its_steps() -> None:
    """What they go back to may not become live: home would be the fix, and all but one would go there at once."""
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    fix = version(NEXT, floor=sequence_of(NEW))
    back, others = pod("a", OLD, staged=[NEXT], moved_in=0), named("b", "c", "d", serving=NEW, beside=[NEXT])
    want = desired(steps=(step(1, pause=3600),), max_unavailable="100%")
    made = plan(want, observed(version(OLD), fix, back, *others, memory=memory))
    assert made.status.target == release(NEXT)
    assert len(moved(made, NEXT)) <= 1


def test_a_newcomer_gets_what_is_live_though_its_object_was_pruned() -> None:
    """Git keeps the newest file alone, say: nobody goes back from what is live, and the target is not tried yet."""
    fleet = (pod("a", NEW, staged=[OLD], moved_in=0), *named("b"), pod("z", ordered=None))
    made = plan(desired(steps=(step(1, pause=600),)), observed(version(NEW), *fleet, memory=CANARY))
    assert holds(made, "z")[0] == OLD


def test_a_second_revert_sends_nobody_to_what_the_first_one_deleted() -> None:
    """Beyond the window, or where nobody remembers a history: by steps, and what was live is gone."""
    memory = status(NEXT, NEW, step_index=2, history=(revision(NEXT),), started_at=NOW)
    parts = (pod("a", NEW, staged=[NEXT], moved_in=0), pod("b", NEW, staged=[NEXT]))
    seen = observed(version(OLD), *parts, *named("c", serving=NEXT, beside=[]), memory=memory)
    made = plan(desired(window=1), seen)
    assert made.status.target == release(OLD)
    assert not {"a", "b"} & set(moved(made, NEXT))


def test_a_pin_that_is_taken_out_half_way_makes_what_it_named_not_live() -> None:
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    there, not_yet = pod("a", OLD, staged=[NEW], moved_in=0), pod("b", NEW, staged=[OLD])
    made = plan(desired(), observed(*BOTH, version(NEXT), there, not_yet, memory=memory))
    assert (made.status.live, made.status.target) == (release(NEW), release(NEXT))


@pytest.mark.parametrize("taken_out", [(), (withdrawn(NEW),)], ids=["deleted", "withdrawn"])
def test_pods_that_are_back_already_do_not_go_to_what_was_taken_out_on_their_way_to_the_fix(
    taken_out: tuple[VersionView, ...],
) -> None:
    memory = status(NEW, OLD, step_index=2, history=(revision(NEW), revision(OLD)), started_at=NOW)
    back, left = pod("a", OLD, staged=[NEW], moved_in=0), pod("b", NEW, staged=[OLD])
    made = plan(desired(), observed(version(OLD), version(NEXT), *taken_out, back, left, memory=memory))
    assert (made.status.live, made.status.target) == (release(OLD), release(NEXT))
    assert moved(made) == []


def test_the_deadline_of_a_fix_begins_when_the_last_pod_has_come_home() -> None:
    parts = (*BOTH, version(NEXT), *(pod(name, OLD, staged=[NEXT]) for name in "bc"))
    slow, home = pod("a", NEW, staged=[OLD], moved_in=0), pod("a", OLD, holds=[OLD, NEXT], moved_in=0)
    before = plan(desired(), observed(*parts, slow, memory=on_the_way_home_with_a_fix())).status
    assert before.pods.leaving == 1
    late = NOW + timedelta(seconds=700)
    told = plan(desired(), observed(*parts, slow, memory=before, now=late)).status
    made = plan(desired(), observed(*parts, home, memory=told, now=late + timedelta(seconds=30))).status
    assert [one.version_name for one in made.failed_versions] == [f"chat-{NEW}"]
    assert made.progressed_at == late + timedelta(seconds=30)


def test_pods_of_a_failed_version_wait_for_the_fix_when_nobody_is_well_at_home() -> None:
    fixed, sick = pod("a", NEXT, holds=[NEXT, OLD]), pod("d", OLD, ready=False, holds=[OLD, NEXT])
    others = [pod(name, NEW, holds=[NEW, NEXT], staged=[NEXT]) for name in "bc"]
    memory = on_the_way_home_with_a_fix(step_index=2)
    made = plan(desired(), observed(*BOTH, version(NEXT), fixed, sick, *others, memory=memory))
    assert (moved(made, OLD), moved(made, NEXT)) == ([], ["b"])


def test_while_the_first_pod_is_on_its_way_home_the_others_keep_theirs_ready() -> None:
    """They would fetch it a second time, and serve the failed version meanwhile."""
    fixed, going = pod("a", NEXT, holds=[NEXT, OLD]), pod("b", NEW, ordered=OLD, staged=[OLD], moved_in=0)
    stray, memory = pod("c", NEW, staged=[OLD]), on_the_way_home_with_a_fix(step_index=2)
    made = plan(desired(), observed(*BOTH, version(NEXT), fixed, going, stray, memory=memory))
    assert "c" not in orders(made)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (pod("a", OLD, holds=[OLD, NEW], answers=False), "its agent has said nothing"),
        (pod("a", OLD, holds=[OLD, NEW], progress="61%"), "it has not fetched it (61%)"),
        (pod("a", OLD, staged=[NEW], ordered=NEW, moved_in=0), "it holds it and does not serve it"),
        (pod("a", NEW, staged=[OLD], ready=False, moved_in=0), "it serves it and is not ready"),
        (pod("a", OLD, holds=[OLD, NEW], failed=failure(NEW, is_final=False)), "SwapFailed: it did not work"),
    ],
)
def test_the_blame_says_what_is_known_of_the_pod(told: PodView, words: str) -> None:
    (one,) = after_the_deadline(*BOTH, told, memory=CANARY).status.failed_versions
    assert one.message == f"pod a: {words}"


def test_a_first_version_that_makes_its_pods_unready_is_not_live_and_its_fix_waits_for_no_step() -> None:
    broken = [pod(name, OLD, ready=False, staged=[NEW]) for name in "abc"]
    made = plan(desired(steps=(step(1, pause=3600),)), observed(*BOTH, *broken, memory=status(target=OLD)))
    assert (made.status.live, sorted(moved(made))) == (None, ["a", "b", "c"])


@pytest.mark.parametrize(
    "there",
    [
        pytest.param((pod("a", NEXT, holds=[NEXT, OLD]), pod("e", OLD)), id="one-is-well-at-home"),
        pytest.param((pod("a", NEXT, holds=[NEXT, OLD], ready=False),), id="nobody-is-well-on-the-fix"),
    ],
)
def test_pods_of_a_failed_version_go_home_where(there: tuple[PodView, ...]) -> None:
    sick, stray = pod("d", OLD, ready=False, holds=[OLD, NEXT]), pod("b", NEW, staged=[OLD])
    memory = on_the_way_home_with_a_fix(step_index=2)
    assert "b" in moved(plan(desired(), observed(*BOTH, version(NEXT), *there, sick, stray, memory=memory)), OLD)


def test_a_version_that_waits_for_a_pod_that_is_sick_at_home_goes_on_after_its_time() -> None:
    sick = pod("a", OLD, ready=False, holds=[OLD, NEW], moved_in=0)
    made = after_the_deadline(*BOTH, sick, *named("b", "c"), memory=CANARY)
    assert (made.status.failed_versions, made.status.revision, moved(made)) == ((), 1, ["b"])


def test_the_blame_is_with_the_pod_that_was_well_before_and_not_with_one_that_was_given_it_as_a_cure() -> None:
    cured, taken = pod("a", NEW, staged=[OLD], ready=False), pod("b", NEW, staged=[OLD], ready=False, moved_in=0)
    (one,) = after_the_deadline(*BOTH, cured, taken, memory=CANARY).status.failed_versions
    assert one.message.startswith("pod b")
    waits = named("c")
    assert after_the_deadline(*BOTH, cured, *waits, memory=status(OLD, NEW, step_index=2)).status.failed_versions == ()


def test_pods_of_a_failed_version_go_home_though_nobody_is_there_yet() -> None:
    fixed, others = pod("a", NEXT, holds=[NEXT, OLD]), [pod(name, NEW, staged=[OLD]) for name in "bc"]
    made = plan(desired(), observed(*BOTH, version(NEXT), fixed, *others, memory=on_the_way_home_with_a_fix()))
    assert moved(made, OLD) == ["b"]


def test_a_pod_that_cannot_go_home_is_not_ordered_to_and_fro_while_the_target_is_held() -> None:
    barred = pod("a", NEW, holds=[NEW, OLD], failed=failure(OLD))
    parts = (*BOTH, version(NEXT), pod("b", OLD, staged=[NEXT]), barred)
    held = plan(desired(paused=True), observed(*parts, memory=on_the_way_home_with_a_fix()))
    assert "a" not in orders(held), "one without home would hide that it cannot go there"
    goes_on = plan(desired(), observed(*parts, memory=held.status))
    (sent,) = [one.order for one in goes_on.actions if isinstance(one, Assign) and one.pod_name == "a"]
    assert [one.version_name for one in sent.releases] == [f"chat-{NEW}", f"chat-{NEXT}"]


def test_a_withdrawn_version_that_fails_on_is_not_tried_again_without_end() -> None:
    gave_up = pods(2, None, holds=[NEW], ordered=NEW, failed=failure(NEW, attempt="1"), attempt="1")
    memory = status(target=NEW, attempt=1)
    made = plan(desired(), observed(withdrawn(NEW), *gave_up, memory=memory)).status
    assert (made.attempt, made.failed_versions) == (1, ())


def test_a_fix_is_judged_where_what_is_live_was_withdrawn_and_so_the_fix_is_home() -> None:
    memory = status(NEW, NEXT, failed_versions=(failed("1.3.0"),), started_at=NOW)
    sick, others = pod("a", NEXT, ready=False, moved_in=0), [pod(name, "1.3.0", staged=[NEXT]) for name in "bc"]
    parts = (version(OLD), withdrawn(NEW), version(NEXT), version("1.3.0"), sick, *others)
    made = after_the_deadline(*parts, memory=memory).status
    assert [one.version_name for one in made.failed_versions] == ["chat-1.3.0", f"chat-{NEXT}"]


def test_a_pause_does_not_keep_pods_on_the_version_that_failed() -> None:
    sick, stray = pod("a", OLD, ready=False, holds=[OLD, NEXT], moved_in=0), pod("b", NEW, staged=[OLD])
    parts = (*BOTH, version(NEXT), sick, stray, pod("c", OLD, staged=[NEXT]))
    before = plan(desired(paused=True), observed(*parts, memory=on_the_way_home_with_a_fix())).status
    late = plan(desired(paused=True), observed(*parts, memory=before, now=NOW + timedelta(seconds=601)))
    assert moved(late, OLD) == ["b"]


def test_a_canary_is_no_first_version_because_the_pods_of_the_old_one_are_not_ready_for_a_while() -> None:
    seen = observed(*BOTH, pod("a", NEW, staged=[OLD]), pod("b", OLD, ready=False), memory=RolloutStatus())
    made = plan(desired(steps=(step(1, 3600),)), seen).status
    assert (made.live, made.target, made.step) == (release(OLD), release(NEW), "1/2")


def test_a_version_that_made_its_pods_unready_draws_no_ready_pod_though_it_is_found_live() -> None:
    """They serve what was withdrawn, under a rollout that was written anew: nothing else is known of before."""
    sick, well = pod("a", OLD, ready=False, staged=[NEW]), [pod(name, NEXT, staged=[NEW]) for name in "bc"]
    made = plan(desired(), observed(*BOTH, withdrawn(NEXT), sick, *well, memory=RolloutStatus()))
    assert made.status.live == release(OLD)
    assert (moved(made, NEW), moved(made, OLD)) == (["a"], [])


def test_an_order_that_its_pod_ignores_is_written_again_with_the_higher_term() -> None:
    ignores = pod("a", OLD, ordered=OLD, obeyed=9)
    made = plan(desired(), observed(version(OLD), ignores, memory=status(OLD), term=10))
    assert [a.order.term for a in made.actions if isinstance(a, Assign)] == [10]


def test_a_pod_that_claims_a_term_of_its_own_gets_no_order_again_and_again() -> None:
    claims = dataclasses.replace(pod("a", OLD, obeyed=99), order=order(OLD, activate=OLD, uid="uid-a", term=3))
    made = plan(desired(), observed(version(OLD), claims, memory=status(OLD), term=3))
    assert made.actions == ()


def test_a_new_rollout_does_not_try_what_failed_in_a_standing_one_of_its_model() -> None:
    other = status(OLD, failed_versions=(failed(NEW),), attempt=2, floor=7)
    seen = observed(*BOTH, *pods(2, OLD, attempt="2"), lessons=lessons([other]))
    made = plan(desired(), seen).status
    assert (made.target, made.attempt, made.floor) == (release(OLD), 2, 7)
    assert [f.manifest_digest for f in made.failed_versions] == [digest(NEW)]


def test_a_rollout_under_another_name_goes_on_from_the_memory_of_the_one_that_still_has_its_pods() -> None:
    """So what was live before it is within its rollback window as well."""
    before = status(NEW, history=(revision(NEW), revision(OLD)), attempt=2, floor=7, revision=3)
    theirs = pods(2, NEW, rollout="before")
    claims: dict[str, tuple[str, ...]] = {pod.name: ("before",) for pod in theirs}
    seen = observed(*BOTH, *theirs, other_claims=claims, predecessors=(before,), lessons=lessons([before]))
    made = plan(desired(), seen).status
    assert (made.live, made.history, made.attempt) == (release(NEW), before.history, 2)
    deleted = observed(version(OLD), *pods(2, NEW, staged=[OLD], rollout="before", attempt="2"), memory=made)
    back = plan(desired(steps=(step(1, pause=3600),), max_unavailable=2), deleted)
    assert moved(back, OLD) == ["p00", "p01"]


def test_a_rollout_that_was_there_before_its_pods_takes_them_over_by_its_own_steps() -> None:
    """Without pods it is past all steps; another one's wait at a gate."""
    want = desired(steps=(step(1, pause=3600),))
    waiting = plan(want, observed(*BOTH, memory=RolloutStatus())).status
    assert (waiting.live, waiting.step) == (None, "2/2")
    before = status(OLD, NEW, started_at=NOW, step_reached_at=NOW)
    canary = pod("a", NEW, staged=[OLD], moved_in=0, rollout="before")
    theirs = (canary, *(pod(name, OLD, staged=[NEW], rollout="before") for name in "bcd"))
    claims: dict[str, tuple[str, ...]] = {pod.name: ("before",) for pod in theirs}
    seen = observed(*BOTH, *theirs, other_claims=claims, predecessors=(before,), memory=waiting)
    taken_over = plan(want, seen).status
    made = plan(want, observed(*BOTH, *theirs, memory=taken_over))
    assert (taken_over.step, made.status.step) == ("1/2", "1/2")
    assert moved(made) == ["a"], "whose order is written anew, under this rollout's name"


def test_what_failed_in_a_third_rollout_is_no_lesson_for_one_under_another_name() -> None:
    before, third = status(NEW), status(OLD, failed_versions=(failed(NEW),))
    theirs = pods(2, NEW, rollout="before")
    claims: dict[str, tuple[str, ...]] = {pod.name: ("before",) for pod in theirs}
    known = lessons([before, third])
    waiting = plan(
        desired(), observed(*BOTH, *theirs, other_claims=claims, predecessors=(before,), lessons=known)
    ).status
    made = plan(desired(), observed(*BOTH, *theirs, memory=waiting, lessons=known))
    assert (made.status.live, made.status.failed_versions) == (release(NEW), ())
    assert set(orders(made).values()) == {NEW}


def test_new_pods_of_a_new_rollout_get_what_the_others_serve_though_its_object_is_pruned() -> None:
    made = plan(desired(), observed(*pods(2, NEW, rollout="before"), pod("z", staged=[NEW], ordered=None)))
    assert (made.status.live, orders(made)["z"]) == (release(NEW), NEW)


@pytest.mark.parametrize("fields", [{"suspend": True}, {"inside": ">=2.0.0 <1.0.0"}])
def test_a_new_rollout_that_waits_still_knows_what_failed_in_a_standing_one(fields: dict[str, Any]) -> None:
    other = status(OLD, failed_versions=(failed(NEW),))
    made = plan(desired(**fields), observed(*BOTH, *pods(2, OLD), lessons=lessons([other]))).status
    assert [f.manifest_digest for f in made.failed_versions] == [digest(NEW)]


def test_a_new_rollout_keeps_its_pods_on_what_works_there_though_it_failed_in_another_one() -> None:
    other = status(OLD, failed_versions=(failed(NEW),))
    made = plan(desired(), observed(*BOTH, *pods(2, NEW), lessons=lessons([other])))
    assert made.actions == ()
    assert (made.status.live, made.status.failed_versions) == (release(NEW), ())


def test_a_rollout_that_had_to_wait_for_its_pods_keeps_them_on_what_works_there() -> None:
    other = status(OLD, failed_versions=(failed(NEW),))
    theirs = pods(2, NEW, rollout="before")
    claims: dict[str, tuple[str, ...]] = {pod.name: ("before",) for pod in theirs}
    waiting = plan(desired(), observed(*BOTH, *theirs, lessons=lessons([other]), other_claims=claims)).status
    assert [f.manifest_digest for f in waiting.failed_versions] == [digest(NEW)]
    made = plan(desired(), observed(*BOTH, *theirs, lessons=lessons([other]), memory=waiting))
    assert set(orders(made).values()) == {NEW}
    assert made.status.failed_versions == ()


def test_a_new_rollout_counts_a_pod_that_another_one_took_from_serving() -> None:
    leaves = pod("a", OLD, ordered=NEW, staged=[NEW], ready=False, moved_in=7, rollout="before")
    others = named("b", "c", rollout="before")
    made = plan(desired(steps=(), max_unavailable=1), observed(*BOTH, leaves, *others))
    assert made.status.revision == 7
    assert moved(made) == ["a"]  # no other one beside it


def test_a_new_rollout_leaves_its_pods_on_a_suspended_version_that_they_serve() -> None:
    suspended = version(NEW, suspend=True)
    made = plan(desired(), observed(version(OLD), suspended, *pods(2, NEW, staged=[OLD])))
    assert made.actions == ()
    assert made.status.live == release(NEW)


def test_a_rollout_that_was_planned_before_learns_no_failure_of_another_one() -> None:
    other = status(OLD, failed_versions=(failed(NEW),))
    made = plan(desired(), observed(*BOTH, *pods(2, OLD), memory=status(OLD), lessons=lessons([other])))
    assert made.status.target == release(NEW)


def test_a_retry_token_that_another_rollout_acted_on_tries_nothing_again_under_another_name() -> None:
    before = status(OLD, failed_versions=(failed(NEW),), attempt=1, last_handled_retry_token="1")
    waiting = plan(desired(retry_token="1"), observed(*BOTH, lessons=lessons([before]))).status
    theirs = pods(2, OLD, attempt="1", rollout="before")
    made = plan(desired(retry_token="1"), observed(*BOTH, *theirs, memory=waiting)).status
    assert (made.target, made.attempt) == (release(OLD), 1)
    assert [f.manifest_digest for f in made.failed_versions] == [digest(NEW)]


def test_what_a_rollout_found_out_itself_stays_failed_though_it_is_live_in_another() -> None:
    sick = pod("a", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW))
    before = plan(desired(), observed(*BOTH, sick, memory=CANARY)).status
    own = RolloutStatus(failed_versions=before.failed_versions, last_failure=before.last_failure)
    made = plan(desired(), observed(*BOTH, lessons=lessons([own, status(NEW)]), memory=own)).status
    assert [one.manifest_digest for one in made.failed_versions] == [digest(NEW)]


def test_a_retry_token_from_the_beginning_tries_what_failed_in_another_rollout() -> None:
    other = status(OLD, failed_versions=(failed(NEW),))
    waiting = plan(desired(retry_token="1"), observed(*BOTH, lessons=lessons([other]))).status
    assert (waiting.target, waiting.failed_versions) == (release(NEW), ())
    made = plan(
        desired(retry_token="1"), observed(*BOTH, *pods(2, OLD), lessons=lessons([other]), memory=waiting)
    ).status
    assert (made.target, made.failed_versions) == (release(NEW), ())


def test_a_retry_token_that_a_rollout_without_pods_acted_on_itself_is_not_taken_for_another_one_s() -> None:
    other = status(OLD, failed_versions=(failed(NEW),))
    first = plan(desired(retry_token="1"), observed(*BOTH, lessons=lessons([other]))).status
    known = lessons([other, first])  # as the shell sums them up: its own is among them
    again = plan(desired(retry_token="1"), observed(*BOTH, lessons=known, memory=first)).status
    assert (again.target, again.failed_versions, again.attempt) == (release(NEW), (), first.attempt)


def test_a_rollout_without_pods_forgets_another_one_s_failure_once_the_version_is_live_there() -> None:
    theirs = status(OLD, failed_versions=(failed(NEW),))
    waiting = plan(desired(), observed(*BOTH, lessons=lessons([theirs]))).status
    assert [one.manifest_digest for one in waiting.failed_versions] == [digest(NEW)]
    known = lessons([status(NEW), waiting])  # its own is among them
    assert plan(desired(), observed(*BOTH, lessons=known, memory=waiting)).status.failed_versions == ()


def test_a_failure_of_a_withdrawn_version_is_not_learned_and_forgotten_in_turn() -> None:
    """Of a suspended rollout, say: its memory of it is not brought forward. Each turn would be another attempt."""
    theirs = status(OLD, failed_versions=(failed(NEW),))
    seen = {"lessons": lessons([theirs])}
    first = plan(desired(), observed(version(OLD), withdrawn(NEW), **seen)).status
    again = plan(desired(), observed(version(OLD), withdrawn(NEW), **seen, memory=first)).status
    assert (again, again.attempt) == (first, 0)


def test_what_failed_in_these_very_pods_is_not_tried_again_because_it_is_live_in_others() -> None:
    before, other = status(OLD, failed_versions=(failed(NEW),)), status(NEW)
    seen = observed(
        *BOTH, *pods(2, OLD), predecessors=(before,), lessons=lessons([before, other]), memory=RolloutStatus()
    )
    assert plan(desired(), seen).status.target == release(OLD)


def test_a_rollout_that_was_made_anew_counts_its_tries_above_those_that_its_pods_know() -> None:
    gave_up = pods(2, OLD, holds=[OLD, NEW], failed=failure(NEW, attempt="2"), attempt="1")
    anew = plan(desired(), observed(*BOTH, *gave_up, memory=RolloutStatus())).status
    assert anew.attempt == 2
    again = plan(desired(retry_token="now"), observed(*BOTH, *gave_up, memory=RolloutStatus())).status
    assert (again.attempt, again.target, again.failed_versions) == (3, release(NEW), ())
    absurd = pod("a", OLD, failed=failure(NEW, attempt="9" * 63))
    assert plan(desired(), observed(*BOTH, absurd, memory=RolloutStatus())).status.attempt == 0


def test_an_order_to_an_earlier_pod_of_the_same_name_does_not_count() -> None:
    namesake = dataclasses.replace(pod("a", OLD), uid="uid-later", ready=False)
    made = plan(desired(), observed(version(OLD), namesake, memory=status(OLD)))
    assert orders(made) == {"a": None}
    assert next(a.order.pod_uid for a in made.actions if isinstance(a, Assign)) == "uid-later"


def test_a_source_that_moved_is_told_to_pods_that_have_not_fetched() -> None:
    view = version(NEW)
    source = Source(s3=S3Source(bucket="another"))
    spec = view.spec.model_copy(
        update={"source": source, "encryption": Encryption(key_ref=KeyReference(name="chat-key"))}
    )
    seen = observed(
        dataclasses.replace(view, spec=spec), pod("a", holds=[NEW]), pod("b", NEW), memory=status(target=NEW)
    )
    made = plan(desired(), seen)
    assert list(orders(made)) == ["a"]
    assert made.status.target is not None
    assert made.status.target.source == source


@pytest.mark.parametrize("said", [None, failure(NEXT)])
def test_an_order_that_a_pod_never_carried_out_does_not_outlive_its_version(said: ReleaseFailure | None) -> None:
    stuck = pod("a", None, staged=[NEXT], ordered=NEXT, failed=said)
    made = plan(
        desired(),
        observed(version(OLD), version(NEXT, lifecycle="Withdrawn"), *pods(2, OLD), stuck, memory=status(OLD)),
    )
    assert orders(made) == {"a": None}
    assert holds(made, "a") == [OLD]


# New pods.


def test_a_new_pod_gets_what_is_live_with_the_target_beside_it() -> None:
    made = plan(
        desired(),
        observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c", "d", "e"), pod("z", ordered=None), memory=CANARY),
    )
    assert orders(made)["z"] is None
    assert holds(made, "z") == [OLD, NEW]


def test_a_new_pod_serves_live_as_soon_as_it_holds_it() -> None:
    paused = status(OLD, NEW, step_reached_at=NOW)
    fresh = pod("z", None, staged=[OLD], ordered=None)
    want = desired(steps=(step(1, pause=600),))
    made = plan(want, observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b"), fresh, memory=paused))
    assert orders(made) == {"z": OLD}


def test_new_pods_get_the_target_when_live_was_withdrawn() -> None:
    memory = status(NEW, OLD)
    seen = observed(version(OLD), withdrawn(NEW), *pods(2, NEW, staged=[OLD]), pod("z", ordered=None), memory=memory)
    assert holds(plan(desired(window=0), seen), "z") == [OLD]


@pytest.mark.parametrize("ordered", [None, OLD], ids=["new", "ordered-to-serve-what-is-live"])
def test_new_pods_serve_the_target_when_live_is_below_the_floor(ordered: str | None) -> None:
    """Though the step has its pods already: the old version is ordered to none, and this one serves nobody yet."""
    memory = status(OLD, NEW, floor=105, step_reached_at=NOW)
    parts = (*BOTH, pod("a", NEW, staged=[OLD]), *named("b"), pod("z", None, staged=[NEW], ordered=ordered))
    assert orders(plan(desired(steps=(step(1, pause=600),)), observed(*parts, memory=memory)))["z"] == NEW


def test_new_pods_get_no_target_that_has_failed_though_live_is_below_the_floor() -> None:
    memory = status(OLD, NEW, floor=105, failed_versions=(failed(NEW),))
    parts = (*BOTH, pod("a", NEW, staged=[OLD]), *named("b"), pod("z", None, staged=[NEW], ordered=None))
    assert "z" not in orders(plan(desired(), observed(*parts, memory=memory)))


def test_a_new_pod_serves_what_the_others_serve_though_it_was_withdrawn() -> None:
    """There is nothing else: the others keep it, and this one serves nobody yet."""
    fresh = pod("z", None, staged=[OLD], ordered=None)
    seen = observed(withdrawn(OLD), *named("a", beside=()), fresh, memory=status(OLD))
    assert orders(plan(desired(), seen)) == {"z": OLD}


def test_a_pod_that_is_being_deleted_is_counted_and_ordered_no_more() -> None:
    made = plan(desired(), observed(version(OLD), *pods(2, OLD), pod("z", ordered=None, deleting=True)))
    assert made.status.pods.total == 2
    assert "z" not in orders(made)


# Claims.


def test_a_pod_that_two_rollouts_name_is_taken_by_neither() -> None:
    seen = observed(version(NEW), pod("a", ordered=None), pod("b", ordered=None), other_claims={"a": ("gpu",)})
    made = plan(desired(), seen)
    assert list(orders(made)) == ["b"]
    assert made.status.conditions[0].reason is Reason.PODS_CLAIMED_TWICE
    assert "pod a " in made.status.conditions[0].message


def test_a_pod_that_we_have_already_is_kept_though_another_names_it() -> None:
    seen = observed(*BOTH, *named("a"), *named("b"), memory=CANARY, other_claims={"a": ("gpu",)})
    assert moved(plan(desired(), seen)) == ["a"]


def test_a_pod_of_the_other_rollout_is_left_alone() -> None:
    theirs = pod("a", OLD, staged=[NEW], rollout="gpu")
    seen = observed(*BOTH, theirs, *named("b"), memory=CANARY, other_claims={"a": ("gpu",)})
    assert moved(plan(desired(), seen)) == ["b"]


def test_a_pod_whose_other_rollout_is_gone_is_taken_over() -> None:
    made = plan(desired(), observed(version(OLD), pod("a", OLD, rollout="gone"), memory=status(OLD)))
    assert orders(made) == {"a": OLD}


# Suspend and pause.


def test_a_suspended_rollout_touches_nothing() -> None:
    memory = status(OLD, NEW)
    made = plan(desired(suspend=True), observed(*BOTH, *staged(3), pod("new", ordered=None), memory=memory))
    assert made.actions == ()
    assert made.status.model_copy(update={"conditions": ()}) == memory


def test_paused_holds_the_step_and_stages_on() -> None:
    made = plan(desired(paused=True), observed(*BOTH, *named("a", "b"), pod("c", OLD), memory=CANARY))
    assert orders(made) == {"c": OLD}
    assert holds(made, "c") == [OLD, NEW]


def test_paused_does_not_hold_an_abort() -> None:
    canary = pod("a", NEW, staged=[OLD])
    made = plan(desired(paused=True), observed(version(OLD), canary, *named("b", "c"), memory=CANARY))
    assert moved(made, OLD) == ["a"]


def test_paused_does_not_hold_the_return_from_a_withdrawn_version() -> None:
    memory = status(NEW, history=(revision(NEW), revision(OLD)))
    seen = observed(version(OLD), withdrawn(NEW), *pods(2, NEW, staged=[OLD]), memory=memory)
    assert moved(plan(desired(paused=True), seen), OLD) == ["p00"]


def test_a_pod_that_comes_up_under_pause_gets_live() -> None:
    fresh = pod("z", None, staged=[OLD], ordered=None)
    made = plan(desired(paused=True), observed(*BOTH, *named("a"), fresh, memory=CANARY))
    assert orders(made) == {"z": OLD}


@pytest.mark.parametrize(("live", "want"), [(version(OLD), ["b"]), (withdrawn(OLD), [])], ids=["standing", "withdrawn"])
def test_no_pod_goes_back_to_a_withdrawn_version_because_there_is_no_other(live: VersionView, want: list[str]) -> None:
    left, memory = pod("b", NEW, staged=[OLD]), status(OLD, failed_versions=(failed(NEW),))
    made = plan(desired(), observed(live, version(NEW), *named("a", beside=()), left, memory=memory))
    assert moved(made, OLD) == want


def test_no_pod_goes_home_to_a_withdrawn_version_while_the_one_that_failed_is_held() -> None:
    memory = status(NEW, NEXT, failed_versions=(failed(NEXT),), started_at=NOW)
    parts = (version(OLD), withdrawn(NEW), version(NEXT), pod("a", OLD, staged=[NEW]), pod("b", NEW, staged=[NEXT]))
    assert moved(plan(desired(on_failure="Pause"), observed(*parts, memory=memory))) == []


# The fixed point.


@pytest.mark.parametrize(
    ("want", "seen"),
    [
        pytest.param(desired(), observed(version(OLD), *pods(3, OLD), memory=status(OLD)), id="at-rest"),
        pytest.param(desired(), observed(memory=RolloutStatus()), id="nothing-there"),
        pytest.param(desired(), observed(*BOTH, memory=status(OLD)), id="without-pods"),
        pytest.param(desired(suspend=True), observed(*BOTH, *staged(3), memory=CANARY), id="suspended"),
        pytest.param(
            desired(paused=True), observed(*BOTH, *named("a", "b", holds=(OLD, NEW)), memory=CANARY), id="paused"
        ),
        pytest.param(
            desired(steps=(step(1, pause=60),)),
            observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b", holds=(OLD, NEW)), memory=CANARY),
            id="in-a-timed-pause",
        ),
        pytest.param(desired(), observed(*pods(2, OLD), memory=status(OLD)), id="no-candidate"),
    ],
)
def test_a_second_pass_does_nothing_and_writes_nothing(want: Desired, seen: Observed) -> None:
    first = plan(want, seen)
    again = plan(want, dataclasses.replace(seen, status=first.status, now=seen.now + timedelta(seconds=1)))
    assert [action for action in again.actions if isinstance(action, Assign)] == []
    assert again.status == first.status


def test_an_unusable_range_stalls_and_leaves_pods_alone() -> None:
    want = desired()
    policy = want.spec.version_policy.model_copy(update={"range": "about two"})
    broken = dataclasses.replace(want, spec=want.spec.model_copy(update={"version_policy": policy}))
    made = plan(broken, observed(*BOTH, *pods(2, OLD), memory=status(OLD)))
    assert made.actions == ()
    assert {c.reason for c in made.status.conditions} == {Reason.INVALID_SPEC}


# Failures.


def test_a_swap_that_failed_for_good_stops_the_rollout_and_takes_pods_back() -> None:
    canary, sick = (
        pod("a", NEW, staged=[OLD]),
        pod("b", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW), moved_in=0),
    )
    made = plan(ALL_AT_ONCE, observed(*BOTH, canary, sick, *named("c"), memory=CANARY))
    assert made.status.target == release(OLD)
    assert [(f.version_name, f.reason) for f in made.status.failed_versions] == [("chat-1.1.0", Reason.SWAP_FAILED)]
    assert made.status.last_failure is not None
    assert made.status.last_failure.pod_name == "b"
    assert moved(made, OLD) == ["a", "b", "c"]
    assert made.status.history[0].outcome == "Failed"


def test_a_staging_that_failed_for_good_stops_the_rollout_before_any_swap() -> None:
    sick = pod("b", OLD, holds=[OLD, NEW], failed=failure(NEW, Reason.SEAL_BROKEN))
    made = plan(desired(), observed(*BOTH, *named("a"), sick, memory=CANARY))
    assert made.status.target == release(OLD)
    assert moved(made) == []


def test_a_failed_version_is_not_chosen_again() -> None:
    memory = status(OLD, failed_versions=(failed(NEW),))
    made = plan(desired(), observed(*BOTH, *pods(3, OLD), memory=memory))
    assert made.status.target == release(OLD)
    assert made.actions == ()


def test_a_new_retry_token_gives_it_another_try_with_another_attempt() -> None:
    memory = status(OLD, failed_versions=(failed(NEW),), last_handled_retry_token="a", attempt=1)
    sick = pod("b", OLD, failed=failure(NEW, attempt="1"), attempt="1")
    made = plan(desired(retry_token="b"), observed(*BOTH, sick, memory=memory))
    assert made.status.target == release(NEW)
    assert (made.status.last_handled_retry_token, made.status.attempt, made.status.failed_versions) == ("b", 2, ())
    assert [a.order.attempt for a in made.actions if isinstance(a, Assign)] == ["2"]


def test_a_retry_token_that_is_taken_out_of_git_retries_nothing() -> None:
    memory = status(OLD, failed_versions=(failed(NEW),), last_handled_retry_token="a")
    assert plan(desired(), observed(*BOTH, *pods(1, OLD), memory=memory)).status.failed_versions == (failed(NEW),)


def test_a_failed_version_that_was_withdrawn_and_came_back_is_tried_again() -> None:
    memory = status(OLD, failed_versions=(failed(NEW),))
    out = plan(desired(), observed(version(OLD), withdrawn(NEW), *pods(1, OLD), memory=memory)).status
    assert out.failed_versions == ()
    back = plan(desired(), observed(*BOTH, *pods(1, OLD), memory=out))
    assert back.status.target == release(NEW)
    assert [a.order.attempt for a in back.actions if isinstance(a, Assign)] == ["1"]


def test_a_failure_of_an_earlier_attempt_does_not_count() -> None:
    memory = status(OLD, NEW, attempt=2, progressed_at=NOW)
    sick = pod("a", OLD, staged=[NEW], failed=failure(NEW, attempt="1"), attempt="2")
    assert moved(plan(desired(), observed(*BOTH, sick, memory=memory))) == ["a"]


def test_a_failure_before_a_pod_came_to_serve_the_version_does_not_count() -> None:
    healed = pod("a", NEW, staged=[OLD], failed=failure(NEW))
    made = plan(desired(), observed(*BOTH, healed, *named("b", "c", "d", "e"), memory=CANARY))
    assert (made.status.failed_versions, made.status.pods.failed) == ((), 0)
    assert moved(made) == ["b"]


@pytest.mark.parametrize(
    ("leaving", "is_stopped"),
    [
        pytest.param(version(NEW), True, id="standing"),
        pytest.param(withdrawn(NEW), False, id="withdrawn"),
        pytest.param(version(NEW, deleting=True), False, id="being-deleted"),
    ],
)
def test_a_failure_stops_a_return_only_while_what_is_left_is_there_to_go_back_to(
    leaving: VersionView, is_stopped: bool
) -> None:
    refused = pod("a", NEW, staged=[OLD], ordered=OLD, failed=failure(OLD))
    seen = observed(version(OLD), leaving, refused, *named("b", serving=NEW, beside=[OLD]), memory=status(NEW, OLD))
    failures = plan(desired(pin=OLD), seen).status.failed_versions
    assert [f.version_name for f in failures] == (["chat-1.0.0"] if is_stopped else [])


def test_a_pod_that_cannot_serve_what_is_live_makes_no_failure_of_it() -> None:
    sick = pod("z", None, staged=[OLD], ordered=OLD, failed=failure(OLD))
    made = plan(desired(), observed(version(OLD), *named("a", beside=()), sick, memory=status(OLD))).status
    assert (made.live, made.target, made.failed_versions) == (release(OLD), release(OLD), ())


def test_on_failure_pause_holds_everything_as_it_is() -> None:
    canary, sick = pod("a", NEW, staged=[OLD]), pod("b", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW))
    made = plan(
        desired(on_failure="Pause", max_unavailable=3), observed(*BOTH, canary, sick, *named("c"), memory=CANARY)
    )
    assert made.status.target == release(NEW)
    assert moved(made) == moved(made, OLD) == []


def test_the_hold_of_on_failure_pause_outlives_the_pod_that_failed() -> None:
    memory = status(OLD, NEW, failed_versions=(failed(NEW),))
    made = plan(desired(on_failure="Pause"), observed(*BOTH, *named("a", "b"), memory=memory))
    assert moved(made) == []


def test_a_staging_that_is_tried_again_is_waited_for() -> None:
    slow = pod("b", OLD, holds=[OLD, NEW], failed=failure(NEW, Reason.SOURCE_UNAVAILABLE, is_final=False))
    made = plan(desired(), observed(*BOTH, *named("a"), slow, memory=CANARY))
    assert made.status.failed_versions == ()
    assert moved(made) == ["a"]


def late(**fields: object) -> RolloutStatus:
    """A canary that has made no progress since NOW."""
    first = plan(
        desired(),
        observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b"), pod("c", OLD, holds=[OLD, NEW]), memory=CANARY),
    )
    return first.status.model_copy(update={"progressed_at": NOW, **fields})


def stuck(memory: RolloutStatus, seconds: int, want: Desired | None = None, **fields: object) -> Plan:
    parts = (
        *BOTH,
        pod("a", NEW, staged=[OLD]),
        pod("b", OLD, staged=[NEW], ordered=NEW, moved_in=0),
        pod("c", OLD, holds=[OLD, NEW]),
    )
    return plan(want or desired(), observed(*parts, memory=memory, now=NOW + timedelta(seconds=seconds), **fields))


def test_no_progress_until_the_deadline_is_a_failure() -> None:
    assert stuck(late(), 599).status.target == release(NEW)
    made = stuck(late(), 600)
    assert made.status.target == release(OLD)
    assert made.status.failed_versions[0].reason is Reason.PROGRESS_DEADLINE_EXCEEDED
    assert made.status.last_failure is not None
    assert made.status.last_failure.pod_name == "b"


def test_the_time_in_which_the_operator_was_away_is_not_counted() -> None:
    since = NOW + timedelta(seconds=500)
    assert stuck(late(), 700, watching_since=since).status.target == release(NEW)
    assert stuck(late(), 1100, watching_since=since).status.target == release(OLD)


def test_a_pod_that_comes_closer_starts_the_deadline_again() -> None:
    memory = late(pods=late().pods.model_copy(update={"updated": 0}))
    made = stuck(memory, 700)
    assert made.status.target == release(NEW)
    assert made.status.progressed_at == NOW + timedelta(seconds=700)


def test_pods_that_come_and_stage_do_not_start_the_deadline_of_a_canary_again() -> None:
    """In a fleet that scales there is always one: a bad canary would stay down without a verdict."""
    parts = (*BOTH, pod("a", NEW, staged=[OLD], ready=False, moved_in=0), *named("b"))
    memory = plan(desired(), observed(*parts, memory=CANARY)).status
    for second in (200, 400):
        later = NOW + timedelta(seconds=second)
        came = named(*(f"z{number}" for number in range(second // 200)))
        memory = plan(desired(), observed(*parts, *came, memory=memory, now=later)).status
    assert (memory.pods.staged, memory.progressed_at) == (4, NOW)


def test_staging_is_progress_until_as_many_hold_the_target_as_the_step_asks_for() -> None:
    want, slow = desired(steps=(step(2), step(3))), pod("c", OLD, holds=[OLD, NEW])
    first = plan(want, observed(*BOTH, pod("a", OLD, holds=[OLD, NEW]), *named("b"), slow, memory=CANARY)).status
    later = NOW + timedelta(seconds=100)
    made = plan(want, observed(*BOTH, *named("a", "b"), slow, memory=first, now=later)).status
    assert made.progressed_at == later


def test_staging_is_progress_also_where_all_come_to_hold_the_target_between_two_passes() -> None:
    fetching = [pod(name, OLD, holds=[OLD, NEW]) for name in "abc"]
    first = plan(desired(), observed(*BOTH, *fetching, memory=CANARY)).status
    later = NOW + timedelta(seconds=500)
    assert (
        plan(desired(), observed(*BOTH, *named("a", "b", "c"), memory=first, now=later)).status.progressed_at == later
    )


def test_a_step_that_is_done_starts_the_deadline_again() -> None:
    parts = (*BOTH, *named("b", "c", "d", "e"))
    waiting = plan(
        desired(), observed(*parts, pod("a", NEW, staged=[OLD], ready=False, moved_in=0), memory=CANARY)
    ).status
    later = NOW + timedelta(seconds=300)
    made = plan(desired(), observed(*parts, pod("a", NEW, staged=[OLD], moved_in=0), memory=waiting, now=later))
    assert (made.status.pods.updated, made.status.step_index) == (waiting.pods.updated, 1)
    assert (waiting.progressed_at, made.status.progressed_at) == (NOW, later)


def test_percents_of_a_pod_are_progress_and_falling_back_is_not() -> None:
    slow = pod("c", OLD, holds=[OLD, NEW], progress="40%")
    parts = (*BOTH, *named("a", "b"), slow)
    first = plan(desired(steps=()), observed(*parts, memory=CANARY)).status
    assert (first.pods.slowest_percent, first.pods.staging_percents) == (40, 40)
    later, seen = NOW + timedelta(seconds=100), (*BOTH, *named("a", "b"))
    behind = pod("c", OLD, holds=[OLD, NEW], progress="10%")
    again = plan(desired(steps=()), observed(*seen, behind, memory=first, now=later)).status
    assert (again.pods.slowest_percent, again.pods.staging_percents, again.progressed_at) == (10, 40, NOW)
    ahead = pod("c", OLD, holds=[OLD, NEW], progress="41%")
    assert plan(desired(steps=()), observed(*seen, ahead, memory=first, now=later)).status.progressed_at == later


def test_a_pod_that_hangs_makes_no_version_late_that_the_others_are_fetching() -> None:
    def fetching(percent: int) -> tuple[PodView, ...]:
        return tuple(pod(name, OLD, holds=[OLD, NEW], progress=f"{percent}%") for name in "ab")

    hangs = pod("c", OLD, holds=[OLD, NEW])
    memory = plan(desired(), observed(*BOTH, *fetching(1), hangs, memory=CANARY)).status
    for second in (400, 800):
        later = NOW + timedelta(seconds=second)
        seen = observed(*BOTH, *fetching(second // 10), hangs, memory=memory, now=later)
        memory = plan(desired(), seen).status
        assert (memory.failed_versions, memory.progressed_at) == ((), later)


def test_broken_pods_that_have_the_target_already_end_no_staging() -> None:
    broken = [pod(name, OLD, ready=False, staged=[NEW]) for name in "xy"]
    first = pod("b", OLD, holds=[OLD, NEW], progress="30%")
    memory = plan(desired(), observed(*BOTH, *broken, first, memory=CANARY)).status
    later = NOW + timedelta(seconds=400)
    ahead = pod("b", OLD, holds=[OLD, NEW], progress="60%")
    assert plan(desired(), observed(*BOTH, *broken, ahead, memory=memory, now=later)).status.progressed_at == later


def test_more_pods_that_hold_the_target_than_are_due_are_no_progress() -> None:
    parts = (*BOTH, pod("a", NEW, staged=[OLD], ready=False), *named("b", "c"))
    memory = plan(desired(), observed(*parts, memory=CANARY)).status
    later = NOW + timedelta(seconds=400)
    assert plan(desired(), observed(*parts, *named("z"), memory=memory, now=later)).status.progressed_at == NOW


def test_nobody_that_comes_is_progress_while_nobody_may_be_moved() -> None:
    """In the last step all are due, so it would be each of them."""
    parts = (*BOTH, pod("a", NEW, staged=[OLD], ready=False, moved_in=0), pod("b", NEW, staged=[OLD]))
    memory = plan(desired(), observed(*parts, memory=status(OLD, NEW, step_index=2))).status
    later = NOW + timedelta(seconds=400)
    made = plan(desired(), observed(*parts, *named("z"), memory=memory, now=later)).status
    assert (made.pods.staged, made.progressed_at) == (3, NOW)


def test_a_pod_that_loses_what_it_had_staged_is_no_progress() -> None:
    slow = pod("c", OLD, holds=[OLD, NEW])
    first = plan(desired(), observed(*BOTH, *named("a", "b"), slow, memory=CANARY)).status
    emptied = pod("b", OLD, holds=[OLD, NEW])
    later = NOW + timedelta(seconds=100)
    made = plan(desired(), observed(*BOTH, *named("a"), emptied, slow, memory=first, now=later)).status
    assert (first.pods.staged, made.pods.staged) == (2, 1)
    assert made.progressed_at == NOW


def test_the_percents_of_a_pod_that_took_the_place_of_a_staged_one_are_progress() -> None:
    """It starts from nothing: were it measured by what the others had reached, it would be late while it fetches."""
    parts = (*BOTH, *named("a"), pod("c", OLD, holds=[OLD, NEW], progress="90%"))
    memory = plan(desired(steps=()), observed(*parts, *named("b"), memory=CANARY)).status
    assert memory.pods.slowest_percent == 90
    for second, percent in ((100, 3), (200, 8)):
        later = NOW + timedelta(seconds=second)
        again = pod("b", None, holds=[OLD, NEW], ordered=OLD, progress=f"{percent}%", uid="uid-of-the-next")
        memory = plan(desired(steps=()), observed(*parts, again, memory=memory, now=later)).status
        assert (memory.pods.slowest_percent, memory.pods.staging_percents) == (percent, 90 + percent)
    assert memory.progressed_at == NOW + timedelta(seconds=200)


@pytest.mark.parametrize(
    ("said", "percent"),
    [("", 0), ("61%", 61), ("100%", 100), ("999%", 100), ("-5%", 0), ("most of it", 0), ("\N{SUPERSCRIPT TWO}%", 0)],
)
def test_no_word_of_a_pod_about_its_progress_stops_the_planner(said: str, percent: int) -> None:
    slow = pod("c", OLD, holds=[OLD, NEW], progress=said)
    made = plan(desired(), observed(*BOTH, *named("a", "b"), slow, memory=CANARY))
    assert (made.status.pods.slowest_percent, moved(made)) == (percent, ["a"])


@pytest.mark.parametrize(
    ("want", "memory"),
    [
        pytest.param(desired(paused=True), CANARY, id="paused"),
        pytest.param(
            desired(steps=(step(1, pause=7200),)), status(OLD, NEW, step_reached_at=NOW), id="in-a-timed-pause"
        ),
        pytest.param(desired(pin="1.9.0"), CANARY, id="without-a-choice"),
    ],
)
def test_the_deadline_does_not_run(want: Desired, memory: RolloutStatus) -> None:
    parts = (*BOTH, pod("a", NEW, staged=[OLD]), *named("b", holds=(OLD, NEW)))
    held = plan(want, observed(*parts, memory=memory)).status
    assert held.progressed_at is None
    later = plan(want, observed(*parts, memory=held, now=NOW + timedelta(seconds=3600)))
    assert later.status.failed_versions == ()


def test_a_first_version_has_nothing_to_return_to_so_its_deadline_is_reported() -> None:
    parts = (version(NEW), *pods(1, NEW), pod("z", holds=[NEW]))
    memory = plan(desired(), observed(*parts, memory=status(target=NEW))).status
    made = plan(desired(), observed(*parts, memory=memory, now=NOW + timedelta(hours=1)))
    assert made.status.target == release(NEW)
    assert made.status.conditions[0].reason is Reason.PROGRESS_DEADLINE_EXCEEDED


def test_a_deadline_that_ran_for_one_target_says_nothing_about_the_next() -> None:
    parts = (version(NEW), *pods(1, NEW), pod("z", holds=[NEW]))
    memory = plan(desired(), observed(*parts, memory=status(target=NEW))).status
    later = NOW + timedelta(hours=1)
    made = plan(desired(), observed(*parts, version(NEXT), memory=memory, now=later)).status
    assert (made.target, made.progressed_at) == (release(NEXT), later)
    assert Reason.PROGRESS_DEADLINE_EXCEEDED not in {c.reason for c in made.conditions}


def test_the_deadline_runs_while_a_pod_cannot_leave_what_was_given_up() -> None:
    """Nobody is away and the target is what is live: the pod that has yet to fetch it is late all the same."""
    left = pod("b", NEW, holds=[NEW, OLD])
    memory = status(OLD, failed_versions=(failed(NEW),))
    assert plan(desired(), observed(*BOTH, *named("a"), left, memory=memory)).status.progressed_at == NOW


# Bookkeeping.


def test_the_floor_only_rises() -> None:
    assert plan(desired(), observed(version(OLD, floor=90), memory=status(floor=95))).status.floor == 95
    assert plan(desired(), observed(version(OLD, floor=99), memory=status(floor=95))).status.floor == 99


def test_what_is_below_the_floor_is_served_on_and_ordered_to_nobody() -> None:
    memory = status(OLD, floor=105)
    without = (pod("y", None, ordered=None), pod("z", None, staged=[OLD], ordered=None))
    made = plan(desired(), observed(version(OLD), *pods(2, OLD), *without, memory=memory))
    assert OLD not in orders(made).values()
    named = {action.pod_name for action in made.actions if isinstance(action, Assign) and action.order.releases}
    assert not named & {"y", "z"}, "nor is it named, to be fetched"


def test_a_canary_over_a_live_version_below_its_floor_is_held_when_it_fails() -> None:
    sick = pod("b", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW))
    made = plan(
        desired(), observed(version(OLD), version(NEW, floor=110), pod("a", NEW, staged=[OLD]), sick, memory=CANARY)
    )
    assert moved(made, OLD) == []
    assert made.status.conditions[0].status == "False"


def test_a_status_that_was_lost_is_found_again_in_the_pods() -> None:
    seen = observed(*BOTH, pod("a", NEW, staged=[OLD]), *named("b", "c", "d", "e"), memory=RolloutStatus())
    made = plan(desired(), seen)
    assert (made.status.live, made.status.target) == (release(OLD), release(NEW))
    assert (made.status.step_index, moved(made)) == (1, ["b"])


@pytest.mark.parametrize(("lower", "higher"), [(OLD, NEW), (OLD, NEXT), (NEW, NEXT)])
def test_of_two_versions_that_as_many_pods_serve_the_older_one_is_found_live(lower: str, higher: str) -> None:
    fleet = (pod("a", higher, holds=[higher]), pod("b", lower, holds=[lower]))
    made = plan(desired(), observed(version(lower), version(higher), version("1.3.0"), *fleet))
    assert made.status.live == release(lower)


def test_a_lost_status_takes_nothing_for_live_whose_object_has_yet_to_be_checked() -> None:
    made = plan(desired(), observed(version(OLD, verified=False), version(NEW), *pods(2, OLD)))
    assert made.status.live is None


def test_a_target_that_was_published_again_under_a_higher_name_goes_by_that_name() -> None:
    again = version(NEXT, content=NEW, sequence=115)
    made = plan(desired(), observed(version(OLD), version(NEW), again, *staged(3), memory=CANARY)).status
    assert made.target == again.release
    assert (made.target_sequence, made.started_at) == (115, CANARY.started_at)


def test_what_a_pod_had_of_one_target_is_no_progress_on_the_next() -> None:
    fetching = [pod("a", OLD, holds=[OLD, NEW], progress=percent) for percent in ("90%", "3%")]
    memory = plan(desired(), observed(*BOTH, fetching[0], memory=CANARY)).status
    assert memory.pods.slowest_percent == 90
    made = plan(desired(), observed(*BOTH, version(NEXT), fetching[1], memory=memory)).status
    assert (made.target, made.pods.slowest_percent) == (release(NEXT), 3)


def test_a_lost_status_at_rest_is_promoted_without_a_move() -> None:
    made = plan(desired(), observed(version(OLD), *pods(3, OLD), memory=RolloutStatus()))
    assert made.status.live == release(OLD)
    assert made.actions == ()


def test_a_lost_status_takes_no_withdrawn_version_for_live_and_all_leave_it() -> None:
    want = desired(steps=(step(1, pause=600),), max_unavailable=3)
    made = plan(want, observed(withdrawn(OLD), version(NEW), *staged(3), memory=RolloutStatus()))
    assert made.status.live is None
    assert moved(made) == ["p00", "p01", "p02"]


def test_a_stale_answer_of_another_version_is_no_proof() -> None:
    liar = dataclasses.replace(pod("a", OLD, ordered=NEW, moved_in=0), ready=True)
    made = plan(ALL_AT_ONCE, observed(*BOTH, liar, memory=CANARY))
    assert made.status.live == release(OLD)


def test_a_pod_that_came_from_another_model_says_nothing_of_what_is_live() -> None:
    other = release("3.0.0").model_copy(update={"model_name": ModelName("other"), "version_name": "other-3.0.0"})
    stranger = pod("p0", "3.0.0", rollout="other")
    assert stranger.order is not None
    stranger = dataclasses.replace(stranger, order=stranger.order.model_copy(update={"releases": (other,)}))
    made = plan(desired(), observed(version(OLD), stranger, pod("p1", ordered=None)))
    assert made.status.live is None
    assert made.status.target is not None
    assert made.status.target.version_name == "chat-1.0.0"
    assert holds(made, "p1") == [OLD]


def test_a_pause_that_began_by_a_clock_that_was_fast_is_no_longer_than_it_says() -> None:
    memory = status(OLD, NEW, started_at=NOW, progressed_at=NOW, step_reached_at=NOW + timedelta(hours=1))
    fleet = (pod("p0", NEW, staged=[OLD]), *staged(3))
    made = plan(desired(steps=(step(1, pause=60), step("50%"))), observed(*BOTH, *fleet, memory=memory))
    assert made.wake_at == NOW + timedelta(seconds=60)


def test_a_rollout_that_learns_late_what_is_live_begins_with_its_first_step() -> None:
    """As one that is renamed does: while two claim the pods, it knows of none, and so of no step to take."""
    memory = status(target=NEW, started_at=NOW, progressed_at=NOW, step_index=2)
    fleet = (pod("p0", NEW, staged=[OLD], rollout="former"), *(pod(f"p{n}", OLD, staged=[NEW]) for n in (1, 2, 3)))
    made = plan(desired(steps=(step(1, pause=600), step("50%"))), observed(*BOTH, *fleet, memory=memory))
    assert made.status.live == release(OLD)
    assert (made.status.step_index, made.status.step_reached_at) == (0, NOW)
    assert moved(made) == ["p0"]  # where it is


def test_a_canary_that_was_deleted_is_not_what_is_live_when_its_rollout_is_made_again() -> None:
    fleet = (*(pod(f"p{n}", NEW, staged=[OLD]) for n in (0, 1)), *(pod(f"p{n}", OLD, staged=[NEW]) for n in (2, 3)))
    want = desired(steps=(step(1), step(2, pause=600)), max_unavailable=2)
    made = plan(want, observed(version(OLD), *fleet, pod("p4", ordered=None)))
    assert (made.status.live, made.status.target) == (None, release(OLD))
    assert {"p0", "p1"} <= set(moved(made, OLD))
    assert NEW not in orders(made).values()
