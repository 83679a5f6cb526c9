"""What `kubectl get mpv` says of a version, whatever rollouts use it or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta

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
    revision,
    status,
    step,
    transient,
    version,
    withdrawn,
)
from modelparams.api.conditions import ConditionStatus, ConditionType, find
from modelparams.api.rollout import Pause, RolloutStatus, Step
from modelparams.api.version import VersionStatus
from modelparams.reasons import Reason
from modelparams_operator.core.model import Desired, Observed, VersionView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.version_status import RolloutUse, judge

OLD, NEW = "1.0.0", "1.1.0"


Use = tuple[Desired, RolloutStatus]


def use(memory: RolloutStatus | None = None, **fields: object) -> Use:
    return desired(**fields), memory or RolloutStatus()  # type: ignore[arg-type]


def judged(
    view: VersionView, uses: Sequence[Use], *others: VersionView, old: VersionStatus | None = None
) -> VersionStatus:
    versions = (view, *others)
    return judge(
        view, [RolloutUse.of(want, memory, versions, NOW) for want, memory in uses], old or VersionStatus(), NOW
    )


@pytest.mark.parametrize(
    ("view", "uses", "ready", "reason", "beside"),
    [
        pytest.param(version(NEW, verified=False), [use()], "Unknown", "Verifying", "Reconciling", id="its-check-runs"),
        pytest.param(
            version(NEW, failure=transient()),
            [use()],
            "False",
            "SourceUnavailable",
            "Reconciling",
            id="its-store-is-away",
        ),
        pytest.param(
            version(NEW, failure=final()), [use()], "False", "BlobDigestMismatch", "Stalled", id="it-was-refused"
        ),
        pytest.param(
            version(NEW, verified=False, suspend=True),
            [use()],
            "Unknown",
            "Suspended",
            None,
            id="it-is-suspended-and-unchecked",
        ),
        pytest.param(version(NEW), [], "Unknown", "NoRollout", None, id="no-rollout-names-its-model"),
        pytest.param(version(NEW, verified=False), [], "Unknown", "NoRollout", None, id="so-nobody-asks-for-its-check"),
        pytest.param(
            version(NEW), [use(status(OLD))], "Unknown", "RollingOut", "Reconciling", id="a-rollout-takes-it-up-next"
        ),
        pytest.param(
            version(NEW), [use(status(OLD, NEW))], "Unknown", "RollingOut", "Reconciling", id="it-is-rolled-out"
        ),
        pytest.param(
            version(NEW), [use(status(target=NEW))], "Unknown", "RollingOut", "Reconciling", id="it-is-the-first"
        ),
        pytest.param(version(NEW), [use(status(NEW))], "True", "Live", None, id="it-is-live"),
        pytest.param(version(OLD), [use(status(OLD, NEW))], "True", "Live", None, id="it-is-live-while-another-comes"),
        pytest.param(
            version(OLD), [use(status(NEW, history=(revision(OLD),)))], "True", "Superseded", None, id="it-was-live"
        ),
        pytest.param(version(OLD), [use(status(NEW))], "True", "Standby", None, id="it-never-was"),
        pytest.param(version(NEW), [use(status(OLD), pin=OLD)], "True", "Standby", None, id="another-is-pinned"),
        pytest.param(version("2.0.0"), [use(status(OLD))], "True", "Standby", None, id="it-is-outside-of-the-range"),
        pytest.param(withdrawn(OLD), [use(status(NEW))], "True", "Withdrawn", None, id="it-is-withdrawn"),
        pytest.param(
            version(NEW),
            [use(status(OLD, failed_versions=(failed(NEW),)))],
            "False",
            "SwapFailed",
            "Stalled",
            id="it-failed-in-pods",
        ),
        pytest.param(
            version(NEW, sequence=90),
            [use(status(OLD))],
            "False",
            "SequenceTooLow",
            "Stalled",
            id="its-sequence-is-too-low",
        ),
        pytest.param(
            version("2.0.0", sequence=90),
            [use(status(OLD))],
            "True",
            "Standby",
            None,
            id="its-sequence-is-low-and-it-is-the-next-major-s",
        ),
        pytest.param(
            version(OLD),
            [use(status(NEW, floor=105))],
            "False",
            "SequenceTooLow",
            "Stalled",
            id="it-is-below-the-floor",
        ),
        pytest.param(
            version(NEW),
            [use(status(NEW)), use(status(OLD, NEW))],
            "Unknown",
            "RollingOut",
            "Reconciling",
            id="one-of-two-rollouts-is-under-way",
        ),
    ],
)
def test_a_version_says_how_it_is(
    view: VersionView, uses: list[Use], ready: str, reason: str, beside: str | None
) -> None:
    made = judged(view, uses, *([] if view.name == "chat-1.1.0" else [version(NEW)])).conditions
    found = find(made, ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason) == (ready, reason)
    assert [c.type for c in made if c.type in ("Reconciling", "Stalled")] == ([beside] if beside else [])
    assert found.message


def story(seen: Observed) -> list[Use]:
    """A rollout as a pass leaves it."""
    return [(desired(), plan(desired(), seen).status)]


NO_PODS = story(observed(version(OLD), version(NEW), memory=status(OLD)))
FIRST_WITHOUT_PODS = story(observed(version(NEW)))


@pytest.mark.parametrize(
    ("view", "uses", "reason"),
    [
        pytest.param(version(NEW), NO_PODS, Reason.NO_PODS, id="no-pod-to-roll-out-to"),
        pytest.param(version(NEW), FIRST_WITHOUT_PODS, Reason.NO_PODS, id="the-first-of-all"),
        pytest.param(version(NEW), [*NO_PODS, use(status(NEW))], Reason.LIVE, id="live-in-a-rollout-with-pods"),
        pytest.param(version(OLD), NO_PODS, Reason.LIVE, id="what-new-pods-get"),
    ],
)
def test_a_rollout_without_pods_is_nothing_to_wait_for(view: VersionView, uses: list[Use], reason: Reason) -> None:
    found = find(judged(view, uses, version(NEW)).conditions, ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason) == (ConditionStatus.TRUE, reason)


def test_pods_that_come_are_waited_for() -> None:
    seen = observed(version(OLD), version(NEW), *pods(2, OLD), memory=NO_PODS[0][1])
    found = find(judged(version(NEW), story(seen)).conditions, ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason) == (ConditionStatus.UNKNOWN, Reason.ROLLING_OUT)


CANARY = (version(OLD), version(NEW), pod("a", NEW, staged=[OLD]), *pods(2, OLD, staged=[NEW]))
UNDER_WAY = plan(desired(), observed(*CANARY, memory=status(OLD, NEW))).status


@pytest.mark.parametrize(
    ("want", "reason"),
    [
        pytest.param(
            desired(steps=[Step(pods=1, pause=Pause())]), Reason.AWAITING_APPROVAL, id="a-step-waits-for-a-person"
        ),
        pytest.param(desired(paused=True), Reason.PAUSED, id="a-person-holds-it"),
        pytest.param(desired(suspend=True), Reason.SUSPENDED, id="a-person-froze-it"),
        pytest.param(desired(steps=[step(1, pause=60)]), Reason.ROLLING_OUT, id="a-step-is-looked-at"),
    ],
)
def test_a_version_whose_rollout_waits_for_a_person_waits_for_that_person_too(want: Desired, reason: Reason) -> None:
    """Git engines wait for the version as well: one that only progresses is not waited for with patience."""
    memory = plan(want, observed(*CANARY, memory=UNDER_WAY)).status
    found = find(judged(version(NEW), [(want, memory)], version(OLD)).conditions, ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason) == (ConditionStatus.UNKNOWN, reason)
    assert found.message.startswith("rollout chat: ")


def test_what_its_pods_try_again_stands_on_the_version() -> None:
    sick = pod("p00", OLD, failed=failure(NEW, Reason.KEY_UNAVAILABLE, is_final=False))
    uses = story(observed(version(OLD), version(NEW), sick, memory=status(OLD)))
    found = find(judged(version(NEW), uses).conditions, ConditionType.READY)
    assert found is not None
    assert found.reason is Reason.ROLLING_OUT
    assert found.message == "rollout chat: 0/1 pods, step 1/3; KeyUnavailable: pod p00: it did not work"


def test_a_failed_version_keeps_its_cause_when_another_fails_after_it() -> None:
    gave_up = (failed(NEW, message="pod b: it did not work"), failed("1.2.0", message="pod c: no"))
    found = find(judged(version(NEW), [use(status(OLD, failed_versions=gave_up))]).conditions, ConditionType.READY)
    assert found is not None
    assert found.message == "it failed in rollout chat: pod b: it did not work"


def test_a_version_that_may_be_the_first_is_not_ready_while_a_higher_one_is_checked() -> None:
    ready = find(judged(version(OLD), [use()], version(NEW, verified=False)).conditions, ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, Reason.VERIFYING)


def test_the_check_has_its_own_condition() -> None:
    found = find(judged(version(NEW), [use(status(NEW))]).conditions, ConditionType.VERIFIED)
    assert found is not None
    assert (found.status, found.reason) == (ConditionStatus.TRUE, Reason.VERIFIED)
    assert found.message == "3 blobs, 1000 bytes, 1 trusted signature, sequence 110"


@pytest.mark.parametrize(
    ("view", "want"),
    [
        pytest.param(version(NEW, verified=False), ConditionStatus.UNKNOWN, id="not-ended"),
        pytest.param(version(NEW, failure=transient()), ConditionStatus.UNKNOWN, id="could-not-tell"),
        pytest.param(version(NEW, failure=final()), ConditionStatus.FALSE, id="said-no"),
    ],
)
def test_could_not_tell_is_not_no(view: VersionView, want: ConditionStatus) -> None:
    found = find(judged(view, []).conditions, ConditionType.VERIFIED)
    assert found is not None
    assert found.status is want


def test_a_version_names_the_rollouts_that_use_it() -> None:
    one = use(status(NEW))
    other = (dataclasses.replace(one[0], name="another"), status(OLD, NEW))
    assert judged(version(NEW), [one, other]).used_by == ("another", "chat")


def test_a_second_look_changes_nothing() -> None:
    first = judged(version(NEW), [use(status(NEW))])
    assert judged(version(NEW), [use(status(NEW))], old=first) == first


def until(limit: datetime, number: str = NEW, **fields: object) -> VersionView:
    """A version that is not to be served after `limit`."""
    return version(number, not_after=limit, **fields)


PAST = NOW - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("view", "uses", "ready", "reason", "beside"),
    [
        pytest.param(until(PAST), [use(status(NEW))], "False", "Expired", "Stalled", id="live"),
        pytest.param(until(PAST), [use(status(OLD, NEW))], "False", "Expired", "Stalled", id="rolled-out"),
        pytest.param(until(PAST), [use(status(OLD))], "False", "Expired", "Stalled", id="wanted-next"),
        pytest.param(until(PAST, OLD), [use(status(NEW))], "True", "Expired", None, id="wanted-by-nobody"),
        pytest.param(
            until(PAST, OLD), [use(status(NEW, history=(revision(OLD),)))], "True", "Expired", None, id="superseded"
        ),
        pytest.param(until(PAST, lifecycle="Withdrawn"), [use(status(OLD))], "True", "Withdrawn", None, id="withdrawn"),
        pytest.param(
            until(PAST),
            [use(status(OLD, failed_versions=(failed(NEW),)))],
            "False",
            "SwapFailed",
            "Stalled",
            id="failed-in-pods",
        ),
        pytest.param(until(NOW), [use(status(NEW))], "True", "Live", None, id="in-its-last-second"),
    ],
)
def test_a_version_whose_time_is_over_says_so(
    view: VersionView, uses: list[Use], ready: str, reason: str, beside: str | None
) -> None:
    made = judged(view, uses, *([] if view.name == "chat-1.1.0" else [version(NEW)])).conditions
    found = find(made, ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason) == (ready, reason)
    assert [c.type for c in made if c.type in ("Reconciling", "Stalled")] == ([beside] if beside else [])


@pytest.mark.parametrize(
    ("memory", "want"),
    [
        pytest.param(status(NEW), "pods that serve it go on, others refuse it", id="live"),
        pytest.param(status(OLD), "it is not taken up any more", id="wanted-next"),
    ],
)
def test_an_expired_version_says_until_when_and_what_to_do(memory: RolloutStatus, want: str) -> None:
    found = find(judged(until(PAST), [use(memory)]).conditions, ConditionType.READY)
    assert found is not None
    assert found.message == f"it was to be served until 2026-11-24T11:59:59Z: {want}; publish a new version"
