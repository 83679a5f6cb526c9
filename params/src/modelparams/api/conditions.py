"""Conditions as the API conventions define them, and kstatus reads them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from modelparams.api.base import Wire, WireTime
from modelparams.reasons import Reason


class ConditionType(StrEnum):
    """The types that our kinds use, in the order in which they are shown."""

    READY = "Ready"
    VERIFIED = "Verified"
    AVAILABLE = "Available"
    PAUSED = "Paused"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ConditionStatus(StrEnum):
    """A condition's three values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Wire):
    """One observation. `last_transition_time` moves only when `status` does."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str = ""
    observed_generation: int = 0
    last_transition_time: WireTime


def carried_over(new: Iterable[Condition], old: Iterable[Condition]) -> tuple[Condition, ...]:
    """Keep the transition time of each condition of `new` whose status is as it was in `old`."""
    before = {condition.type: condition for condition in old}

    def keep(condition: Condition) -> Condition:
        known = before.get(condition.type)
        if known is None or known.status is not condition.status:
            return condition
        return condition.model_copy(update={"last_transition_time": known.last_transition_time})

    return tuple(keep(condition) for condition in new)


def find(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """The condition of that type, if it is there."""
    return next((condition for condition in conditions if condition.type is kind), None)
