"""Events tell what changed; a pass that changes nothing tells nothing."""

from __future__ import annotations

from datetime import timedelta

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
    status,
    step,
    transient,
    version,
)
from modelparams.api.rollout import RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams.reasons import Reason
from modelparams_operator.core.events import of_rollout, of_version
from modelparams_operator.core.model import Desired, Observed, PodView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.predecessors import lessons
from modelparams_operator.core.version_status import RolloutUse, judge

OLD, NEW = "1.0.0", "1.1.0"
BOTH = (version(OLD), version(NEW))
STAGED = pods(4, OLD, staged=[NEW], holds=[OLD, NEW])


def told(want: Desired, seen: Observed) -> list[str]:
    """Events of a pass, after a pass over the same that has settled the conditions."""
    events = of_rollout(seen.status, plan(want, seen).status)
    return [f"{event.type} {event.reason}: {event.message}" for event in events]


def at_rest(*parts: object, **fields: object) -> RolloutStatus:
    return plan(desired(), observed(*parts, **fields)).status  # type: ignore[arg-type]


REST = at_rest(version(OLD), *pods(4, OLD), memory=status(OLD))
UNDER_WAY = at_rest(*BOTH, *STAGED, memory=REST)
HELD_WITHOUT_PODS = plan(
    desired(on_failure="Pause"), observed(*BOTH, memory=status(OLD, NEW, failed_versions=(failed(NEW),)))
).status


@pytest.mark.parametrize(
    ("want", "seen", "expected"),
    [
        pytest.param(
            desired(),
            observed(*BOTH, *STAGED, memory=REST),
            ["Normal RollingOut: chat-1.1.0 over chat-1.0.0"],
            id="a-rollout-begins",
        ),
        pytest.param(
            desired(),
            observed(*BOTH, memory=REST),
            ["Normal NoPods: no pod is selected; chat-1.1.0 is rolled out when there are some"],
            id="nothing-rolls-without-pods",
        ),
        pytest.param(
            desired(pin="9.0.0"),
            observed(*BOTH, memory=at_rest(*BOTH, memory=REST)),
            ["Warning PinnedVersionMissing: chat-9.0.0 is pinned and does not exist"],
            id="nor-when-something-else-is-to-be-said",
        ),
        pytest.param(
            desired(),
            observed(*BOTH, *pods(4, OLD), memory=at_rest(*BOTH, memory=REST)),
            ["Normal RollingOut: chat-1.1.0 over chat-1.0.0"],
            id="it-rolls-when-pods-come",
        ),
        pytest.param(
            desired(on_failure="Pause"),
            observed(
                *BOTH,
                *pods(4, OLD),
                memory=HELD_WITHOUT_PODS,
            ),
            [],
            id="nor-what-failed-and-is-held",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), *pods(4, OLD), memory=at_rest(version(OLD), memory=REST)),
            [],
            id="pods-that-come-back-to-what-is-live",
        ),
        pytest.param(
            desired(steps=(step(1, pause=60),)),
            observed(*BOTH, pod("p00", NEW, staged=[OLD]), *STAGED[1:], memory=UNDER_WAY),
            ["Normal StepPause: step 1/2 of chat-1.1.0 is reached: 1/4 pods"],
            id="a-step-is-reached",
        ),
        pytest.param(
            desired(steps=(step(1), step(2))),
            observed(*BOTH, pod("p00", NEW, staged=[OLD]), *STAGED[1:], memory=UNDER_WAY),
            ["Normal Swapping: chat-1.1.0 goes on to step 2/3"],
            id="the-next-step-begins",
        ),
        pytest.param(
            desired(),
            observed(*BOTH, *pods(4, NEW, staged=[OLD]), memory=UNDER_WAY),
            ["Normal Promoted: chat-1.1.0 is live on 4/4 pods"],
            id="it-is-promoted",
        ),
        pytest.param(
            desired(),
            observed(version(OLD), pod("p00", NEW, staged=[OLD]), *STAGED[1:], memory=UNDER_WAY),
            ["Normal RollingBack: from chat-1.1.0 to chat-1.0.0"],
            id="it-is-taken-back",
        ),
        pytest.param(
            desired(),
            observed(
                *BOTH,
                pod("p00", NEW, staged=[OLD]),
                pod("p01", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW)),
                memory=UNDER_WAY,
            ),
            [
                "Warning SwapFailed: pod p01, chat-1.1.0: it did not work",
                "Normal RollingBack: from chat-1.1.0 to chat-1.0.0",
            ],
            id="it-failed",
        ),
        pytest.param(
            desired(suspend=True),
            observed(*BOTH, *STAGED, memory=REST),
            ["Normal Suspended: spec.suspend is set: nothing is touched"],
            id="it-is-suspended",
        ),
        pytest.param(
            desired(suspend=True),
            observed(memory=at_rest()),
            ["Normal Suspended: spec.suspend is set: nothing is touched"],
            id="it-is-suspended-while-it-has-no-version",
        ),
        pytest.param(
            desired(pin="1.5.0"),
            observed(*BOTH, *pods(4, OLD), memory=REST),
            ["Warning PinnedVersionMissing: chat-1.5.0 is pinned and does not exist"],
            id="the-pin-is-missing",
        ),
    ],
)
def test_a_change_is_told_once(want: Desired, seen: Observed, expected: list[str]) -> None:
    assert told(want, seen) == expected
    after = plan(want, seen).status
    assert of_rollout(after, after) == ()


def test_the_end_of_a_return_is_told() -> None:
    back = at_rest(version(OLD), pod("p00", NEW, staged=[OLD]), *STAGED[1:], memory=UNDER_WAY)
    assert told(desired(), observed(version(OLD), *pods(4, OLD), memory=back)) == [
        "Normal RolledBack: 4/4 pods serve chat-1.0.0"
    ]


