"""The conditions of a rollout in a pass that plans nothing: suspended, unseen, or with a spec that cannot be used."""

from __future__ import annotations

from datetime import datetime, timedelta

from modelparams.api.conditions import ConditionStatus, ConditionType, find
from modelparams.api.rollout import RolloutStatus
from modelparams.reasons import Reason
from modelparams_operator.core.model import Desired
from modelparams_operator.core.rollout_status import Found, dated

_A_MOMENT = timedelta(seconds=15)


def suspended(desired: Desired, status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Say that nothing is touched. Ready keeps its last value."""
    ready = find(status.conditions, ConditionType.READY)
    message = "spec.suspend is set: nothing is touched"
    found = (
        (ConditionType.READY, ready.status if ready else ConditionStatus.UNKNOWN, Reason.SUSPENDED, message),
        *_available_as_before(status),
        (ConditionType.PAUSED, ConditionStatus.TRUE, Reason.SUSPENDED, message),
    )
    return _said(desired, status, found, now)


def unseen(desired: Desired, status: RolloutStatus, since: datetime, now: datetime) -> RolloutStatus:
    """Say that nobody is moved while it is not known how pods are; a moment of that is not worth a word."""
    if now - since < _A_MOMENT:
        return status
    message = f"pods and orders cannot be followed since {since:%Y-%m-%dT%H:%M:%SZ}: nobody is moved until they can"
    found = (
        (ConditionType.READY, ConditionStatus.UNKNOWN, Reason.API_UNAVAILABLE, message),
        *_available_as_before(status),
        (ConditionType.RECONCILING, ConditionStatus.TRUE, Reason.API_UNAVAILABLE, message),
    )
    return _said(desired, status, found, now)


def invalid(desired: Desired, status: RolloutStatus, message: str, now: datetime) -> RolloutStatus:
    """Say that the spec cannot be used; pods keep what they serve."""
    found = (
        (ConditionType.READY, ConditionStatus.FALSE, Reason.INVALID_SPEC, message),
        *_available_as_before(status),
        (ConditionType.STALLED, ConditionStatus.TRUE, Reason.INVALID_SPEC, message),
    )
    return _said(desired, status, found, now)


def _available_as_before(status: RolloutStatus) -> tuple[Found, ...]:
    known = find(status.conditions, ConditionType.AVAILABLE)
    return ((ConditionType.AVAILABLE, known.status, known.reason, known.message),) if known else ()


def _said(desired: Desired, status: RolloutStatus, found: tuple[Found, ...], now: datetime) -> RolloutStatus:
    told = dated(found, desired, status, now)
    said = {"observed_generation": desired.generation, "conditions": told, "progressed_at": None}
    return status.model_copy(update=said)
