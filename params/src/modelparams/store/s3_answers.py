"""How much of an answer is read into memory: who names a store must not be able to fill whoever asks it.

Bodies of objects are streamed into a buffer of the caller's. All others (an error's, a list's) botocore reads whole,
however long they are.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from urllib3.response import HTTPResponse

WHOLE_LIMIT = 8 << 20
"""Bytes. A full list has 1,000 keys of at most 1,024 bytes, and some hundred beside each; an error a few hundred."""


class AnswerTooLong(OSError):
    """The answer was broken off."""


class _Bounded(HTTPResponse):
    def stream(self, *arguments: Any, **named: Any) -> Generator[bytes, None, None]:
        """As urllib3's, by which botocore reads what it reads whole, up to the limit."""
        left = WHOLE_LIMIT
        for piece in super().stream(*arguments, **named):
            left -= len(piece)
            if left < 0:
                self.close()
                raise AnswerTooLong
            yield piece


def bounded(answer: Any) -> Any:
    """The same answer, which cannot be read whole beyond the limit. Its class is exchanged: urllib3 takes none."""
    answer.__class__ = _Bounded
    return answer
