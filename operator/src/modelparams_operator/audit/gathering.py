"""Files → a shelf with what they hold. The only place that opens a log."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from modelparams.errors import UsageError
from modelparams_operator.audit.events import read
from modelparams_operator.audit.gaps import Gap, Kind
from modelparams_operator.audit.reading import Entry, entries
from modelparams_operator.audit.shelf import Shelf


def gather(logs: Iterable[str], shelf: Shelf) -> list[Gap]:
    """Put what all logs hold on a shelf; gives what could not be read.

    Raises:
        UsageError: a file cannot be opened or read.
    """
    found = list[Gap]()
    for log in logs:
        try:
            with _opened(log) as stream:
                found += _gather(log, stream, shelf)
        except OSError as error:
            raise UsageError(f"{log} cannot be read ({error.strerror or error})", hint="name another file") from None
    return found


@contextlib.contextmanager
def _opened(log: str) -> Iterator[io.BufferedReader]:
    if log == "-":
        yield io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
        return
    with Path(log).open("rb") as stream:
        yield stream


@dataclass(slots=True)
class _Unreadable:
    """Lines of a file that cannot be read for one reason, counted: a file may hold nothing else."""

    line: int
    since: datetime | None
    until: datetime | None = None
    count: int = 0


def _gather(log: str, stream: io.BufferedReader, shelf: Shelf) -> list[Gap]:
    """The time of what cannot be read is that of its neighbours."""
    found, waiting, last = dict[str, _Unreadable](), list[_Unreadable](), None
    for entry in entries(stream):
        at, fault = _put(entry, shelf)
        if fault:
            lines = found.setdefault(fault, _Unreadable(entry.line, last))
            lines.count += 1
            if lines not in waiting:
                waiting.append(lines)
            continue
        for lines in waiting:
            lines.until = at
        waiting.clear()
        last = at
    return [_gap(log, fault, lines) for fault, lines in found.items()]


def _put(entry: Entry, shelf: Shelf) -> tuple[datetime | None, str]:
    """When it was, or why it cannot be read."""
    try:
        told = None if entry.fault else read(entry.document)
    except ValueError as error:
        return None, str(error)
    if told is None:
        return None, entry.fault
    shelf.put(told)
    return told.at, ""


def _gap(log: str, fault: str, lines: _Unreadable) -> Gap:
    name = "standard input" if log == "-" else log
    more = f" and {lines.count - 1} more" if lines.count > 1 else ""
    return Gap(Kind.UNREADABLE, lines.since, lines.until, f"{name}, line {lines.line}{more}: {fault}")
