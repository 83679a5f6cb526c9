"""What an error means for a loop: the only table, read by the operator and by the agent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from modelparams import errors
from modelparams.reasons import Reason


@dataclass(frozen=True, slots=True)
class Failure:
    """`retry_after` is None when only another spec, object or person can help."""

    reason: Reason
    message: str
    retry_after: timedelta | None

    @property
    def is_final(self) -> bool:
        """True when trying the same again is wrong."""
        return self.retry_after is None


_SOON, _LATER = timedelta(seconds=2), timedelta(seconds=15)

# The first match counts; a kind that is not listed is as its parent.
_RETRY_AFTER: tuple[tuple[type[Exception], timedelta | None], ...] = (
    (errors.IntegrityError, None),
    (errors.UsageError, None),
    (errors.StoreDenied, _LATER),
    (errors.ObjectMissing, _LATER),
    (errors.StoreError, _SOON),
    (errors.KeyUnavailable, _LATER),
    (errors.TrustUnavailable, _LATER),
    (errors.APIDenied, _LATER),
    (errors.APIMissing, _LATER),
    (errors.APIInvalid, _LATER),
    (errors.APIError, _SOON),
    (errors.SlotBusy, _SOON),
    (errors.EngineUnavailable, _SOON),
    (errors.ArenaExhausted, _LATER),
    (errors.IllegalTransition, _SOON),
    (errors.StaleTerm, None),
    (errors.SwapError, None),
)
_UNFORESEEN = timedelta(minutes=1)


def classify(error: BaseException) -> Failure:
    """Say how to go on after `error`; an unforeseen one is a bug, tried again slowly."""
    for kind, retry_after in _RETRY_AFTER:
        if isinstance(error, kind) and isinstance(error, errors.ModelParamsError):
            return Failure(error.reason, str(error), retry_after)
    # An unknown error's text may hold anything, also a secret: its kind is enough.
    return Failure(Reason.INTERNAL_ERROR, f"unforeseen {type(error).__name__}; see the log", _UNFORESEEN)
