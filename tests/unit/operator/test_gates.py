"""What holds a step that is done: a duration, or a person; and who may let a version pass."""

from __future__ import annotations

from datetime import timedelta

import pytest

from builders.fleet import all_serve, serving, settle, until_canary, world
from builders.rollouts import (
    NOW,
    approval,
    desired,
    digest,
    hurry,
    observed,
    pod,
    pods,
    status,
    step,
    version,
    withdrawn,
)
from modelparams.api.conditions import ConditionStatus, ConditionType, find
from modelparams.api.rollout import Approval, Pause, RolloutStatus, Step
from modelparams.errors import UsageError
from modelparams.reasons import Reason
from modelparams_operator.core.model import Assign, Desired, Plan
from modelparams_operator.core.plan import plan
from modelparams_operator.core.steps import hash_of

OLD, NEW, NEXT = "1.0.0", "1.1.0", "1.2.0"
GATED = (Step(pods=1, pause=Pause()), Step(pods="50%", pause=Pause()))
BOTH = (version(OLD), version(NEW))
AT_THE_GATE = status(OLD, NEW, started_at=NOW, step_reached_at=NOW, step="1/3")
FLEET = (pod("p00", NEW, staged=[OLD, NEW]), *(pod(f"p0{n}", OLD, staged=[NEW]) for n in range(1, 4)))
AGES = timedelta(days=20)


def approved(number: str, through: int, by: str = "alice@example.com") -> Approval:
    return approval(number, through, by)


def gated(*approvals: Approval, **fields: object) -> Desired:
    return desired(steps=GATED, approvals=approvals, **fields)  # type: ignore[arg-type]


def at_the_gate(want: Desired, *, memory: RolloutStatus = AT_THE_GATE) -> Plan:
    return plan(want, observed(*BOTH, *FLEET, memory=memory, now=NOW + AGES))


def moved(made: Plan) -> list[str]:
    return [a.pod_name for a in made.actions if isinstance(a, Assign) and a.order.activate == digest(NEW)]


def said(made: Plan) -> tuple[str, Reason, str]:
    ready = find(made.status.conditions, ConditionType.READY)
    assert ready is not None
    return ready.status, ready.reason, ready.message


def test_a_pause_without_a_duration_holds_until_a_person_approves() -> None:
    made = at_the_gate(gated())
    assert moved(made) == []
    assert said(made) == (
        ConditionStatus.UNKNOWN,
        Reason.AWAITING_APPROVAL,
        "1 of 4 pods serve chat-1.1.0; "
        "step 1/3 waits until somebody approves chat-1.1.0 through step 1 in spec.approvals",
    )


def test_no_deadline_passes_while_a_person_is_waited_for() -> None:
    made = at_the_gate(gated(deadline=1))
    assert made.status.progressed_at is None
    assert made.wake_at is None
    assert not made.status.failed_versions


def test_an_approval_of_the_step_lets_the_next_pod_go() -> None:
    made = at_the_gate(gated(approved(NEW, 1)))
    assert moved(made) == ["p01"]
    assert made.status.step == "2/3"


def test_an_approval_of_a_later_step_covers_the_steps_before() -> None:
    fleet = world(OLD, steps=GATED, approvals=(approved(NEW, 2),))
    fleet.add_version(NEW)
    settle(fleet)
    assert all_serve(fleet, NEW)


def test_an_approval_of_an_earlier_step_opens_no_later_pause() -> None:
    fleet = world(OLD, steps=GATED, approvals=(approved(NEW, 1),))
    fleet.add_version(NEW)
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 2
    ready = find(fleet.status.conditions, ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.AWAITING_APPROVAL
    assert ready.message.endswith("through step 2 in spec.approvals; that of alice@example.com goes through step 1")


def test_an_approval_of_another_version_does_nothing_and_the_rollout_says_so() -> None:
    made = at_the_gate(gated(approved(OLD, 2), approved(NEXT, 2, by="bob")))
    assert moved(made) == []
    assert said(made)[2].endswith("; that of alice@example.com is for chat-1.0.0; that of bob is for chat-1.2.0")


def test_an_approval_of_other_bytes_of_the_same_name_does_nothing_and_the_rollout_says_so() -> None:
    made = at_the_gate(gated(approval(NEW, 2, "alice", content="made again")))
    assert moved(made) == []
    assert said(made)[2].endswith(f"; that of alice is for other bytes of that name, {digest('made again').short}")


def test_a_version_made_again_with_other_bytes_is_not_hastened() -> None:
    assert moved(at_the_gate(gated(expedite=hurry(NEW, content="made again")))) == []


def test_an_approval_that_was_left_behind_waves_no_newer_version_through() -> None:
    fleet = world(OLD, steps=GATED, approvals=(approved(NEW, 2),))
    fleet.add_version(NEW)
    settle(fleet)
    fleet.add_version(NEXT)
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEXT)) == 1