def test_the_end_of_a_return_from_what_was_live_is_told() -> None:
    returning = at_rest(version(OLD), *pods(2, NEW, staged=[OLD]), memory=status(NEW, OLD))
    assert told(desired(), observed(version(OLD), *pods(2, OLD), memory=returning)) == [
        "Normal RolledBack: 2/2 pods serve chat-1.0.0"
    ]


def test_a_return_on_which_no_pod_has_to_move_is_told_with_its_end() -> None:
    sick = pod("p00", OLD, holds=[OLD], failed=failure(NEW))
    assert told(desired(), observed(*BOTH, sick, *STAGED[1:], memory=UNDER_WAY)) == [
        "Warning SwapFailed: pod p00, chat-1.1.0: it did not work",
        "Normal RollingBack: from chat-1.1.0 to chat-1.0.0",
        "Normal RolledBack: 4/4 pods serve chat-1.0.0",
    ]


def test_a_lower_version_after_one_that_failed_is_still_on_the_way_forward() -> None:
    three = (*BOTH, version("1.2.0"))
    trying = at_rest(*three, *pods(2, OLD), memory=status(OLD, "1.2.0"))
    sick = pod("p00", OLD, failed=failure("1.2.0"))
    assert told(desired(), observed(*three, sick, pod("p01", OLD), memory=trying)) == [
        "Warning SwapFailed: pod p00, chat-1.2.0: it did not work",
        "Normal RollingOut: chat-1.1.0 over chat-1.0.0",
    ]


@pytest.mark.parametrize("under_way", [None, NEW], ids=["gone-back", "held"])
def test_another_try_names_the_token_that_asks_for_it(under_way: str | None) -> None:
    gave_up = status(OLD, under_way, failed_versions=(failed(NEW),))
    failing = at_rest(*BOTH, *pods(2, OLD), memory=gave_up)
    assert told(desired(retry_token="again-1"), observed(*BOTH, *pods(2, OLD), memory=failing)) == [
        "Normal RollingOut: chat-1.1.0 over chat-1.0.0, tried again for retryToken again-1"
    ]


def test_another_cause_under_the_same_reason_is_told() -> None:
    stories = [version(NEW, failure=transient(message=message)) for message in ("no Secret", "no Secret", "bad keys")]
    assert version_story(*((view, status(OLD)) for view in stories)) == ["Warning SourceUnavailable"] * 2
    first = at_rest(stories[0])
    assert told(desired(), observed(stories[0], memory=first)) == []
    assert told(desired(), observed(stories[2], memory=first)) == ["Warning SourceUnavailable: chat-1.1.0: bad keys"]


def test_another_pod_with_the_same_trouble_is_no_news() -> None:
    trouble = failure(NEW, Reason.SLOT_BUSY, is_final=False)
    first = at_rest(*BOTH, pod("p00", OLD, holds=[OLD, NEW], failed=trouble), *STAGED[1:], memory=UNDER_WAY)
    later = observed(*BOTH, STAGED[0], pod("p01", OLD, holds=[OLD, NEW], failed=trouble), *STAGED[2:], memory=first)
    assert told(desired(), later) == []


@pytest.mark.parametrize("own", [(), pods(2, OLD)], ids=["before-it-has-pods", "with-their-pods"])
def test_a_failure_that_was_taken_over_from_another_rollout_is_no_news(own: tuple[PodView, ...]) -> None:
    before = at_rest(*BOTH, pod("p00", OLD, failed=failure(NEW)), pod("p01", OLD), memory=status(OLD, NEW))
    assert before.last_failure is not None
    seen = observed(*BOTH, *own, predecessors=(before,), lessons=lessons([before]))
    after = plan(desired(), seen).status
    assert after.last_failure == before.last_failure
    assert [event for event in told(desired(), seen) if "Failed" in event] == []
    assert told(desired(), observed(*BOTH, *pods(2, OLD), memory=after)) == []


def test_a_rollout_beside_another_one_tells_of_no_failure_of_that_one() -> None:
    learned = lessons([status(OLD, failed_versions=(failed(NEW),))])
    assert told(desired(), observed(*BOTH, *pods(2, OLD), lessons=learned)) == [
        "Normal Promoted: chat-1.0.0 is live on 2/2 pods"
    ]


def test_counting_pods_is_no_event() -> None:
    seen = observed(
        *BOTH, *STAGED[:3], pod("p03", OLD, holds=[OLD, NEW]), memory=UNDER_WAY, now=NOW + timedelta(seconds=5)
    )
    assert plan(desired(), seen).status != UNDER_WAY
    assert told(desired(), seen) == []


def version_story(*views: object) -> list[str]:
    lines, old = [], VersionStatus()
    for view, memory in views:  # type: ignore[misc]
        new = judge(view, [RolloutUse.of(desired(), memory, (view,), NOW)], old, NOW)
        lines += [f"{event.type} {event.reason}" for event in of_version(old, new)]
        old = new
    return lines


def test_a_versions_life_is_told_in_order() -> None:
    unverified, known = version(NEW, verified=False), version(NEW)
    story = version_story(
        (unverified, status(OLD)), (known, status(OLD)), (known, status(OLD, NEW)), (known, status(NEW))
    )
    assert story == ["Normal Verified", "Normal RollingOut", "Normal Live"]


def test_a_refused_version_is_warned_of_once() -> None:
    refused = version(NEW, failure=final())
    assert version_story((refused, status(OLD)), (refused, status(OLD))) == ["Warning BlobDigestMismatch"]
