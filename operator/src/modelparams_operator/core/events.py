"""Old status and new status → events. A quiet pass has none, since its two statuses are equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, find
from modelparams.api.rollout import RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams.reasons import Reason
from modelparams_operator.core.memory import is_at_rest, is_same


@dataclass(frozen=True, slots=True)
class Event:
    """What changed, for `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: Reason
    message: str


_TOLD = frozenset({Reason.PAUSED, Reason.SUSPENDED, Reason.NO_VERSION_SELECTED, Reason.PINNED_VERSION_MISSING})
"""Reasons of Ready that are worth an event though nothing is wrong."""


def of_rollout(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    """Tell what happened to a rollout between two passes, in the order in which it happened."""
    found = (*_failures(old, new), *_turn(old, new), *_steps(old, new), *_promotion(old, new))
    told = {event.reason for event in found}
    said = _ready(find(old.conditions, ConditionType.READY), find(new.conditions, ConditionType.READY), new.conditions)
    return (*found, *(event for event in said if event.reason not in told))


def of_version(old: VersionStatus, new: VersionStatus) -> tuple[Event, ...]:
    """Tell what happened to a version."""
    before, now = find(old.conditions, ConditionType.READY), find(new.conditions, ConditionType.READY)
    verified = find(new.conditions, ConditionType.VERIFIED)
    found: list[Event] = []
    if new.verified is not None and old.verified is None and verified is not None:
        found.append(Event("Normal", Reason.VERIFIED, verified.message))
    if now is not None and (before is None or before.reason is not now.reason) and now.reason is not Reason.VERIFYING:
        is_warning = now.status is ConditionStatus.FALSE
        found.append(Event("Warning" if is_warning else "Normal", now.reason, now.message))
    return tuple(found)


def _failures(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    failure = new.last_failure
    if failure is None or failure == old.last_failure:
        return ()
    return (Event("Warning", failure.reason, f"pod {failure.pod_name}, {failure.version_name}: {failure.message}"),)


def _turn(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    """Tell of another target: forward, or back to what is live or was."""
    target, live = new.target, new.live
    if target is None or is_same(old.target, target) or (old.target is None and is_at_rest(new)):
        return ()
    if old.target is not None and (target.version < old.target.version or is_same(old.live or live, target)):
        return (Event("Normal", Reason.ROLLING_BACK, f"from {old.target.version_name} to {target.version_name}"),)
    over = f" over {live.version_name}" if live is not None and not is_same(live, target) else ""
    return (Event("Normal", Reason.ROLLING_OUT, f"{target.version_name}{over}"),)


def _steps(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    if not is_same(old.target, new.target) or is_at_rest(new) or new.target is None:
        return ()
    if new.step_reached_at is not None and old.step_reached_at is None:
        done = f"step {new.step} of {new.target.version_name} is reached: {new.pods.summary} pods"
        return (Event("Normal", Reason.STEP_PAUSE, done),)
    if new.step_index > old.step_index:
        return (Event("Normal", Reason.SWAPPING, f"{new.target.version_name} goes on to step {new.step}"),)
    return ()


def _promotion(old: RolloutStatus, new: RolloutStatus) -> tuple[Event, ...]:
    if new.live is None or is_same(old.live, new.live) or not is_at_rest(new):
        ready, before = find(new.conditions, ConditionType.READY), find(old.conditions, ConditionType.READY)
        is_back = before is not None and before.reason is Reason.ROLLING_BACK and is_at_rest(new)
        if is_back and ready is not None and ready.reason is not Reason.ROLLING_BACK and new.live is not None:
            return (Event("Normal", Reason.ROLLED_BACK, f"{new.pods.summary} pods serve {new.live.version_name}"),)
        return ()
    return (Event("Normal", Reason.PROMOTED, f"{new.live.version_name} is live on {new.pods.summary} pods"),)


def _ready(old: Condition | None, new: Condition | None, conditions: tuple[Condition, ...]) -> tuple[Event, ...]:
    if new is None or (old is not None and old.reason is new.reason):
        return ()
    if new.status is ConditionStatus.FALSE or find(conditions, ConditionType.STALLED) is not None:
        return (Event("Warning", new.reason, new.message),)
    return (Event("Normal", new.reason, new.message),) if new.reason in _TOLD else ()