def test_an_approval_that_is_taken_back_takes_no_pod_back() -> None:
    fleet = world(OLD, steps=GATED, approvals=(approved(NEW, 1),))
    fleet.add_version(NEW)
    settle(fleet)
    fleet.change(approvals=())
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 2


def test_an_approval_shortens_no_pause_that_has_a_duration() -> None:
    fleet = world(OLD, steps=(step(1, pause=86400),), approvals=(approved(NEW, 1),))
    fleet.add_version(NEW)
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 1


def test_no_edit_of_anything_else_passes_a_pause_that_waits_for_a_person() -> None:
    """More pods serve it than the next steps ask for, as after a scaling down; somebody holds it and lets go."""
    fleet = (*(pod(f"p0{n}", NEW, staged=[OLD]) for n in range(3)), pod("p03", OLD, staged=[NEW]))
    made = plan(gated(generation=2), observed(*BOTH, *fleet, memory=AT_THE_GATE, now=NOW + AGES))
    assert (made.status.step, said(made)[1]) == ("1/3", Reason.AWAITING_APPROVAL)


def test_an_edit_that_takes_out_a_step_passes_no_pause_that_waits_for_a_person() -> None:
    """Three pods wait in the third step of a plan; its second one is taken out."""
    gate = Step(pods=3, pause=Pause())
    fleet = world(OLD, pods=8, steps=(Step(pods=1), Step(pods=2), gate))
    fleet.add_version(NEW)
    settle(fleet)
    assert fleet.status.step == "3/4"
    fleet.change(strategy=fleet.desired.spec.strategy.model_copy(update={"steps": (Step(pods=1), gate)}))
    settle(fleet)
    assert (fleet.status.step, list(serving(fleet).values()).count(digest(NEW))) == ("2/3", 3)


