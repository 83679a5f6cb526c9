"""Where events are put in order: a log has them as they were answered, several logs each for themselves, some twice.

SQLite in a private temporary file, which is gone with the process: memory does not grow with the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from modelparams_operator.audit.events import ALL, Beat, Event, Read

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE events (
    mark TEXT PRIMARY KEY, stored INT, in_doubt INT, namespace TEXT, rank INT, name TEXT, uid TEXT, ends INT,
    version INT, at REAL, data TEXT) WITHOUT ROWID;
CREATE INDEX doubts ON events (namespace, rank, name) WHERE in_doubt;
CREATE TABLE beats (lease TEXT, at REAL, data TEXT, PRIMARY KEY (lease, at, data)) WITHOUT ROWID;
CREATE TABLE minutes (minute INT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE asked (request TEXT PRIMARY KEY, at REAL) WITHOUT ROWID;
CREATE TABLE answered (request TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_STORED = "SELECT data FROM events WHERE stored ORDER BY namespace, rank, name, uid, ends, version, at, mark"
_REFUSED = "SELECT data FROM events WHERE NOT stored ORDER BY at, mark"
_IN_DOUBT = (
    "SELECT data FROM events WHERE in_doubt AND (namespace, rank, name) = (?, ?, ?) AND at BETWEEN ? AND ? "
    "ORDER BY at, mark"
)
_UNANSWERED = "SELECT at FROM asked WHERE request NOT IN (SELECT request FROM answered) ORDER BY at"


class Shelf:
    """A context manager that takes what was read in any order, and gives it back in one."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")
        self._rows.executescript(_TABLES)
        self._minute = -1
        self.count = 0
        self.first: datetime | None = None
        self.last: datetime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def put(self, found: Read) -> None:
        """Keep what is about us, and of all else that it was there."""
        self.count += 1
        self.first = min(self.first or found.at, found.at)
        self.last = max(self.last or found.at, found.at)
        self._note_minute(found.at)
        for event in found.events:
            self._put_event(event)
        if found.beat:
            row = (found.beat.lease, found.beat.at.timestamp(), found.beat.model_dump_json())
            self._rows.execute("INSERT OR IGNORE INTO beats VALUES (?, ?, ?)", row)
        if found.asked:
            self._rows.execute("INSERT OR IGNORE INTO asked VALUES (?, ?)", (found.asked, found.at.timestamp()))
        if found.answered:
            self._rows.execute("INSERT OR IGNORE INTO answered VALUES (?)", (found.answered,))

    def _note_minute(self, at: datetime) -> None:
        minute = int(at.timestamp() // 60)
        if minute != self._minute:
            self._minute = minute
            self._rows.execute("INSERT OR IGNORE INTO minutes VALUES (?)", (minute,))

    def _put_event(self, event: Event) -> None:
        place = (event.namespace, ALL.index(event.resource), event.name, event.uid)
        # Of a deletion some answers have no resourceVersion and others the one before it: nothing comes after it.
        order = (event.deletes, 0 if event.deletes else event.resource_version, event.at.timestamp())
        row = (event.mark, event.is_stored, event.is_in_doubt, *place, *order, event.model_dump_json())
        self._rows.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def stored(self) -> Iterator[Event]:
        """What was written, object by object: a namespace's versions, its rollouts, its orders.

        Those of one object in the order in which etcd took them, which no clock can turn around; its deletion last.
        """
        return _events(self._rows.execute(_STORED))

    def refused(self) -> Iterator[Event]:
        """What changed nothing, by time: it was denied, or only played."""
        return _events(self._rows.execute(_REFUSED))

    def in_doubt(self, about: Event, since: datetime, until: datetime) -> Iterator[Event]:
        """Writes to an object that were answered with 5xx, and may have been stored nonetheless."""
        place = (about.namespace, ALL.index(about.resource), about.name)
        return _events(self._rows.execute(_IN_DOUBT, (*place, since.timestamp(), until.timestamp())))

    def beats(self) -> Iterator[Beat]:
        """Renewals, lease by lease, by time."""
        rows = self._rows.execute("SELECT data FROM beats ORDER BY lease, at, data")
        return (Beat.model_validate_json(data) for (data,) in rows)

    def unanswered(self) -> Iterator[datetime]:
        """When writes were asked for of which the log does not say what came of them."""
        return (datetime.fromtimestamp(at, UTC) for (at,) in self._rows.execute(_UNANSWERED))

    def is_silent_between(self, since: datetime, until: datetime) -> bool:
        """Whether the log holds nothing at all of some whole minute in between."""
        first, end = int(-(-since.timestamp() // 60)), int(until.timestamp() // 60)
        (seen,) = self._rows.execute(
            "SELECT COUNT(*) FROM minutes WHERE minute >= ? AND minute < ?", (first, end)
        ).fetchone()
        return bool(seen < end - first)


def _events(rows: Iterable[tuple[str]]) -> Iterator[Event]:
    return (Event.model_validate_json(data) for (data,) in rows)
