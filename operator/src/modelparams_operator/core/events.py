"""Old status, new status and refused orders → events. A quiet pass has none, since its two statuses are equal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, find
from modelparams.api.release import Release
from modelparams.api.rollout import FailedVersion, PodFailure, RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams.errors import APIDenied, APIInvalid
from modelparams.reasons import Reason
from modelparams_operator.core.memory import is_at_rest, is_same
from modelparams_operator.core.model import Plan


@dataclass(frozen=True, slots=True)
class Event:
    """What changed, for `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: Reason
    message: str


_COUNTING = frozenset(
    {Reason.ROLLING_BACK, Reason.PODS_CLAIMED_TWICE, Reason.PROGRESS_DEADLINE_EXCEEDED, Reason.STALE_TERM}
)
"""Reasons whose messages count pods, or name one of many: another count is no news."""
_TOLD = frozenset(
    {Reason.PAUSED, Reason.SUSPENDED, Reason.NO_VERSION_SELECTED, Reason.PINNED_VERSION_MISSING, Reason.NO_PODS}
)
"""Reasons of Ready that are worth an event though nothing is wrong."""


def of_rollout(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    """Tell what happened to a rollout between two passes, in the order in which it happened."""
    found = (*_failures(old, new), *_turn(old, new), *_steps(old, new), *_arrival(old, new))
    told = {event.reason for event in found} | _taken_over(old, new)
    said = _ready(find(old.conditions, ConditionType.READY), find(new.conditions, ConditionType.READY), new.conditions)
    return (*found, *(event for event in said if event.reason not in told))


def of_orders(made: Plan, problems: Iterable[BaseException]) -> tuple[Event, ...]:
    """Tell of orders that were not written: none was to be, or the API server refused some, alike for all pods."""
    if made.is_outranked:
        return (Event("Warning", Reason.STALE_TERM, made.why[0]),)
    refused = (error for error in problems if isinstance(error, (APIDenied, APIInvalid)))
    return tuple(Event("Warning", error.reason, f"an order cannot be written: {error}") for error in islice(refused, 1))


def of_unclaimed(model: str, pods: Sequence[str]) -> tuple[Event, ...]:
    """Tell of pods that are the model's and no rollout's: the default one gave way to one that selects others."""
    if not pods:
        return ()
    more = len(pods) - 1
    which = f"pods {pods[0]} and {more} more" if more else f"pod {pods[0]}"
    told = f"no rollout selects {which} of {model}, so nothing new goes there"
    return (Event("Warning", Reason.NO_ROLLOUT, f"{told}; widen a selector, or write a rollout for them"),)


def of_version(old: VersionStatus, new: VersionStatus) -> tuple[Event, ...]:
    """Tell what happened to a version."""
    before, now = find(old.conditions, ConditionType.READY), find(new.conditions, ConditionType.READY)
    verified = find(new.conditions, ConditionType.VERIFIED)
    found: list[Event] = []
    if new.verified is not None and old.verified is None and verified is not None:
        found.append(Event("Normal", Reason.VERIFIED, verified.message))
    if now is not None and now.reason is not Reason.VERIFYING and _is_news(before, now):
        is_warning = now.status is ConditionStatus.FALSE
        found.append(Event("Warning" if is_warning else "Normal", now.reason, now.message))
    return tuple(found)


def _is_news(before: Condition | None, now: Condition) -> bool:
    """Tell whether Ready says another thing: another reason, or another cause of the same trouble."""
    if before is None or before.reason is not now.reason:
        return True
    is_trouble = now.status is ConditionStatus.FALSE and now.reason not in _COUNTING
    return is_trouble and _cause(before.message) != _cause(now.message)


def _cause(message: str) -> str:
    """Leave out which pod it is: another one with the same trouble is no news."""
    return re.sub(r"^pod \S+: ", "", message)


def _failures(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    failure = new.last_failure
    if failure is None or failure == old.last_failure or not _is_own(old, failure):
        return ()
    return (Event("Warning", failure.reason, f"pod {failure.pod_name}, {failure.version_name}: {failure.message}"),)


def _is_own(old: RolloutStatus, failed: PodFailure | FailedVersion) -> bool:
    """Tell whether a rollout headed for what failed; else it took that over from another one, which told of it."""
    return old.target is not None and old.target.manifest_digest == failed.manifest_digest


def _taken_over(old: RolloutStatus, new: RolloutStatus) -> set[Reason]:
    known = (*old.failed_versions, *(failed for failed in new.failed_versions if _is_own(old, failed)))
    return {failed.reason for failed in new.failed_versions if failed not in known}


def _turn(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    """Tell of another target, forward or back to what is live or was; and of another try at the same one.

    Without pods nothing turns: that is told when the first ones come.
    """
    target, live = new.target, new.live
    before = None if _has_no_pods(old) else old.target
    if target is None or (before is None and (is_at_rest(new) or _is_failed(target, new))) or _has_no_pods(new):
        return ()
    if is_same(before, target) and not _is_tried_again(old, target, new):
        return ()
    if before is not None and not is_same(before, target) and _is_back(old, target, live):
        return (Event("Normal", Reason.ROLLING_BACK, f"from {before.version_name} to {target.version_name}"),)
    over = f" over {live.version_name}" if live is not None and not is_same(live, target) else ""
    again = f", tried again for retryToken {new.last_handled_retry_token}" if _is_tried_again(old, target, new) else ""
    return (Event("Normal", Reason.ROLLING_OUT, f"{target.version_name}{over}{again}"),)


def _is_failed(target: Release, status: RolloutStatus) -> bool:
    return any(failed.manifest_digest == target.manifest_digest for failed in status.failed_versions)


def _has_no_pods(status: RolloutStatus) -> bool:
    return _reason(status) is not None and not status.pods.total


def _is_back(old: RolloutStatus, target: Release, live: Release | None) -> bool:
    """Tell whether `target` is what is live or older: one in between, after a failed one, is on the way forward."""
    if is_same(old.live or live, target):
        return True
    reached = live or old.target
    return reached is not None and target.version < reached.version


def _is_tried_again(old: RolloutStatus, target: Release, new: RolloutStatus) -> bool:
    is_asked = new.last_handled_retry_token != old.last_handled_retry_token
    return is_asked and _is_failed(target, old)


def _steps(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    if not is_same(old.target, new.target) or is_at_rest(new) or new.target is None:
        return ()
    if new.step_reached_at is not None and old.step_reached_at is None:
        done = f"step {new.step} of {new.target.version_name} is reached: {new.pods.summary} pods"
        return (Event("Normal", Reason.STEP_PAUSE, done),)
    if new.step_index > old.step_index:
        return (Event("Normal", Reason.SWAPPING, f"{new.target.version_name} goes on to step {new.step}"),)
    return ()


def _arrival(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    """Tell that all pods are where they belong: on a new version, or back."""
    if new.live is None or not is_at_rest(new):
        return ()
    if not is_same(old.live, new.live) and not _is_older(new.live, old.live):
        return (Event("Normal", Reason.PROMOTED, f"{new.live.version_name} is live on {new.pods.summary} pods"),)
    if _was_going_back(old, new.live) and not _is_rolling_back(new):
        return (Event("Normal", Reason.ROLLED_BACK, f"{new.pods.summary} pods serve {new.live.version_name}"),)
    return ()


def _is_older(live: Release, before: Release | None) -> bool:
    return before is not None and live.version < before.version


def _was_going_back(old: RolloutStatus, live: Release) -> bool:
    """Tell whether pods were on their way to `live`, or turn to it in this very pass, from a newer version."""
    is_turned = old.target is not None and live.version < old.target.version
    return is_turned or _is_older(live, old.live) or _is_rolling_back(old)


def _is_rolling_back(status: RolloutStatus) -> bool:
    return _reason(status) is Reason.ROLLING_BACK


def _reason(status: RolloutStatus) -> Reason | None:
    ready = find(status.conditions, ConditionType.READY)
    return ready.reason if ready is not None else None


def _ready(old: Condition | None, new: Condition | None, conditions: tuple[Condition, ...]) -> tuple[Event, ...]:
    if new is None or not _is_news(old, new):
        return ()
    if find(conditions, ConditionType.PAUSED) is not None and new.reason is Reason.SUSPENDED:  # a person's own act
        return (Event("Normal", new.reason, new.message),)
    if new.status is ConditionStatus.FALSE or find(conditions, ConditionType.STALLED) is not None:
        return (Event("Warning", new.reason, new.message),)
    return (Event("Normal", new.reason, new.message),) if new.reason in _TOLD else ()