def test_an_approval_of_a_step_of_another_plan_opens_none_of_the_present_one() -> None:
    """The first step is taken out: what was the second one is the first one then."""
    steps = (Step(pods=1, pause=Pause()), Step(pods=2, pause=Pause()), Step(pods=4, pause=Pause()))
    by = approved(NEW, 2).model_copy(update={"steps_hash": hash_of(steps)})
    fleet = world(OLD, pods=8, steps=steps, approvals=(by,))
    fleet.add_version(NEW)
    settle(fleet)
    assert (fleet.status.step, list(serving(fleet).values()).count(digest(NEW))) == ("3/4", 4)
    fleet.change(strategy=fleet.desired.spec.strategy.model_copy(update={"steps": steps[1:]}))
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 4
    ready = find(fleet.status.conditions, ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.AWAITING_APPROVAL
    assert ready.message.endswith(f"that of alice@example.com is for another plan, {hash_of(steps)}")


def test_gates_that_come_with_an_operator_that_knows_them_are_asked_for() -> None:
    """The status is of an operator that kept no name of the plan; it is in a later step of a plan without gates."""
    memory = status(OLD, NEW, started_at=NOW, step_index=2, step="3/3")
    made = at_the_gate(gated(), memory=memory)
    assert (made.status.step, moved(made)) == ("1/3", [])


def test_an_edit_that_is_taken_back_passes_no_pause_that_waits_for_a_person() -> None:
    fleet = world(OLD, steps=GATED)
    fleet.add_version(NEW)
    settle(fleet)
    whole = fleet.desired.spec.strategy
    fleet.change(paused=True, strategy=whole.model_copy(update={"steps": ()}))
    settle(fleet)
    fleet.change(paused=False, strategy=whole)
    settle(fleet)
    assert (fleet.status.step, list(serving(fleet).values()).count(digest(NEW))) == ("1/3", 1)


@pytest.mark.parametrize("paused", [False, True])
def test_a_wish_to_hurry_that_is_taken_back_opens_no_pause(paused: bool) -> None:
    """Taken back before anybody moved for it."""
    fleet = world(OLD, steps=GATED)
    fleet.add_version(NEW)
    settle(fleet)
    fleet.change(paused=True, expedite=hurry(NEW))
    settle(fleet)
    fleet.change(expedite=None, paused=paused)
    settle(fleet)
    assert (fleet.status.step, list(serving(fleet).values()).count(digest(NEW))) == ("1/3", 1)


def test_a_withdrawal_beats_an_approval_and_a_wish_to_hurry() -> None:
    want = gated(approved(NEW, 2), expedite=hurry(NEW))
    made = plan(want, observed(version(OLD), withdrawn(NEW), *FLEET, memory=AT_THE_GATE))
    assert moved(made) == []
    assert made.status.target == made.status.live


def test_a_paused_rollout_goes_on_by_no_approval() -> None:
    made = at_the_gate(gated(approved(NEW, 2), paused=True))
    assert moved(made) == []
    assert said(made)[1] is Reason.PAUSED


def test_an_expedited_version_takes_no_steps_and_waits_for_nobody() -> None:
    fleet = world(OLD, steps=(step(1, pause=86400), *GATED), expedite=hurry(NEW))
    fleet.add_version(NEW)
    settle(fleet)
    assert all_serve(fleet, NEW)
    assert fleet.status.history[0].expedited


def test_an_expedited_version_is_verified_all_the_same() -> None:
    want = gated(expedite=hurry(NEW))
    made = plan(want, observed(version(OLD), version(NEW, verified=False), *pods(3, OLD), memory=status(OLD)))
    assert made.status.target == made.status.live
    assert not any(isinstance(action, Assign) for action in made.actions)


def test_an_expedited_version_moves_as_many_pods_at_once_as_max_unavailable_allows() -> None:
    want = gated(expedite=hurry(NEW))
    made = plan(want, observed(*BOTH, *pods(4, OLD, staged=[NEW]), memory=status(OLD, NEW, started_at=NOW)))
    assert moved(made) == ["p00"]


def test_a_wish_to_hurry_another_version_hurries_nothing() -> None:
    made = at_the_gate(gated(expedite=hurry(NEXT)))
    assert moved(made) == []
    assert said(made)[1] is Reason.AWAITING_APPROVAL


def test_a_version_that_is_hurried_in_mid_canary_goes_to_the_rest() -> None:
    fleet = world(OLD, steps=GATED)
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    fleet.change(expedite=hurry(NEW))
    settle(fleet)
    assert all_serve(fleet, NEW)


def test_history_names_who_approved() -> None:
    by = (approved(NEW, 2, by="bob"), approved(NEW, 1, by="alice"), approved(OLD, 2, by="carol"))
    fleet = world(OLD, steps=GATED, approvals=by)
    fleet.add_version(NEW)
    settle(fleet)
    assert fleet.status.history[0].approved_by == ("alice", "bob")
    assert not fleet.status.history[0].expedited


def test_a_way_back_beyond_the_window_waits_for_a_person_too() -> None:
    fleet = world(OLD, NEW, steps=())
    fleet.change(strategy=desired(steps=GATED, window=0).spec.strategy)
    fleet.versions[NEW].exists = False
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(OLD)) == 1
    ready = find(fleet.status.conditions, ConditionType.READY)
    assert ready is not None
    assert "waits until somebody approves chat-1.0.0 through step 1" in ready.message


def test_a_canary_that_falls_over_at_the_gate_is_mended_before_anybody_is_let_on() -> None:
    sick = (pod("p00", NEW, staged=[OLD, NEW], ready=False, moved_in=0), *FLEET[1:])
    made = plan(gated(approved(NEW, 1)), observed(*BOTH, *sick, memory=AT_THE_GATE, now=NOW))
    assert moved(made) == []
    assert made.status.step == "1/3"
    assert made.status.progressed_at == NOW


@pytest.mark.parametrize(
    "approvals",
    [
        pytest.param((approved(NEW, 1), approved(NEW, 2)), id="two-of-one-person"),
        pytest.param((approved(NEW, 1).model_copy(update={"version_name": "other-1.0.0"}),), id="another-model"),
    ],
)
def test_approvals_that_contradict_each_other_or_the_model_are_refused(approvals: tuple[Approval, ...]) -> None:
    spec = gated().spec
    with pytest.raises(UsageError, match="approval"):
        type(spec).parse({**spec.wire(), "approvals": [one.wire() for one in approvals]})
