"""The one staging that runs beside the loop: it takes an arena only when the loop gives one, and may be left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from dataclasses import replace

import structlog

from modelparams import errors
from modelparams.api.release import Release
from modelparams.digest import Digest
from modelparams.protocol import EngineState, Reserve, Slot
from modelparams_serving.agent.memory import Filled, Underway
from modelparams_serving.agent.order import Order
from modelparams_serving.agent.staging import Stages, Ticket

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class StagingTask:
    """At most one at a time.

    Args:
        stages: does the work.
        filled: told of an arena that was filled, and of the floor that its manifest sets.
        failed: told of an error, with the name and digest of the version, and the order's attempt.
        changed: told that it asks for an arena, or has ended.
    """

    def __init__(
        self,
        stages: Stages,
        *,
        filled: Callable[[Filled, int], None],
        failed: Callable[[Exception, str, Digest, str], None],
        changed: Callable[[], None],
    ) -> None:
        self._stages, self._filled, self._failed, self._changed = stages, filled, failed, changed
        self._underway: Underway | None = None
        self._ticket: Ticket | None = None
        self._task: asyncio.Task[None] | None = None
        self._arena: asyncio.Future[EngineState] | None = None

    @property
    def underway(self) -> Underway | None:
        """How far it is; None: nothing is being staged."""
        if self._underway is None or self._ticket is None:
            return None
        return replace(self._underway, percent=self._ticket.percent)

    def begin(self, release: Release, attempt: str, *, floor: int, resident: tuple[Release, Slot] | None) -> None:
        """Stage `release`, with the rest as a `Ticket` has it."""
        self._ticket = Ticket(release, floor=floor, resident=resident)
        self._underway = Underway(release)
        self._task = asyncio.create_task(self._run(self._ticket, attempt))

    async def give(self, arena: Awaitable[EngineState]) -> None:
        """Let the staging go on with what the engine answers, or fail as the engine says."""
        assert self._arena
        assert self._underway
        self._underway = replace(self._underway, asks=0)
        try:
            state = await arena
        except errors.ModelParamsError as error:
            self._arena.set_exception(error)
            return
        self._arena.set_result(state)

    def cancel(self) -> None:
        """Not awaited: it may hang in a read, and what is to be served must not wait for that."""
        if self._ticket and self._underway:
            self._ticket.cancel()
            self._underway = replace(self._underway, is_cancelled=True, asks=0)
        if self._arena and not self._arena.done():
            self._arena.set_exception(CancelledError())

    async def stop(self) -> None:
        """Give it up, without waiting long for its threads."""
        self.cancel()
        if self._task:
            await asyncio.wait([self._task], timeout=1.0)

    async def _run(self, ticket: Ticket, attempt: str) -> None:
        release = ticket.release
        try:
            staged = await self._stages.stage(ticket, self._reserve)
        except CancelledError:
            logger.info("Staging cancelled", version=release.version_name)
        except Exception as error:
            self._failed(error, release.version_name, release.manifest_digest, attempt)
        else:
            logger.info("Verified and opened", version=release.version_name, fetched=staged.filled.fetched_bytes)
            self._filled(staged.filled, staged.floor)
        self._underway = None
        self._changed()

    async def _reserve(self, request: Reserve) -> EngineState:
        """Wait for an arena: which may be taken is decided by the order of that time, not of the staging's begin."""
        if self._underway is None or self._underway.is_cancelled:
            raise CancelledError
        self._arena = asyncio.get_running_loop().create_future()
        self._underway = replace(self._underway, asks=request.size)
        self._changed()
        return await self._arena


def served(order: Order | None, engine: EngineState | None) -> tuple[Release, Slot] | None:
    """The release that is current, if the order tells where it came from, and its slot."""
    if order is None or engine is None or engine.current is None:
        return None
    digest = engine.current.manifest_digest
    release = next((release for release in order.releases if release.manifest_digest == digest), None)
    slot = engine.slot_of(digest)
    return (release, slot) if release and slot else None
