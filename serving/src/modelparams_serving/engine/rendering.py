"""Chat templates are programs of the publisher's and may go on without end: a few at once, and none waited for long."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TypeVar

_AT_ONCE = 4
_SECONDS = 10.0
"""For its end; a template takes some ms, and tokens of the longest prompt take a second."""
_STILL_SECONDS = 10.0
"""A line in which nobody moved for so long stands behind templates without end."""
T = TypeVar("T")


class Renderer:
    """The places of one version: what does not end keeps its own, and none of the version's that follows."""

    def __init__(self) -> None:
        self._places, self._moved_at = asyncio.Semaphore(_AT_ONCE), monotonic()

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a thread.

        Raises:
            TimeoutError: no place came free for so long, or it did not end; then it keeps its place until it does.
        """
        await self._place()
        async with asyncio.timeout(_SECONDS):
            return await self._begun(work)

    async def _place(self) -> None:
        """Wait in line as long as it moves: of many long conversations at once each takes its time."""
        while True:
            try:
                async with asyncio.timeout(_STILL_SECONDS):
                    await self._places.acquire()
                    return
            except TimeoutError:
                if monotonic() - self._moved_at >= _STILL_SECONDS:
                    raise

    def _begun(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(give: Callable[[], None]) -> None:
            self._places.release()
            self._moved_at = monotonic()
            if not done.done():
                give()

        def run() -> None:
            try:
                give = partial(done.set_result, work())
            except Exception as error:
                give = partial(done.set_exception, error)
            except BaseException as panic:  # of the tokenizer's Rust: no Exception, and not to be raised on the loop
                give = partial(done.set_exception, RuntimeError(f"the tokenizer gave up: {type(panic).__name__}"))
            with contextlib.suppress(RuntimeError):  # the loop is closed: the engine leaves
                loop.call_soon_threadsafe(settle, give)

        # A daemon: the engine has to be able to leave.
        try:
            threading.Thread(target=run, name="render", daemon=True).start()
        except BaseException:
            self._places.release()
            raise
        return done
