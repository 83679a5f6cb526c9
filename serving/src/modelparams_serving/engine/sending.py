"""An answer on its way to a client that may leave, or stall: then what was held for it is given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from modelparams_serving.engine.bodies import Going
from modelparams_serving.engine.refusals import Refused

_log = structlog.get_logger("engine.http")
CLIENT_GONE = 499  # nobody reads it; it is for the metrics
T = TypeVar("T")


class Pieces(StreamingResponse):
    """Gives back what it holds, `stack`, however it ends, also if it never began or nobody reads it."""

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        head: dict[str, str],
        kind: str,
        stack: contextlib.ExitStack,
        *,
        stalled_seconds: float,
        going: Going | None = None,
    ) -> None:
        super().__init__(content, headers=head, media_type=kind)
        self._content, self.stack, self._stalled = content, stack, stalled_seconds
        self._going = going or contextlib.nullcontext(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See Starlette's."""

        async def sent(message: Any) -> None:
            with going.awaited() if going else contextlib.nullcontext():
                async with asyncio.timeout(self._stalled):
                    await send(message)
            if going:
                going.size += len(message.get("body", b""))

        with self.stack:
            try:
                async with self._going as going:
                    await super().__call__(scope, receive, sent)
            except (TimeoutError, ClientDisconnect):
                _log.info("left a client that took nothing more, or too slowly", seconds=self._stalled)
            finally:
                await self._content.aclose()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it when the client leaves."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused(CLIENT_GONE, "the client left", code="client_gone")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
