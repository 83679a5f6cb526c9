"""Two objects with one digest, and one object made again: only what was checked may say where bytes are."""

from __future__ import annotations

import dataclasses

import pytest

from builders.rollouts import (
    NOW,
    desired,
    failed,
    failure,
    final,
    observed,
    pod,
    pods,
    release,
    revision,
    status,
    transient,
    version,
    withdrawn,
)
from modelparams.api.conditions import ConditionType, find
from modelparams.api.release import S3Source, Source
from modelparams.api.rollout import RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams.failure import Failure
from modelparams.reasons import Reason
from modelparams_operator.core.model import Assign, Desired, Plan, VersionView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.version_status import RolloutUse, judge

BEFORE, LIVE, TYPO = "1.8.0", "1.9.0", "1.10.0"
ELSEWHERE = Source(s3=S3Source(endpoint="https://elsewhere.example", bucket="somebody-elses"))
REFUSED = Failure(Reason.WRONG_VERSION, "the manifest is for chat 1.9.0, not 1.10.0", None)
AT_REST = status(LIVE, history=(revision(LIVE), revision(BEFORE)))
FLEET = (*pods(2, LIVE, staged=[BEFORE]), pod("new", ordered=None))


def elsewhere(view: VersionView) -> VersionView:
    return dataclasses.replace(view, spec=view.spec.model_copy(update={"source": ELSEWHERE}))


def typo(problem: Failure | None = REFUSED, **fields: object) -> VersionView:
    """1.10.0 with the digest of 1.9.0 and another bucket: its check ends with a no, or has not ended."""
    return elsewhere(version(TYPO, verified=False, failure=problem, content=LIVE, **fields))  # type: ignore[arg-type]


def planned(*views: VersionView, memory: RolloutStatus = AT_REST, want: Desired | None = None) -> Plan:
    return plan(want or desired(), observed(*views, *FLEET, memory=memory))


def ordered(made: Plan) -> list[Source]:
    """All sources that any pod is sent to."""
    return [one.source for a in made.actions if isinstance(a, Assign) for one in a.order.releases]


