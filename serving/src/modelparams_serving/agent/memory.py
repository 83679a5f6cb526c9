"""What the agent knows beyond the order and the engine's state. A value: each change gives a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from modelparams.api.assignment import AssignmentStatus
from modelparams.api.release import Release
from modelparams.digest import Digest
from modelparams.errors import ModelParamsError
from modelparams.failure import Failure
from modelparams.protocol import Region, Slot
from modelparams.reasons import Reason

BACKOFF_MAX = timedelta(minutes=2)
SETBACKS_KEPT = 16
_SOON = timedelta(seconds=2)
ENGINE_LOSSES_MAX = 3
"""So often may one release take the engine down before it is given up: a poisoned one must not do it for ever."""


@dataclass(frozen=True, slots=True)
class Filled:
    """An arena whose every byte this process has verified and written itself. Others can write to it since."""

    release: Release
    slot: Slot
    index: Region
    inode: int
    """The arena file's, so that a file made anew is not taken for it."""
    assets: Region
    small_hash: str
    """Of index and small files as they were verified: they tell an engine what the tensors have to be."""
    fetched_bytes: int = 0
    was_taken: bool = False
    """An engine has built it once. What it is refused for from then on is not the version's fault."""

    @property
    def digest(self) -> Digest:
        """Its manifest's."""
        return self.release.manifest_digest


@dataclass(frozen=True, slots=True)
class Setback:
    """The last failure with one release. `retry_at` is None when it is final for its `attempt`."""

    version_name: str
    digest: Digest
    failure: Failure
    attempt: str
    at: datetime
    retry_at: datetime | None
    count: int = 1
    engine_losses: int = 0
    """How often the engine died while it took the release."""

    def holds_back(self, attempt: str, now: datetime) -> bool:
        """Whether it is too early, or wrong, to try again. A failure of a time to come is of a clock that was set."""
        if attempt != self.attempt:
            return False
        return self.retry_at is None or self.at <= now < self.retry_at


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong with which release, for the attempt of which order."""

    version_name: str
    digest: Digest
    failure: Failure
    attempt: str
    took_engine_down: bool = False


@dataclass(frozen=True, slots=True)
class Underway:
    """A staging that runs now."""

    release: Release
    percent: int = 0
    is_cancelled: bool = False
    """Asked to end; it may hang in a read for a while."""
    asks: int = 0
    """Bytes of the arena that it waits for; 0: it has not come to that, or has one."""

    @property
    def digest(self) -> Digest:
        """Its manifest's."""
        return self.release.manifest_digest


