"""How long a pod is watched before the next one follows, and how long pods hold what they served before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from builders.rollouts import NOW, desired, digest, hurry, observed, pod, pods, revision, status, step, version
from modelparams.api.conditions import ConditionType, find
from modelparams.api.rollout import PodCounts, RolloutStatus, Strategy
from modelparams.errors import UsageError
from modelparams.reasons import Reason
from modelparams_operator.core.model import Assign, Plan
from modelparams_operator.core.plan import plan
from modelparams_operator.core.steps import hash_of

OLD, NEW = "1.0.0", "1.1.0"
BOTH = (version(OLD), version(NEW))
WATCHED = desired(steps=(step(3),), min_ready_seconds=30)
FLEET = (pod("p00", NEW, staged=[OLD, NEW], moved_in=0), *(pod(f"p0{n}", OLD, staged=[NEW]) for n in range(1, 4)))


def seconds(count: int) -> timedelta:
    return timedelta(seconds=count)


def memory(ready: int, last_ready: int | None, **fields: object) -> RolloutStatus:
    """In the first step; so many were ready on the target at the last pass, the last of them so many seconds ago."""
    since = None if last_ready is None else NOW - seconds(last_ready)
    counts = PodCounts(total=4, staged=4, updated=ready, updated_ready=ready, available=4)
    return status(OLD, NEW, started_at=NOW, progressed_at=NOW, pods=counts, last_ready_at=since, **fields)


def moved(made: Plan) -> list[str]:
    return [a.pod_name for a in made.actions if isinstance(a, Assign) and a.order.activate == digest(NEW)]


def test_the_next_pod_follows_when_the_one_before_has_been_ready_long_enough() -> None:
    early = plan(WATCHED, observed(*BOTH, *FLEET, memory=memory(1, 29)))
    late = plan(WATCHED, observed(*BOTH, *FLEET, memory=memory(1, 30)))
    assert (moved(early), early.wake_at) == ([], NOW + seconds(1))
    assert moved(late) == ["p01"]


def test_the_time_begins_when_a_pod_becomes_ready() -> None:
    made = plan(WATCHED, observed(*BOTH, *FLEET, memory=memory(0, None)))
    assert (moved(made), made.status.last_ready_at, made.status.pods.updated_ready) == ([], NOW, 1)


def test_people_are_told_until_when_a_pod_is_watched() -> None:
    ready = find(plan(WATCHED, observed(*BOTH, *FLEET, memory=memory(1, 29))).status.conditions, ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.SWAPPING
    assert ready.message == "step 1/2: 1 of 4 pods serve chat-1.1.0; watched until 2026-11-24T12:00:01Z"


def test_one_that_is_not_ready_any_more_keeps_the_others_until_it_has_been_ready_again() -> None:
    fallen = (pod("p00", NEW, staged=[OLD, NEW], moved_in=0, ready=False), *FLEET[1:])
    down = plan(WATCHED, observed(*BOTH, *fallen, memory=memory(1, 29)))
    later = NOW + seconds(60)
    up = plan(WATCHED, observed(*BOTH, *FLEET, memory=down.status, now=later))
    assert (moved(down), down.status.last_ready_at) == ([], None)
    assert (moved(up), up.status.last_ready_at) == ([], later)


def test_a_step_s_pause_begins_when_its_pods_have_been_ready_long_enough() -> None:
    want = desired(steps=(step(1, pause=60),), min_ready_seconds=30)
    early = plan(want, observed(*BOTH, *FLEET, memory=memory(1, 29)))
    late = plan(want, observed(*BOTH, *FLEET, memory=memory(1, 30)))
    assert (early.status.step_reached_at, late.status.step_reached_at) == (None, NOW)


def test_a_pause_that_has_begun_goes_on_when_another_pod_comes() -> None:
    want = desired(steps=(step(1, pause=60),), min_ready_seconds=30)
    begun = memory(0, None, step_reached_at=NOW - seconds(50), steps_hash=hash_of(want.spec.strategy.steps))
    made = plan(want, observed(*BOTH, *FLEET, memory=begun))
    assert made.status.step_reached_at == NOW - seconds(50)


def test_the_last_pods_are_watched_too_before_it_is_promoted() -> None:
    steps: dict[str, object] = {"step_index": 1, "steps_hash": hash_of(WATCHED.spec.strategy.steps)}
    all_there = [pod(f"p0{n}", NEW, staged=[OLD], moved_in=0) for n in range(4)]
    early = plan(WATCHED, observed(*BOTH, *all_there, memory=memory(4, 29, **steps)))
    late = plan(WATCHED, observed(*BOTH, *all_there, memory=memory(4, 30, **steps)))
    assert early.status.live == status(OLD).live
    assert (late.status.live, late.status.last_ready_at) == (status(NEW).live, None)


def test_a_newer_version_that_comes_while_the_last_pod_is_watched_sends_nobody_back() -> None:
    """All pods serve it, and are ready: it is live before the newer one is rolled out over it."""
    there = [pod(f"p0{n}", NEW, staged=[OLD], moved_in=0) for n in range(4)]
    known = memory(4, 10, step_index=1, steps_hash=hash_of(WATCHED.spec.strategy.steps))
    made = plan(WATCHED, observed(*BOTH, version("1.2.0"), *there, memory=known))
    assert made.status.live == status(NEW).live
    assert made.status.target == status("1.2.0").target


def test_no_deadline_runs_while_nobody_may_follow() -> None:
    """One blinked late in its time, which began anew; the next one has a deadline of its own."""
    want = desired(steps=(step(3),), min_ready_seconds=300, deadline=600)
    old = memory(1, 299).model_copy(update={"progressed_at": NOW - seconds(590)})
    watched = plan(want, observed(*BOTH, *FLEET, memory=old))
    assert watched.status.progressed_at is None
    over = plan(want, observed(*BOTH, *FLEET, memory=watched.status, now=NOW + seconds(60)))
    assert (moved(over), over.status.progressed_at) == (["p01"], NOW + seconds(60))
    ordered = (FLEET[0], pod("p01", OLD, ordered=NEW, holds=[OLD, NEW], moved_in=0, ready=False), *FLEET[2:])
    next_pass = plan(want, observed(*BOTH, *ordered, memory=over.status, now=NOW + seconds(80)))
    assert next_pass.status.failed_versions == ()


def test_a_pod_that_falls_over_while_it_is_watched_has_until_the_deadline() -> None:
    fallen = (pod("p00", NEW, staged=[OLD, NEW], moved_in=0, ready=False), *FLEET[1:])
    down = plan(WATCHED, observed(*BOTH, *fallen, memory=memory(1, 10))).status
    assert (down.progressed_at, [one.pod_name for one in down.fallen]) == (NOW, ["p00"])
    late = plan(WATCHED, observed(*BOTH, *fallen, memory=down, now=NOW + seconds(600))).status
    assert [one.version_name for one in late.failed_versions] == [f"chat-{NEW}"]


def test_a_pod_that_falls_over_again_and_again_while_it_is_watched_is_judged() -> None:
    want = desired(steps=(step(3),), min_ready_seconds=300)
    up, down = (pod("p00", NEW, staged=[OLD, NEW], moved_in=0, ready=ready) for ready in (True, False))
    seen, at, now_known = [], NOW, memory(0, None)
    for state, lasts in ((up, 200), (down, 100)) * 4:
        now_known = plan(want, observed(*BOTH, state, *FLEET[1:], memory=now_known, now=at)).status
        at += seconds(lasts)
        seen.append(bool(now_known.failed_versions))
    assert seen.index(True) == 5, "the third fall, 600 s after the first"


def test_a_pod_that_served_nobody_before_may_come_and_go_without_holding_the_others() -> None:
    sick = pod("p00", NEW, staged=[OLD, NEW])  # broken before: nobody took it from serving
    made = plan(WATCHED, observed(*BOTH, sick, *FLEET[1:], memory=memory(0, None)))
    assert (moved(made), made.status.last_ready_at) == (["p01"], None)


def test_what_is_expedited_is_not_watched() -> None:
    want = desired(steps=(step(3),), min_ready_seconds=30, expedite=hurry(NEW))
    assert moved(plan(want, observed(*BOTH, *FLEET, memory=memory(1, 1)))) == ["p01"]


def test_the_way_back_waits_for_nobody() -> None:
    """Two pods are on what was deleted; the first is back just now."""
    fleet = (pod("p00", OLD, staged=[NEW]), *(pod(f"p0{n}", NEW, staged=[OLD], moved_in=0) for n in (1, 2)))
    back = status(OLD, OLD, last_ready_at=NOW, history=(revision(OLD),))
    made = plan(WATCHED, observed(version(OLD), *fleet, memory=back))
    assert [a.pod_name for a in made.actions if isinstance(a, Assign) and a.order.activate == digest(OLD)] == ["p01"]


def test_a_time_from_another_leader_s_future_holds_nobody_for_longer() -> None:
    ahead = plan(WATCHED, observed(*BOTH, *FLEET, memory=memory(1, -7200)))
    assert ahead.status.last_ready_at == NOW


def test_a_pod_that_should_be_ready_for_longer_than_the_deadline_is_refused() -> None:
    with pytest.raises(UsageError, match="minReadySeconds must be less than progressDeadlineSeconds"):
        Strategy.parse({"minReadySeconds": 600})


# What pods hold beside what they serve.


def at_rest(promoted: int) -> RolloutStatus:
    newest = revision(NEW).model_copy(update={"finished_at": NOW - seconds(promoted)})
    return status(NEW, history=(newest, revision(OLD)))


def held(made: Plan) -> list[int]:
    return [len(a.order.releases) for a in made.actions if isinstance(a, Assign)]


REST = pods(2, NEW, staged=[OLD])


def test_pods_hold_what_they_served_before_until_there_is_something_else() -> None:
    made = plan(desired(), observed(*BOTH, *REST, memory=at_rest(10**8)))
    assert (held(made), made.wake_at) == ([], None)


def test_pods_let_go_of_it_when_its_time_is_over() -> None:
    want = desired(keep_previous_seconds=900)
    before, after = (plan(want, observed(*BOTH, *REST, memory=at_rest(age))) for age in (899, 900))
    assert (held(before), before.wake_at) == ([], NOW + seconds(1))
    assert held(after) == [1, 1]


def test_a_canary_can_go_home_at_once_whatever_is_kept_after_it() -> None:
    want = desired(steps=(step(1, pause=600),), keep_previous_seconds=0)
    made = plan(want, observed(*BOTH, *FLEET, memory=memory(1, None)))
    assert all(len(a.order.releases) == 2 for a in made.actions if isinstance(a, Assign))
    standing = [p.order for p in FLEET if p.order is not None]
    assert all(len(order.releases) == 2 for order in standing)
