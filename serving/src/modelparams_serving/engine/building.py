"""Versions that are being built: loaded from an arena, started and warmed up; the engine's leaving ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from modelparams.errors import EngineUnavailable, IndexInvalid
from modelparams.protocol import Prepare
from modelparams_serving.engine.arena_files import ArenaFile
from modelparams_serving.engine.background import Background
from modelparams_serving.engine.library import Library

if TYPE_CHECKING:
    from modelparams_serving.engine.residents import ResidentVersion, Schema

Beside = Callable[[], "Schema | None"]
"""The schema of what is current, asked for when the library is there: it may be another one by then."""


class Builder:
    """Builds versions, and lets go of them when the engine leaves."""

    def __init__(self, library: Library, background: Background) -> None:
        self._library, self._background = library, background
        self._building: set[asyncio.Task[ResidentVersion]] = set()
        self._is_closed = False

    def require_open(self) -> None:
        """Refuse orders when the engine leaves: that says nothing of the version, which the next engine gets.

        Raises:
            EngineUnavailable: it does.
        """
        if self._is_closed:
            raise _leaving()

    async def build(self, arena: ArenaFile, order: Prepare, beside: Beside) -> ResidentVersion:
        """Check a filled arena, build its model and warm it up. Errors as `residents.load`.

        `close` ends it: a version that began to run after that would never end.

        Raises:
            EngineUnavailable: the engine is leaving.
        """
        task = asyncio.create_task(self._built(arena, order, beside))
        self._building.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if task.cancelled() and self._is_closed:
                raise _leaving() from None
            task.cancel()
            raise
        finally:
            self._building.discard(task)

    async def _built(self, arena: ArenaFile, order: Prepare, asked: Beside) -> ResidentVersion:
        if arena.capacity == 0:
            raise IndexInvalid(f"slot {order.slot} has no arena yet")
        load = await self._library.loader()
        beside = asked()
        version = await self._background.run(
            lambda: load(memoryview(arena.map()), order.index, order.resident, beside=beside)
        )
        try:
            version.start()
            await version.warm_up(beside)
        except BaseException:
            await self._background.run(version.stop)
            raise
        return version

    async def close(self) -> None:
        """End what is being built, and take no more. A load may still run on its thread."""
        self._is_closed = True
        building = tuple(self._building)
        for task in building:
            task.cancel()
        await asyncio.gather(*building, return_exceptions=True)


def _leaving() -> EngineUnavailable:
    return EngineUnavailable("the engine is leaving")
