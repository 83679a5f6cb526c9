"""delivery-peers §3.6: what a rollout's conditions say, and how tools read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from builders.kstatus import kstatus as judged
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
from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, find
from modelparams.api.rollout import RolloutStatus
from modelparams.reasons import Reason
from modelparams_operator.core.model import Desired, Observed
from modelparams_operator.core.plan import plan
from modelparams_operator.core.untouched import invalid

OLD, NEW = "1.0.0", "1.1.0"
BOTH = (version(OLD), version(NEW))
CANARY = status(OLD, NEW, progressed_at=NOW)
STAGED = pods(4, OLD, staged=[NEW], holds=[OLD, NEW])


def kstatus(conditions: tuple[Condition, ...]) -> str:
    """As a tool reads them, with observedGeneration up to date."""
    return str(judged({"status": {"conditions": [condition.wire() for condition in conditions]}}))


def conditions(want: Desired, seen: Observed) -> tuple[Condition, ...]:
    made = plan(want, seen).status
    assert made.observed_generation == want.generation
    return made.conditions


@pytest.mark.parametrize(
    ("want", "seen", "ready", "reason", "tool"),
    [
        pytest.param(desired(), observed(), "False", "NoVersionSelected", "InProgress", id="no-version-at-all"),
        pytest.param(
            desired(),
            observed(version(OLD, verified=False), *pods(2)),
            "Unknown",
            "Verifying",
            "InProgress",
            id="verifying",
        ),
        pytest.param(
            desired(),
            observed(version(OLD, failure=transient())),
            "False",
            "SourceUnavailable",
            "InProgress",
            id="the-store-is-away",
        ),
        pytest.param(
            desired(),
            observed(version(OLD, failure=final())),
            "False",
            "BlobDigestMismatch",
            "Failed",
            id="the-only-version-was-refused",
        ),
        pytest.param(desired(), observed(version(OLD), *pods(2)), "Unknown", "Staging", "InProgress", id="staging"),
        pytest.param(
            desired(), observed(*BOTH, *STAGED, memory=CANARY), "Unknown", "Swapping", "InProgress", id="swapping"
        ),
        pytest.param(
            desired(steps=(step(1, pause=60),)),
            observed(*BOTH, pod("a", NEW, staged=[OLD]), *STAGED, memory=CANARY),
            "Unknown",
            "StepPause",
            "InProgress",
            id="in-a-timed-pause",
        ),
        pytest.param(
            desired(paused=True),
            observed(*BOTH, *STAGED, memory=CANARY),
            "Unknown",
            "Paused",
            "InProgress",
            id="paused",
        ),
        pytest.param(
            desired(paused=True),
            observed(version(OLD), *pods(2, OLD), memory=status(OLD)),
            "True",
            "Promoted",
            "Current",
            id="paused-at-rest",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), *pods(2, OLD), memory=status(OLD)),
            "True",
            "Promoted",
            "Current",
            id="all-pods-serve-the-choice",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), pod("a", OLD), pod("b", OLD, ready=False), memory=status(OLD)),
            "Unknown",
            "PodsNotServing",
            "InProgress",
            id="at-rest-with-a-pod-that-is-not-ready",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), version(NEW, failure=final()), *pods(2, OLD), memory=status(OLD)),
            "True",
            "Promoted",
            "Current",
            id="a-refused-version-touches-no-rollout",
        ),
        pytest.param(
            desired(),
            observed(*BOTH, *pods(2, OLD), memory=status(OLD, failed_versions=(failed(NEW),))),
            "False",
            "SwapFailed",
            "Failed",
            id="failed-and-rolled-back",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), *pods(2, OLD), memory=status(OLD, failed_versions=(failed(NEW),))),
            "True",
            "Promoted",
            "Current",
            id="the-failed-version-is-gone",
        ),
        pytest.param(
            desired(),
            observed(
                *BOTH, version("1.2.0"), *pods(2, "1.2.0"), memory=status("1.2.0", failed_versions=(failed(NEW),))
            ),
            "True",
            "Promoted",
            "Current",
            id="a-newer-one-is-live",
        ),
        pytest.param(
            desired(on_failure="Pause"),
            observed(*BOTH, *STAGED, memory=status(OLD, NEW, failed_versions=(failed(NEW),))),
            "False",
            "SwapFailed",
            "Failed",
            id="failed-and-held",
        ),
        pytest.param(
            desired(),
            observed(
                *BOTH,
                pod("b", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW)),
                pod("a", NEW, staged=[OLD]),
                memory=CANARY,
            ),
            "False",
            "RollingBack",
            "InProgress",
            id="failed-and-on-the-way-back",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), pod("a", NEW, staged=[OLD]), *pods(2, OLD), memory=CANARY),
            "Unknown",
            "RollingBack",
            "InProgress",
            id="taken-back-by-a-person",
        ),
        pytest.param(
            desired(),
            observed(*BOTH, *pods(2, NEW), pod("z", OLD, staged=[NEW]), memory=status(NEW, history=(revision(OLD),))),
            "Unknown",
            "Swapping",
            "InProgress",
            id="one-that-was-not-ready-follows",
        ),
        pytest.param(
            desired(),
            observed(
                *BOTH,
                *pods(2, NEW),
                pod("z", OLD, staged=[NEW]),
                memory=status(NEW, failed_versions=(failed(OLD),), history=(revision(OLD),)),
            ),
            "Unknown",
            "RollingBack",
            "InProgress",
            id="an-older-one-that-failed-is-left",
        ),
        pytest.param(
            desired(),
            observed(
                *BOTH,
                pod("a", OLD, holds=[OLD, NEW], failed=failure(NEW, Reason.SOURCE_UNAVAILABLE, is_final=False)),
                memory=CANARY,
            ),
            "False",
            "SourceUnavailable",
            "InProgress",
            id="a-pod-tries-again",
        ),
        pytest.param(
            desired(),
            observed(
                version(OLD),
                *pods(2, OLD),
                pod("z", failed=failure(OLD, Reason.SEAL_BROKEN), holds=[OLD]),
                memory=status(OLD),
            ),
            "False",
            "SealBroken",
            "Failed",
            id="a-new-pod-gave-up",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), *pods(2, OLD), pod("z", holds=[OLD]), memory=status(OLD)),
            "Unknown",
            "Staging",
            "InProgress",
            id="a-new-pod-stages",
        ),
        pytest.param(
            desired(),
            observed(*BOTH, memory=status(OLD)),
            "True",
            "NoPods",
            "Current",
            id="no-pods-to-roll-out-to",
        ),
        pytest.param(
            desired(), observed(version(OLD), memory=status(OLD)), "True", "NoPods", "Current", id="no-pods-at-rest"
        ),
        pytest.param(
            desired(),
            observed(
                version(NEW),
                version(OLD),
                withdrawn("1.2.0"),
                pod("a", NEW),
                pod("b", "1.2.0", staged=[NEW], moved_in=0),
                memory=status(NEW, floor=500),
            ),
            "False",
            "SequenceTooLow",
            "Failed",
            id="live-below-the-floor-though-a-pod-is-elsewhere",
        ),
        pytest.param(
            desired(),
            observed(withdrawn(OLD), pod("a", OLD), pod("b", NEW, staged=[OLD]), memory=status(OLD)),
            "False",
            "NoVersionSelected",
            "InProgress",
            id="live-withdrawn-with-nothing-else-though-a-pod-is-elsewhere",
        ),
        pytest.param(
            desired(), observed(version(OLD), memory=status(NEW)), "True", "NoPods", "Current", id="no-pods-to-go-back"
        ),
        pytest.param(
            desired(),
            observed(*pods(2, OLD), memory=status(OLD)),
            "False",
            "NoVersionSelected",
            "InProgress",
            id="every-object-is-gone",
        ),
        pytest.param(
            desired(pin="1.5.0"),
            observed(version(OLD), *pods(2, OLD), memory=status(OLD)),
            "False",
            "PinnedVersionMissing",
            "InProgress",
            id="pinned-and-missing",
        ),
        pytest.param(
            desired(pin=OLD),
            observed(*pods(2, OLD), memory=status(OLD)),
            "False",
            "PinnedVersionMissing",
            "InProgress",
            id="pinned-and-live-and-deleted",
        ),
        pytest.param(
            desired(pin=NEW),
            observed(version(OLD), withdrawn(NEW), *pods(2, OLD), memory=status(OLD)),
            "False",
            "PinnedVersionWithdrawn",
            "Failed",
            id="pinned-and-withdrawn",
        ),
        pytest.param(
            desired(pin=NEW),
            observed(version(OLD), version(NEW, failure=final()), *pods(2, OLD), memory=status(OLD)),
            "False",
            "BlobDigestMismatch",
            "Failed",
            id="pinned-and-refused",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), pod("a", ordered=None), memory=status(OLD), other_claims={"a": ("gpu",)}),
            "False",
            "PodsClaimedTwice",
            "Failed",
            id="claimed-twice",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), pod("a", OLD, obeyed=9), memory=status(OLD), term=3),
            "False",
            "StaleTerm",
            "Failed",
            id="pods-of-a-later-term",
        ),
    ],
)
def test_a_situation_is_read_alike_by_people_and_tools(
    want: Desired, seen: Observed, ready: str, reason: str, tool: str
) -> None:
    made = conditions(want, seen)
    found = find(made, ConditionType.READY)
    assert found is not None
    assert (found.status, found.reason, kstatus(made)) == (ready, reason, tool)
    assert found.message


def test_a_status_that_nobody_wrote_yet_is_in_progress_for_kstatus() -> None:
    assert RolloutStatus().observed_generation == -1


def test_suspended_keeps_the_last_value_of_ready_and_claims_neither_progress_nor_a_stall() -> None:
    rest = plan(desired(), observed(version(OLD), *pods(2, OLD), memory=status(OLD))).status
    made = conditions(desired(suspend=True, generation=2), observed(*BOTH, *pods(2, OLD), memory=rest))
    assert [(c.type, c.status, c.reason) for c in made] == [
        ("Ready", "True", "Suspended"),
        ("Available", "True", "PodsServing"),
        ("Paused", "True", "Suspended"),
    ]


def test_a_rollout_that_was_born_suspended_is_unknown() -> None:
    ready = find(conditions(desired(suspend=True), observed()), ConditionType.READY)
    assert ready is not None
    assert ready.status is ConditionStatus.UNKNOWN


@pytest.mark.parametrize(
    ("seen", "want", "reason"),
    [
        pytest.param(observed(*BOTH, *STAGED, memory=CANARY), "True", Reason.PODS_SERVING, id="true-through-a-canary"),
        pytest.param(
            observed(version(OLD), *pods(2, OLD), pod("z"), memory=status(OLD)),
            "True",
            Reason.PODS_SERVING,
            id="a-starting-pod-does-not-count",
        ),
        pytest.param(
            observed(version(OLD), *pods(2), memory=status(OLD)), "False", Reason.PODS_NOT_SERVING, id="nobody-serves"
        ),
        pytest.param(
            observed(version(OLD), pod("a", ready=True), memory=status(OLD)),
            "False",
            Reason.PODS_NOT_SERVING,
            id="ready-without-a-version",
        ),
        pytest.param(observed(version(OLD), memory=status(OLD)), "Unknown", Reason.NO_PODS, id="no-pods"),
    ],
)
def test_available_is_for_alerts(seen: Observed, want: str, reason: Reason) -> None:
    found = find(conditions(desired(), seen), ConditionType.AVAILABLE)
    assert found is not None
    assert (found.status, found.reason) == (want, reason)


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = plan(desired(), observed(*BOTH, *STAGED, memory=CANARY)).status
    parts = (*BOTH, pod("p00", NEW, staged=[OLD]), *STAGED[1:])
    later = plan(desired(), observed(*parts, memory=first, now=NOW + timedelta(minutes=1))).status
    assert later != first
    assert {c.last_transition_time for c in later.conditions} == {NOW}


def test_a_spec_that_cannot_be_read_stalls() -> None:
    made = invalid(desired(generation=3), status(OLD), "spec.strategy: no", NOW)
    assert (kstatus(made.conditions), made.observed_generation) == ("Failed", 3)
    assert made.live == status(OLD).live


def test_the_message_of_a_failure_names_the_pod_the_version_and_what_to_do() -> None:
    sick = pod("b", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW))
    memory = plan(desired(), observed(*BOTH, sick, *pods(2, OLD), memory=CANARY)).status
    made = conditions(desired(), observed(*BOTH, *pods(2, OLD), memory=memory))
    assert made[0].message == (
        "chat-1.1.0 failed: pod b: it did not work; chat-1.0.0 stays live; "
        "publish a new version, or set spec.retryToken to try again"
    )


def test_a_way_back_by_steps_says_until_when_it_pauses() -> None:
    memory = status(NEW, OLD, step_reached_at=NOW, started_at=NOW)
    parts = (version(OLD), pod("a", OLD, staged=[NEW]), pod("b", NEW, staged=[OLD]))
    made = conditions(desired(steps=(step(1, pause=60),), window=0), observed(*parts, memory=memory))
    assert made[0].message == "1 of 2 pods are back on chat-1.0.0; step 1/2 pauses until 2026-11-24T12:01:00Z"


def test_while_another_version_comes_a_failed_one_is_not_what_is_told() -> None:
    memory = status(OLD, NEW, failed_versions=(failed("1.2.0"),), started_at=NOW)
    made = conditions(desired(steps=(step(1, pause=60),)), observed(*BOTH, version("1.2.0"), *STAGED, memory=memory))
    assert (kstatus(made), made[0].reason) == ("InProgress", "Swapping")


def test_a_workload_without_pods_is_ready_and_skips_no_step_for_it() -> None:
    made = plan(desired(), observed(*BOTH, memory=status(OLD))).status
    assert made.conditions[0].message == "no pod is selected; chat-1.1.0 is rolled out when there are some"
    assert made.live == status(OLD).live


def test_a_second_failure_takes_no_cause_from_the_first() -> None:
    memory = plan(desired(), observed(*BOTH, pod("b", OLD, failed=failure(NEW)), *pods(2, OLD), memory=CANARY)).status
    three = (*BOTH, version("1.2.0"))
    memory = plan(desired(), observed(*three, *pods(2, OLD), memory=memory)).status
    memory = plan(desired(), observed(*three, pod("c", OLD, failed=failure("1.2.0")), memory=memory)).status
    assert [(f.version_name, f.message) for f in memory.failed_versions] == [
        ("chat-1.1.0", "pod b: it did not work"),
        ("chat-1.2.0", "pod c: it did not work"),
    ]


def test_after_a_promotion_the_pod_that_does_not_come_is_named() -> None:
    """Its node is away, say: it will not hold what all others serve, and nothing else would say whose fault it is."""
    gone = pod("b", OLD, ready=False, holds=[OLD, NEW])
    found = conditions(desired(), observed(*BOTH, pod("a", NEW), gone, pod("c", NEW), memory=status(NEW)))
    ready = find(found, ConditionType.READY)
    assert ready is not None
    assert ready.message == "2 of 3 pods hold chat-1.1.0; pod b is not ready"
