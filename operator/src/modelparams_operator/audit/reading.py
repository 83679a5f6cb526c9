"""Logs → what their lines hold, one at a time: files may be many GB, zipped, cut, and hold anything."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

LINE_MAX = 16 << 20
"""Bytes of a line. The API server takes objects of 3 MB, and an event holds a request and its answer."""
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line of a log holds, or why it cannot be read: then that is missing. Lines are counted from 1."""

    line: int
    document: Any = None
    fault: str = ""


def entries(stream: io.BufferedReader) -> Iterator[Entry]:
    """Each event of a log, as JSON decoding gives it; an empty line holds none.

    A last line that was cut short is no fault: the log is being written. In a zipped one it is.
    """
    is_zipped = stream.peek(2)[:2] == _GZIP
    source: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if is_zipped else stream
    number = 0
    try:
        while line := source.readline(LINE_MAX + 1):
            number += 1
            if len(line) > LINE_MAX and not line.endswith(b"\n"):
                _pass_over(source)
                yield Entry(number, fault=f"is longer than {LINE_MAX >> 20} MiB")
            elif line.strip():
                yield from _entries(line, number, may_be_cut=not is_zipped and not line.endswith(b"\n"))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        yield Entry(number + 1, fault="cannot be unzipped: the file is damaged or cut short")


def _pass_over(source: IO[bytes]) -> None:
    while (rest := source.readline(_PIECE)) and not rest.endswith(b"\n"):
        pass


def _entries(line: bytes, number: int, *, may_be_cut: bool) -> Iterator[Entry]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        if not may_be_cut:
            yield Entry(number, fault="is no JSON")
        return
    if isinstance(found, dict) and found.get("kind") == "EventList" and isinstance(found.get("items"), list):
        head = {"kind": "Event", "apiVersion": found.get("apiVersion")}  # a list's events do not say it again
        yield from (Entry(number, {**head, **one} if isinstance(one, dict) else one) for one in found["items"])
    else:
        yield Entry(number, found)