def stays(made: Plan) -> None:
    assert (made.status.live, made.status.target) == (release(LIVE), release(LIVE))
    assert [a.pod_name for a in made.actions if isinstance(a, Assign)] == ["new"]
    assert ELSEWHERE not in ordered(made)


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(typo(), id="refused"),
        pytest.param(typo(None), id="not-checked-yet"),
        pytest.param(typo(transient()), id="its-store-is-away"),
        pytest.param(typo(suspend=True), id="suspended"),
        pytest.param(typo(lifecycle="Withdrawn"), id="withdrawn"),
        pytest.param(typo(None, deleting=True), id="being-deleted"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_another_name_for_the_live_digest_changes_nothing(twin: VersionView, is_first: bool) -> None:
    others = (version(BEFORE), version(LIVE))
    stays(planned(*((twin, *others) if is_first else (*others, twin))))


@pytest.mark.parametrize(
    "twin", [pytest.param(typo(lifecycle="Withdrawn"), id="withdrawn"), pytest.param(typo(), id="refused")]
)
def test_a_pin_to_another_name_for_the_live_digest_leaves_live(twin: VersionView) -> None:
    stays(planned(twin, version(BEFORE), version(LIVE), want=desired(pin=TYPO)))


def test_another_name_does_not_stand_for_a_live_version_that_is_gone() -> None:
    made = planned(typo(), version(BEFORE))
    assert made.status.target == release(BEFORE)


def test_another_name_does_not_keep_a_withdrawn_live_version() -> None:
    made = planned(typo(None), version(BEFORE), withdrawn(LIVE))
    assert made.status.target == release(BEFORE)


def test_withdrawing_another_name_does_not_drop_what_pods_hold_for_a_return() -> None:
    twin = version("1.10.0", failure=REFUSED, content=BEFORE, lifecycle="Withdrawn")
    made = plan(
        desired(), observed(twin, version(BEFORE), version(LIVE), *pods(2, LIVE, staged=[BEFORE]), memory=AT_REST)
    )
    assert made.actions == ()


def test_withdrawing_another_name_does_not_forget_that_a_version_failed() -> None:
    memory = status(BEFORE, failed_versions=(failed(LIVE),))
    made = planned(typo(lifecycle="Withdrawn"), version(BEFORE), version(LIVE), memory=memory)
    assert (made.status.failed_versions, made.status.attempt) == ((failed(LIVE),), 0)


def test_another_name_for_a_failed_version_is_not_the_one_that_failed() -> None:
    memory = status(BEFORE, failed_versions=(failed(LIVE),))
    seen = observed(typo(), version(BEFORE), version(LIVE), *pods(2, BEFORE), memory=memory)
    said = plan(desired(), seen).status.conditions[0].message
    assert said.startswith("chat-1.9.0 failed")


def test_another_name_does_not_hide_what_pods_serve_from_a_lost_status() -> None:
    seen = observed(typo(), version(BEFORE), version("1.11.0"), *pods(2, LIVE, staged=[BEFORE]))
    assert plan(desired(), seen).status.live == release(LIVE)


def test_a_failure_of_the_target_turns_back_though_another_name_for_live_is_withdrawn() -> None:
    sick = pod("a", LIVE, staged=["1.11.0"], ordered="1.11.0", failed=failure("1.11.0"))
    views = (typo(lifecycle="Withdrawn"), version(LIVE), version("1.11.0"))
    made = plan(desired(), observed(*views, sick, memory=status(LIVE, "1.11.0")))
    assert made.status.target == release(LIVE)


def reasons(memory: RolloutStatus, *views: VersionView) -> list[Reason | None]:
    """What each version is said to be in a rollout that pins 1.9.0."""
    uses = [RolloutUse.of(desired(pin=LIVE), memory, views, NOW)]
    found = (find(judge(view, uses, VersionStatus(), NOW).conditions, ConditionType.READY) for view in views)
    return [condition.reason if condition else None for condition in found]


def test_another_name_for_the_digest_that_is_rolled_out_is_not_rolled_out() -> None:
    said = reasons(status(BEFORE, LIVE), version(BEFORE), version(LIVE), version(TYPO, content=LIVE))
    assert said == [Reason.LIVE, Reason.ROLLING_OUT, Reason.STANDBY]


def test_another_name_for_the_digest_that_is_chosen_is_not_taken_up() -> None:
    said = reasons(status(BEFORE), version(BEFORE), version(LIVE), version(TYPO, content=LIVE))
    assert said == [Reason.LIVE, Reason.ROLLING_OUT, Reason.STANDBY]


def test_another_name_for_the_live_digest_is_used_by_nobody() -> None:
    views = (typo(), version(LIVE))
    uses = [RolloutUse.of(desired(), AT_REST, views, NOW)]
    made = [judge(view, uses, VersionStatus(), NOW) for view in views]
    assert [one.used_by for one in made] == [(), ("chat",)]


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(final(Reason.SOURCE_DENIED, "the endpoint is not on the allow-list"), id="refused"),
        pytest.param(transient(), id="its-store-is-away"),
        pytest.param(None, id="not-checked-yet"),
    ],
)
@pytest.mark.parametrize("want", [desired(), desired(pin=LIVE)], ids=["highest", "pinned"])
def test_the_live_version_made_again_elsewhere_is_fetched_from_where_it_was_checked(
    problem: Failure | None, want: Desired
) -> None:
    again = elsewhere(version(LIVE, verified=False, failure=problem))
    stays(planned(version(BEFORE), again, want=want))


def test_the_live_version_made_again_elsewhere_and_checked_is_fetched_from_there() -> None:
    again = elsewhere(version(LIVE))
    made = planned(version(BEFORE), again)
    assert made.status.live == made.status.target == again.release
    assert ELSEWHERE in ordered(made)


def test_the_live_version_made_again_elsewhere_and_deleted_during_its_check_is_not_fetched_from_there() -> None:
    again = elsewhere(version(LIVE, deleting=True))
    made = planned(version(BEFORE), again)
    assert made.status.live == release(LIVE)
    assert ELSEWHERE not in ordered(made)


def test_a_refused_live_version_says_so() -> None:
    again = elsewhere(version(LIVE, failure=final(Reason.SOURCE_DENIED, "the endpoint is not on the allow-list")))
    said = planned(version(BEFORE), again).status.conditions[0].message
    assert "chat-1.9.0 is live and was refused when it was made again: the endpoint is not on the allow-list" in said
