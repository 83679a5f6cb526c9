"""How much of an answer is read into memory: who names a store must not be able to fill whoever asks it.

Bodies of objects are streamed into a buffer of the caller's. All others (an error's, a list's) botocore reads whole,
however long they are.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from urllib3.response import HTTPResponse

LIST_LIMIT, ERROR_LIMIT = 8 << 20, 64 << 10
"""Bytes. A full list has 1,000 keys of at most 1,024 bytes, and some hundred beside each; an error a few hundred. What
XML's parser makes of an error is up to a hundred times as large."""
_DEFINES = b"<!DOCTYPE"
"""Whose entities make a hundred times as much of a list; no store sends any."""


class AnswerRefused(OSError):
    """The answer was broken off."""


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
