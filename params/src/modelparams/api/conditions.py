"""Conditions as the API conventions define them, and kstatus reads them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from modelparams.api.base import Message, Wire, WireReason, WireTime


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
    reason: WireReason
    message: Message = ""
    observed_generation: int = Field(default=0, ge=0)
    last_transition_time: WireTime


def _ours(value: Any) -> Any:
    """Drop conditions of types that only a newer release knows."""
    known = {kind.value for kind in ConditionType}
    return [c for c in value if not isinstance(c, dict) or c.get("type") in known] if isinstance(value, list) else value


Conditions = Annotated[tuple[Condition, ...], Field(max_length=8), BeforeValidator(_ours)]


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
