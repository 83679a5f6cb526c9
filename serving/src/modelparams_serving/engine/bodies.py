"""Requests' bodies: how long they are, how long they take, how many come at once, and how much JSON is in one.

And long answers, which share the bodies' memory and, while they are taken slowly, their fate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from starlette.requests import Request

from modelparams_serving.engine.body_budget import LITTLE, Budget
from modelparams_serving.engine.refusals import Refused
from modelparams_serving.engine.settings import EngineSettings

_FIELDS = 1 << 15
"""Lists, objects and keys of a request, or its values beside the token ids of a prompt: 2,048 messages have fewer."""
_SLOW = 1 << 12
"""Bytes a second. Who is a second behind that gives way: a phone sends a hundred times as many, a trickle never."""
_LONGEST_AT_ONCE = 32
"""So many of the longest bodies may be under way; of shorter ones more."""
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Moving:
    """A body that has not come whole yet, or an answer that has not gone. `deadline` is when it is left."""

    owner: object
    """Whom its memory counts for."""
    deadline: asyncio.Timeout
    pace: float
    """Bytes a second that it should have at least."""
    size: int = 0
    _waited: float = 0.0
    _since: float | None = None

    @property
    def behind(self) -> float:
        """For so many seconds longer was it waited for than for one that moves at that pace."""
        waiting = 0.0 if self._since is None else monotonic() - self._since
        return self._waited + waiting - self.size / self.pace

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """While the other end is waited for. The time that we take ourselves is not held against it."""
        self._since = monotonic()
        try:
            yield
        finally:
            self._waited, self._since = self._waited + monotonic() - self._since, None


Going = contextlib.AbstractAsyncContextManager[_Moving | None]


class Bodies:
    """Reads them."""

    def __init__(self, settings: EngineSettings) -> None:
        """Take as many at once as there may be requests, since those that come are in memory too."""
        self._most, self._seconds = settings.max_body_bytes, settings.stalled_seconds
        self._at_once, self._moving = settings.max_requests, set[_Moving]()
        self._budget, self._turn = Budget(_LONGEST_AT_ONCE * self._most), asyncio.Lock()

    async def read(self, request: Request) -> bytes:
        """The whole body. One that is there already waits for nothing and nobody. `forget` the request afterwards.

        Raises:
            Refused: 503, as many come already as may, or have as many bytes; 413, it is too long; 408, it does not
                end, or comes too slowly while another would begin.
            ClientDisconnect: it did not come whole.
        """
        has_place = len(self._moving) < self._at_once or self._made_room(self._moving)
        try:
            async with asyncio.timeout(self._seconds if has_place else 0) as deadline:
                return await self._read(request, deadline)
        except TimeoutError as error:
            if not has_place:
                raise Refused(503, "too many requests are under way", code="overloaded") from error
            message = (
                f"the request's body did not end within {self._seconds:g} seconds, or came too slowly while others "
                "waited; send it again, whole"
            )
            raise Refused(408, message, code="request_timeout") from error

    def forget(self, request: Request) -> None:
        """It is answered: what its body took is free. Until then its texts are in memory, whatever they were made."""
        self._budget.give_back(request)

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[object]:
        """Count an answer of `size` bytes from before it is made until it is taken. Gives whom it counts for.

        Raises:
            Refused: 413, it is more than all may have together; 503, others have it.
        """
        owner = object()
        if size > self._budget.most:
            message = (
                f"the answer would take {size} bytes of the {self._budget.most} that there are; ask for fewer texts"
            )
            raise Refused(413, message, code="too_large")
        while not self._budget.take(owner, size):
            if not self._made_room(self._with_memory(owner)):
                message = "the answers to other requests take all the memory that there is; ask again in a moment"
                raise Refused(503, message, code="overloaded")
        try:
            yield owner
        finally:
            self._budget.give_back(owner)

    @contextlib.asynccontextmanager
    async def going(self, owner: object, size: int) -> AsyncIterator[_Moving]:
        """While an answer of about `size` bytes is sent: who takes it slowly gives way to others, by TimeoutError.

        Only what is `awaited` counts: on a busy engine all answers are slow, and each newcomer would have one cut.
        """
        async with asyncio.timeout(None) as deadline:
            going = _Moving(owner, deadline, max(_SLOW, size / self._seconds))
            self._moving.add(going)
            try:
                yield going
            finally:
                self._moving.discard(going)

    async def one_by_one(self, body: bytes, work: Callable[[], T]) -> T:
        """Do `work` on the loop, on long bodies one after another, with as much time between two for everybody else.

        A thread would not help: JSON is parsed in one call that lets no other run, 10 ms for a long one.
        """
        if len(body) <= LITTLE:
            return work()
        async with self._turn:
            began = monotonic()
            try:
                return work()
            finally:
                await asyncio.sleep(monotonic() - began)

    def _with_memory(self, but: object) -> Iterator[_Moving]:
        return (one for one in self._moving if one.owner is not but and self._budget.taken_by(one.owner))

    def _made_room(self, among: Iterable[_Moving]) -> bool:
        """Leave who is furthest behind: else some hundred clients that send a byte now and then are all there are."""
        slowest = max(among, key=lambda coming: coming.behind, default=None)
        if slowest is None or slowest.behind < 1.0:
            return False
        self._moving.discard(slowest)
        self._budget.give_back(slowest.owner)
        if not slowest.deadline.expired():
            slowest.deadline.reschedule(0.0)
        return True

    async def _read(self, request: Request, deadline: asyncio.Timeout) -> bytes:
        announced = int(request.headers.get("content-length", 0))
        # To end in time a long one has to come faster than any has to: else 32 could keep all room, and send nothing.
        coming = _Moving(request, deadline, max(_SLOW, announced / self._seconds))
        self._moving.add(coming)
        try:
            self._count(coming, announced)
            found = bytearray()
            with coming.awaited():
                async for piece in request.stream():
                    found += piece
                    coming.size = len(found)
                    self._count(coming, coming.size)
            return bytes(found)
        finally:
            self._moving.discard(coming)

    def _count(self, coming: _Moving, size: int) -> None:
        if size > self._most:
            raise Refused(413, f"a request may have {self._most} bytes at most", code="too_large")
        while not self._budget.take(coming.owner, size):
            if not self._made_room(self._with_memory(coming.owner)):
                raise Refused(
                    503,
                    "the bodies of other requests take all the memory that there is for long ones; send it again in a "
                    f"moment, or a shorter one: up to {LITTLE} bytes need none of it",
                    code="overloaded",
                )


def check_values(body: bytes, context: int) -> None:
    """Count what a long body's JSON holds before objects are made of it: a million lists hold the loop for a second.

    Raises:
        Refused: 400, more than a request that fits `context` tokens can need.
    """
    if len(body) <= LITTLE:
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
