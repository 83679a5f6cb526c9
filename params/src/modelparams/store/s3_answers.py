"""What is taken for an answer, and how much of it into memory.

Who names a store must not be able to fill whoever asks it. Bodies of objects are streamed into a buffer of the
caller's. All others (an error's, a list's) botocore reads whole, however long they are, and http.client heads of 100
lines of 64 KiB, and as many interim ones before them as come.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from urllib3.response import HTTPResponse

from modelparams.store.s3_deadline import break_off

LIST_LIMIT, ERROR_LIMIT, HEAD_LIMIT = 8 << 20, 64 << 10, 64 << 10
"""Bytes. A full list has 1,000 keys of at most 1,024 bytes, and some hundred beside each; an error a few hundred. What
XML's parser makes of an error is up to a hundred times as large. A head has a few hundred, interim ones included."""
_DEFINES = b"<!DOCTYPE"
"""Whose entities make a hundred times as much of a list; no store sends any."""


class AnswerRefused(OSError):
    """The answer was broken off."""


class Answer(http.client.HTTPResponse):
    """http.client's, with a limit for its head, behind which comes its body, behind which comes nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._stream: Any = self.fp
        self.fp: Any = _Head(self._stream)
        self._status_line: tuple[str, int, str] | None = None

    def has_begun(self) -> bool:
        """Whether any of it is here, before any of it was read."""
        return _has_more(self._stream)

    def invites(self) -> bool:
        """Whether the body of the request may follow; what the server says instead is kept for `begin`."""
        line = self._read_status()
        if line[1] != http.client.CONTINUE:
            self._status_line = line
            return False
        while self.fp.readline() not in (b"\r\n", b"\n", b""):
            pass
        return True

    def begin(self) -> None:
        """Read the head."""
        super().begin()
        self.fp = self._stream  # so that nothing stands between a body and its reader
        if "Transfer-Encoding" in self.headers:
            del self.headers["Content-Length"]  # it does not count (RFC 9112, 6.3), and is not to be believed

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = self._status_line or super()._read_status()  # type: ignore[misc]
        # All interim answers are passed over (RFC 9110, 15.2); `begin` knows 100 alone.
        return version, http.client.CONTINUE if 100 <= status < 200 else status, reason

    def _close_conn(self) -> None:
        # What follows an answer would pass for the next request's.
        if self.will_close is False and _has_more(self._stream):
            break_off(self._stream.raw._sock)
        super()._close_conn()  # type: ignore[misc]


class _Head:
    """A connection's stream, of which no more lines are read than a head can have."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self._left = stream, HEAD_LIMIT

    def readline(self, _: int = -1) -> bytes:
        line = self._stream.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise AnswerRefused
        if not line.endswith(b"\n") and self._left < HEAD_LIMIT:  # http.client takes an end for that of the head
            raise http.client.IncompleteRead(line)
        return line

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _has_more(stream: Any) -> bool:
    """Whether bytes are there; waits for none.

    urllib3 asks the socket alone before a connection serves again: `stream` and TLS may have read them already.
    """
    with suppress(OSError):  # with nothing there TLS raises; a dead socket shows as it is used
        sock = stream.raw._sock
        patience = sock.gettimeout()
        sock.settimeout(0)
        try:
            return bool(stream.peek(1))
        finally:
            sock.settimeout(patience)
    return False


class _Bounded(HTTPResponse):
    def stream(self, *arguments: Any, **named: Any) -> Generator[bytes, None, None]:
        """As urllib3's, by which botocore reads what it reads whole, up to the limit."""
        left, before = ERROR_LIMIT if self.status >= 300 else LIST_LIMIT, b""
        for piece in super().stream(*arguments, **named):
            left -= len(piece)
            if left < 0 or _DEFINES in before + piece:
                self.close()
                raise AnswerRefused
            before = piece[1 - len(_DEFINES) :]
            yield piece


def bounded(answer: Any) -> Any:
    """The same answer, which cannot be read whole beyond the limit. Its class is exchanged: urllib3 takes none."""
    answer.__class__ = _Bounded
    return answer