@dataclass(frozen=True, slots=True)
class Memory:
    """Lost with the process; the engine's state and the assignment's status restore what matters."""

    term: int = 0
    floor: int = 0
    """The highest `floor` of any manifest verified here: no sequence below it is staged, whoever orders it."""
    filled: tuple[Filled, ...] = ()
    setbacks: tuple[Setback, ...] = ()
    underway: Underway | None = None
    live: Digest | None = None
    """What the engine was last seen to serve: what to restore when it comes back empty."""
    engine_seen: bool = False
    """Whether the engine has answered in this pod's life: one that has not yet may still be starting."""
    engine_gone_at: datetime | None = None
    """Since when it is missing and should not be."""
    fetched_bytes: int | None = None
    pause_microseconds: int | None = None
    swapped_at: datetime | None = None

    def setback_of(self, digest: Digest) -> Setback | None:
        """The last failure with that release, if it has not succeeded since."""
        return next((setback for setback in self.setbacks if setback.digest == digest), None)

    def filled_with(self, digest: Digest) -> Filled | None:
        """The arena that holds it, whatever the engine knows of it."""
        return next((filled for filled in self.filled if filled.digest == digest), None)

    def having_filled(self, filled: Filled, floor: int) -> Memory:
        """After a staging: the arena's former content is gone, and with it the release's failure."""
        kept = tuple(other for other in self.filled if other.slot is not filled.slot)
        return replace(
            self.without_setback(filled.digest),
            filled=(*kept, filled),
            floor=max(self.floor, floor),
            underway=None,
            fetched_bytes=filled.fetched_bytes,
        )

    def having_taken(self, taken: Filled) -> Memory:
        """After an engine built it."""
        return replace(self, filled=tuple(replace(f, was_taken=True) if f == taken else f for f in self.filled))

    def without_slot(self, slot: Slot) -> Memory:
        """Before the arena is written again, or when its file is another one now."""
        return replace(self, filled=tuple(filled for filled in self.filled if filled.slot is not slot))

    def without_filled(self, digest: Digest) -> Memory:
        """After the engine refused or discarded it."""
        return replace(self, filled=tuple(filled for filled in self.filled if filled.digest != digest))

    def without_setback(self, digest: Digest) -> Memory:
        """After the release succeeded."""
        return replace(self, setbacks=tuple(setback for setback in self.setbacks if setback.digest != digest))

    def having_failed(self, what: Failed, now: datetime, jitter: float = 1.0) -> Memory:
        """Remember why and until when to leave a release alone; the pause doubles with each failure in a row.

        `jitter` is a factor of the pause, so that a fleet does not come back at once.
        """
        before = self.setback_of(what.digest)
        if before is None or before.attempt != what.attempt:
            before = None
        count = before.count + 1 if before else 1
        losses = (before.engine_losses if before else 0) + what.took_engine_down
        failure = what.failure
        # What served before is tried for ever: without it the pod serves nothing at all.
        if losses >= ENGINE_LOSSES_MAX and what.digest != self.live:
            failure = _poisoned(what.version_name, losses)
        retry_at = _retry_at(failure, count, now, jitter)
        setback = Setback(what.version_name, what.digest, failure, what.attempt, now, retry_at, count, losses)
        others = self.without_setback(what.digest).setbacks
        return replace(self, setbacks=(*others[1 - SETBACKS_KEPT :], setback))

    def adopting(self, status: AssignmentStatus) -> Memory:
        """Take up what an earlier life of the agent in this pod reported of itself."""
        memory = replace(
            self,
            term=max(self.term, status.term),
            pause_microseconds=status.pause_microseconds,
            fetched_bytes=status.fetched_bytes,
            swapped_at=status.swapped_at,
            engine_seen=self.engine_seen or _tells_of_an_engine(status),
        )
        last = status.last_failure
        if last is None or not last.final or memory.setback_of(last.manifest_digest):
            return memory
        failure = Failure(last.reason, last.message, None)
        setback = Setback(last.version_name, last.manifest_digest, failure, last.attempt, last.time, None)
        return replace(memory, setbacks=(*memory.setbacks, setback))


def _tells_of_an_engine(status: AssignmentStatus) -> bool:
    failure = status.last_failure
    is_lost = failure is not None and failure.reason is Reason.ENGINE_UNAVAILABLE
    return is_lost or bool(status.staged)


def spoilt(filled: Filled) -> Failure:
    """An arena was written to after it was verified: what is in it is nobody's any more."""
    return Failure(
        Reason.INDEX_INVALID,
        f"{filled.slot.file_name} no longer holds what was verified there, so {filled.release.version_name} is fetched "
        "anew. Only the engine and who shares the pod's memory volume can write there: look at the engine's last log, "
        "and take the pod for compromised unless that explains it.",
        _SOON,
    )


def unwell(error: ModelParamsError) -> Failure:
    """An engine that came back could not take what another one took: no time or memory for a pass, perhaps."""
    return Failure(error.reason, f"{error.message}; an engine took it before, so it is tried again", _SOON)


def _poisoned(version_name: str, losses: int) -> Failure:
    return Failure(
        Reason.SWAP_FAILED,
        f"the engine died {losses} times while it took {version_name}. Look at the end of its last log; publish a "
        "version that fits its memory, or change the rollout's retryToken to try this one again.",
        None,
    )


def _retry_at(failure: Failure, count: int, now: datetime, jitter: float) -> datetime | None:
    if failure.retry_after is None:
        return None
    pause: timedelta = failure.retry_after * 2 ** min(count - 1, 16)
    return now + min(pause, BACKOFF_MAX) * jitter
