"""Requests' bodies: how long they are, how long they take, how many come at once, and how much JSON is in one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

from starlette.requests import Request

from modelparams_serving.engine.refusals import Refused
from modelparams_serving.engine.settings import EngineSettings

_LITTLE = 1 << 16
"""Bytes that are parsed in some ms whatever is in them."""
_FIELDS = 1 << 15
"""Lists, objects and keys of a request, or its values beside the token ids of a prompt: 2,048 messages have fewer."""
_SLOW = 1 << 12
"""Bytes a second. Who is a second behind that gives way: a phone sends a hundred times as many, a trickle never."""


@dataclass(slots=True, eq=False)
class _Coming:
    """A body that has not come whole yet. `deadline` is when it is left."""

    deadline: asyncio.Timeout
    since: float
    size: int = 0

    @property
    def behind(self) -> float:
        """By so many seconds one that comes at the slowest pace would have come earlier."""
        return monotonic() - self.since - self.size / _SLOW


class Bodies:
    """Reads them."""

    def __init__(self, settings: EngineSettings) -> None:
        """Take as many at once as there may be requests, since those that come are in memory too."""
        self._most, self._seconds = settings.max_body_bytes, settings.stalled_seconds
        self._at_once, self._coming = settings.max_requests, set[_Coming]()

    async def read(self, request: Request) -> bytes:
        """The whole body. One that is there already waits for nothing and nobody.

        Raises:
            Refused: 503, as many come already as may; 413, it is too long; 408, it does not end, or comes too slowly
                while another would begin.
            ClientDisconnect: it did not come whole.
        """
        has_place = len(self._coming) < self._at_once or self._made_room()
        try:
            async with asyncio.timeout(self._seconds if has_place else 0) as deadline:
                return await self._read(request, _Coming(deadline, monotonic()))
        except TimeoutError as error:
            if not has_place:
                raise Refused(503, "too many requests are under way", code="overloaded") from error
            message = (
                f"the request's body did not end within {self._seconds:g} seconds, or came too slowly while others "
                "waited; send it again, whole"
            )
            raise Refused(408, message, code="request_timeout") from error

    def _made_room(self) -> bool:
        """Leave who is furthest behind: else some hundred clients that send a byte now and then are all there are."""
        slowest = max(self._coming, key=lambda coming: coming.behind)
        if slowest.behind < 1.0:
            return False
        self._coming.discard(slowest)
        if not slowest.deadline.expired():
            slowest.deadline.reschedule(0.0)
        return True

    async def _read(self, request: Request, coming: _Coming) -> bytes:
        self._coming.add(coming)
        try:
            return await _read(request, self._most, coming)
        finally:
            self._coming.discard(coming)


async def _read(request: Request, most: int, coming: _Coming) -> bytes:
    too_large = Refused(413, f"a request may have {most} bytes at most", code="too_large")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    found = bytearray()
    async for piece in request.stream():
        found += piece
        coming.size = len(found)
        if len(found) > most:
            raise too_large
    return bytes(found)


def check_values(body: bytes, context: int) -> None:
    """Count what a long body's JSON holds before objects are made of it: a million lists hold the loop for a second.

    Raises:
        Refused: 400, more than a request that fits `context` tokens can need.
    """
    if len(body) <= _LITTLE:
        return
    nested, values = _counted(body, most := context + _FIELDS)
    if nested > _FIELDS or values > most:
        raise Refused(
            400,
            f"the request holds more JSON values than {context} tokens, all that this model takes, can need",
            code="context_length_exceeded",
        )


def _counted(body: bytes, most: int) -> tuple[int, int]:
    """Give how many lists, objects and keys a JSON text has, and how many values; past `most` any more will do."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    texts = bare.count(b'"') // 2  # keys among them
    if texts > 2 * most:
        return 0, texts
    outside = b"".join(bare.split(b'"')[::2])
    lists = outside.count(b"[") + outside.count(b"{")
    return lists + outside.count(b":"), lists + outside.count(b",")
