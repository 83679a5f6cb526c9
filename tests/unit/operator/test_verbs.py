"""Verbs of people: what each changes of a spec, and when it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from builders.rollouts import approval, desired, digest, failed, hurry, status, step, version_spec
from modelparams.api.rollout import APPROVALS_MAX, Pause, RolloutSpec, RolloutStatus, Step
from modelparams.api.version import VersionStatus
from modelparams.errors import UsageError
from modelparams_operator.core.steps import hash_of
from modelparams_operator.shell.ports import ObjectKey
from modelparams_operator.shell.views import Custom, RolloutObject, VersionObject
from modelparams_operator.verbs import changes
from modelparams_operator.verbs.changes import Change

OLD, NEW = "1.0.0", "1.1.0"
GATED = (Step(pods=1, pause=Pause()), step(2))
UNDER_WAY = status(OLD, NEW)


def rollout(memory: RolloutStatus = UNDER_WAY, **spec: Any) -> RolloutObject:
    wanted = desired(steps=GATED, **spec).spec
    return Custom(ObjectKey("ns", "chat"), "uid", 1, "7", False, wanted, memory)


def named(number: str) -> VersionObject:
    return Custom(ObjectKey("ns", f"chat-{number}"), "uid", 1, "7", False, version_spec(number), VersionStatus())


def wire(change: Change) -> list[tuple[str, int, str]]:
    approvals = change.spec["approvals"]
    assert all(a["manifestDigest"] == digest(a["versionName"].removeprefix("chat-")) for a in approvals)
    return [(a["versionName"], a["throughStep"], a["approvedBy"]) for a in approvals]


def after(change: Change, subject: RolloutObject) -> RolloutObject:
    """The object once the patch was merged."""
    spec = RolloutSpec.parse({k: v for k, v in (subject.spec.wire() | change.spec).items() if v is not None})
    return Custom(subject.key, subject.uid, 2, "8", False, spec, subject.status)


def test_an_approval_is_for_the_present_step_of_what_is_rolled_out() -> None:
    change = changes.approved(rollout(), "alice", None)
    assert wire(change) == [("chat-1.1.0", 1, "alice")]
    assert change.said == "alice approves chat-1.1.0 through step 1 of 3 in chat"


def test_an_approval_can_reach_further() -> None:
    assert wire(changes.approved(rollout(), "alice", 2)) == [("chat-1.1.0", 2, "alice")]


def test_an_approval_stands_beside_those_of_others_and_in_place_of_one_s_own() -> None:
    before = (approval(NEW, 1, "bob"), approval(OLD, 2, "alice"))
    change = changes.approved(rollout(approvals=before), "alice", None)
    assert wire(change) == [("chat-1.1.0", 1, "bob"), ("chat-1.1.0", 1, "alice")]


@pytest.mark.parametrize("through", [1, 2])
def test_an_approval_that_stands_is_not_written_again(through: int) -> None:
    assert not changes.approved(rollout(approvals=(approval(NEW, through, "alice"),)), "alice", 1).is_needed


@pytest.mark.parametrize(
    ("subject", "through", "words"),
    [
        pytest.param(rollout(status(OLD)), None, "chat rolls nothing out that could be approved", id="at-rest"),
        pytest.param(rollout(RolloutStatus()), None, "chat rolls nothing out", id="nothing-yet"),
        pytest.param(rollout(), 3, "chat has 2 steps before the last one, and nothing waits in step 3", id="no-step"),
        pytest.param(
            rollout(status(OLD, NEW, step_index=2)), None, "nothing waits in step 3", id="in-the-last-step-already"
        ),
        pytest.param(
            rollout(approvals=tuple(approval(NEW, 1, f"p{n}") for n in range(APPROVALS_MAX))),
            None,
            "has 32 approvals and no room",
            id="full",
        ),
    ],
)
def test_what_cannot_be_approved_is_told(subject: RolloutObject, through: int | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        changes.approved(subject, "alice", through)


@pytest.mark.parametrize(("given", "number"), [(None, NEW), (named(NEW), NEW), (named("1.2.0"), "1.2.0")])
def test_what_is_rolled_out_is_expedited_or_the_version_that_is_named(given: VersionObject | None, number: str) -> None:
    wish = {"versionName": f"chat-{number}", "manifestDigest": digest(number)}
    assert changes.expedited(rollout(), given).spec == {"expedite": wish}


@pytest.mark.parametrize("given", ["1.1.0", "chat-1.1.0"])
def test_a_version_is_named_by_its_number_or_in_full(given: str) -> None:
    assert changes.full_name(rollout().spec, given) == "chat-1.1.0"


def test_a_version_that_is_expedited_already_is_not_written_again() -> None:
    assert not changes.expedited(rollout(expedite=hurry(NEW)), None).is_needed


def test_other_bytes_of_a_version_that_is_expedited_are_written() -> None:
    assert changes.expedited(rollout(expedite=hurry(NEW, content="before")), None).is_needed


def test_an_approval_of_other_bytes_takes_the_place_of_one_s_own() -> None:
    before = (approval(NEW, 2, "alice", content="before"),)
    assert wire(changes.approved(rollout(approvals=before), "alice", None)) == [("chat-1.1.0", 1, "alice")]


def test_an_approval_is_bound_to_the_plan_that_was_looked_at() -> None:
    (one,) = changes.approved(rollout(), "alice", None).spec["approvals"]
    assert one["stepsHash"] == hash_of(GATED)


def test_an_approval_of_another_plan_takes_the_place_of_one_s_own() -> None:
    before = approval(NEW, 2, "alice").model_copy(update={"steps_hash": "another"})
    assert wire(changes.approved(rollout(approvals=(before,)), "alice", None)) == [("chat-1.1.0", 1, "alice")]


def test_nothing_is_expedited_at_rest_unless_it_is_named() -> None:
    with pytest.raises(UsageError, match="rolls nothing out"):
        changes.expedited(rollout(status(OLD)), None)
    assert changes.expedited(rollout(status(OLD)), named(NEW)).is_needed


def test_holding_and_going_on_undo_each_other_and_are_said_once() -> None:
    held = after(changes.held(rollout()), rollout())
    assert held.spec.paused
    assert not changes.held(held).is_needed
    assert not after(changes.resumed(held), held).spec.paused
    assert not changes.resumed(rollout()).is_needed


def test_another_try_names_what_failed() -> None:
    change = changes.retried(rollout(status(OLD, failed_versions=(failed(NEW),))), "again")
    assert (change.spec, change.said) == ({"retryToken": "again"}, "chat tries again: chat-1.1.0")
    with pytest.raises(UsageError, match="nothing has failed in chat"):
        changes.retried(rollout(), "again")


def test_a_withdrawal_and_its_undoing() -> None:
    def version(**fields: Any) -> VersionObject:
        spec = version_spec(NEW, **fields)
        return Custom(ObjectKey("ns", "chat-1.1.0"), "uid", 1, "7", False, spec, VersionStatus())

    assert changes.withdrawn(version()).spec == {"lifecycle": "Withdrawn"}
    assert not changes.withdrawn(version(lifecycle="Withdrawn")).is_needed
    assert changes.brought_back(version(lifecycle="Withdrawn")).spec == {"lifecycle": None}
    assert not changes.brought_back(version()).is_needed
