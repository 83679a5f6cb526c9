"""What a log does not hold, as far as it tells.

What is told:

* A line that cannot be read, but for a last one that is still being written.
* A write to an object between two that the log has. The API server counts an object's specs (`metadata.generation`): a
  jump is a spec that was written and is not in the log. It leaves the status alone when something else is written, and
  the rest alone when the status is: what differs was written meanwhile. And a writer who says which resourceVersion he
  had read, as the operator does for each status, names the write before his.
* The creation of an object that was made within the log's time, and the deletion of one whose name another one has.
* A write whose body was not recorded, or of which nobody knows what came of it.
* A time in which the operator's Lease was not renewed, though it was the same holder's in the same term before and
  after: who cannot renew exits, so renewals are missing. When another one held it thereafter, the operator may have
  been away: then it is a gap only if the log holds nothing at all of some whole minute in between.
* A time that was asked for, and that is before the log's first event or after its last.

What is not told: the last writes to an object, until it is written to again; the end of a log that was cut off there; a
pod's own last words, which name no resourceVersion, before its next order; an object all of whose events are missing;
a time without renewals where they are not recorded; and whatever somebody rewrote so that it fits together, which
who has the API server's node can do. A write that the server answered with 5xx, as when whoever asked was killed, may
have been stored nonetheless. Where one lies between two writes that do not fit together, it is named: what it asked for
is in the log, what became of it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from modelparams_operator.audit.events import Beat, Event
from modelparams_operator.audit.shelf import Shelf

SKEW = timedelta(minutes=1)
"""Clocks of API servers differ by less."""
_IN_FLIGHT = timedelta(minutes=1)
"""The API server ends every request that is no watch within that time."""


class Kind(StrEnum):
    """What is missing, or cannot be trusted to be whole."""

    UNREADABLE = "Unreadable"
    WRITE_MISSING = "WriteMissing"
    CREATION_MISSING = "CreationMissing"
    DELETION_MISSING = "DeletionMissing"
    BODY_MISSING = "BodyMissing"
    UNANSWERED = "Unanswered"
    SILENCE = "Silence"
    OUT_OF_ORDER = "OutOfOrder"
    NOT_COVERED = "NotCovered"


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the log does not hold. No time: it is not known when; no name: it is about the whole log."""

    kind: Kind
    since: datetime | None
    until: datetime | None
    message: str
    namespace: str = ""
    resource: str = ""
    name: str = ""
    model: str = ""


def between(before: Event, after: Event) -> Gap | None:
    """What is missing between two neighbouring writes of one object."""
    if before.deletes:
        return None  # two who delete at once are both told that it is done
    if 0 < after.generation < before.generation or after.at < before.at - SKEW:
        return _gap(
            Kind.OUT_OF_ORDER,
            before,
            after,
            "times and versions contradict each other: clocks differ, or the cluster's data was restored from a backup",
        )
    if jump := _jump(before, after):
        what = "1 write to its spec is" if jump == 1 else f"{jump} writes to its spec are"
        return _gap(Kind.WRITE_MISSING, before, after, f"{what} not in the log: its generation grew")
    if _is_changed_between(before, after):
        return _gap(Kind.WRITE_MISSING, before, after, "a write to its status or metadata is not in the log")
    return None


def _jump(before: Event, after: Event) -> int:
    """How many specs were written in between."""
    if not after.generation:
        return 0
    own = 0 if after.writes_status or after.verb == "deletecollection" else 1
    return max(0, after.generation - before.generation - own)


def _is_changed_between(before: Event, after: Event) -> bool:
    if after.read_at is not None:
        return after.read_at != before.resource_version
    return after.has_body and bool(after.generation) and not after.writes_status and after.status != before.status


def explained(gap: Gap, writes: Iterable[Event]) -> Gap:
    """The gap as what it may be: a write that was answered with 5xx and stored nonetheless."""
    found = list(writes)
    if gap.kind is not Kind.WRITE_MISSING or not found:
        return gap
    told = "; ".join(f"{one.who.name} at {one.at:%H:%M:%S}Z, answered with {one.code}" for one in found[:3])
    return replace(gap, kind=Kind.UNANSWERED, message=f"a write may have been stored although it failed: {told}")


def begins_too_late(first: Event, log_begins: datetime | None) -> Gap | None:
    """Whether the object was made within the log's time, and its creation is not there."""
    if first.creates or first.created_at is None or log_begins is None or first.created_at <= log_begins:
        return None
    message = "its creation is not in the log, though it was made within the log's time"
    return Gap(Kind.CREATION_MISSING, first.created_at, first.at, message, *_place(first))


def left_in_place(last: Event, successor: Event) -> Gap | None:
    """Whether another object has its name, without a deletion in between."""
    if last.deletes:
        return None
    return _gap(
        Kind.DELETION_MISSING, last, successor, "its deletion is not in the log, though another object has its name"
    )


@dataclass(slots=True)
class WithoutBody:
    """Writes of which the log does not hold what was written: counted, since it may be all."""

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, event: Event) -> None:
        """Count one."""
        self.count += 1
        self.first, self.last = min(self.first or event.at, event.at), max(self.last or event.at, event.at)

    def gaps(self) -> Iterator[Gap]:
        """One, if there are any."""
        if self.count:
            message = (
                f"{self.count} writes are there without what was written: record modelparams.dev at the level "
                "RequestResponse, as operator/deploy/audit-policy.yaml does"
            )
            yield Gap(Kind.BODY_MISSING, self.first, self.last, message)


def in_the_log(shelf: Shelf) -> Iterator[Gap]:
    """What is missing of the log as a whole."""
    yield from _silences(shelf)
    if shelf.last is not None:
        lost = [at for at in shelf.unanswered() if at < shelf.last - _IN_FLIGHT]
        if lost:
            message = f"of {len(lost)} writes the log does not say what came of them: an API server may have crashed"
            yield Gap(Kind.UNANSWERED, lost[0], lost[-1], message)


def outside(shelf: Shelf, since: datetime | None, until: datetime | None, now: datetime) -> Iterator[Gap]:
    """What was asked for, and is before the log's first event or after its last."""
    if shelf.first is None or shelf.last is None:
        return
    if since is not None and since < shelf.first - SKEW:
        yield Gap(Kind.NOT_COVERED, since, shelf.first, "the log begins later than asked for")
    if until is not None and min(until, now) > shelf.last + SKEW:
        yield Gap(Kind.NOT_COVERED, shelf.last, until, "the log ends earlier than asked for")


def _silences(shelf: Shelf) -> Iterator[Gap]:
    for before, after in pairwise(shelf.beats()):
        if before.lease != after.lease or after.at - before.at <= timedelta(seconds=before.seconds):
            continue
        if _is_the_same_holder(before, after):
            message = f"renewals of the Lease {before.lease} are missing: {before.holder} held it all the time"
            yield Gap(Kind.SILENCE, before.at, after.at, message)
        elif shelf.is_silent_between(before.at, after.at):
            message = f"no renewal of the Lease {before.lease}, and for minutes nothing else is in the log"
            yield Gap(Kind.SILENCE, before.at, after.at, message)


def _is_the_same_holder(before: Beat, after: Beat) -> bool:
    return bool(before.holder) and (before.holder, before.term) == (after.holder, after.term)


def _gap(kind: Kind, before: Event, after: Event, message: str) -> Gap:
    return Gap(kind, min(before.at, after.at), max(before.at, after.at), message, *_place(after))


def _place(event: Event) -> tuple[str, str, str, str]:
    return event.namespace, event.resource, event.name, event.model
