"""Carries the agent's orders out: what `swap_state` allows, done to arenas and resident versions.

Everything here runs on one event loop. Requests begin there too, so a commit needs no lock: while it runs, which is
the time it reports, no request can start, and each request starts either before it or after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from modelparams.digest import Digest
from modelparams.errors import IllegalTransition, StaleTerm, SwapFailed
from modelparams.protocol import (
    Commit,
    Discard,
    EngineState,
    Prepare,
    Reserve,
    Rollback,
    Slot,
    SlotPhase,
)
from modelparams_serving.engine.arena_files import ArenaFile
from modelparams_serving.engine.background import Background
from modelparams_serving.engine.building import Builder
from modelparams_serving.engine.library import Library
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.place import Place
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.swap_state import Happening, after, slot_to_fill

if TYPE_CHECKING:
    from modelparams_serving.engine.residents import ResidentVersion, Schema

_SERVING = (SlotPhase.CURRENT, SlotPhase.DRAINING)


class NoVersion(Exception):
    """Nothing is current yet."""


class Swapper:
    """The two slots and the name "current"."""

    def __init__(self, settings: EngineSettings, library: Library, metrics: Metrics) -> None:
        self._library, self._metrics = library, metrics
        self._places = {slot: Place(slot, ArenaFile(settings.runtime_dir / slot.file_name)) for slot in Slot}
        self._instance, self._term = uuid.uuid4().hex[:12], 0
        self._current: Place | None = None
        self._previous: Digest | None = None
        self._background = Background()
        self._builder = Builder(library, self._background)

    # ---- what requests use

    @contextlib.contextmanager
    def lease(self) -> Iterator[ResidentVersion]:
        """Hold the current version for one request: it stays resident until the request has ended.

        Raises:
            NoVersion: nothing is current.
        """
        place = self._current
        if place is None or place.version is None:
            raise NoVersion
        version = place.version
        version.requests += 1
        try:
            yield version
        finally:
            version.requests -= 1
            place.settle()

    @property
    def current(self) -> ResidentVersion | None:
        """What a request that starts now would begin on."""
        return self._current.version if self._current else None

    @property
    def starting(self) -> bool:
        """True while what builds versions is being imported: arenas are given, nothing is prepared yet."""
        return not self._library.is_there

    @property
    def healthy(self) -> bool:
        """False when a thread that serves has ended: only a restart helps, and it comes back from the arena."""
        return all(p.version.service.alive for p in self._places.values() if p.version and p.phase in _SERVING)

    @property
    def requests(self) -> int:
        """Requests under way."""
        return sum(p.version.requests for p in self._places.values() if p.version)

    # ---- orders

    def state(self, *, slot: Slot | None = None, pause: int | None = None) -> EngineState:
        """Say how everything is now."""
        return EngineState(
            instance=self._instance,
            slots={slot: place.state() for slot, place in self._places.items()},
            slot=slot,
            pause_microseconds=pause,
            term=self._term,
            starting=self.starting,
        )

    async def reserve(self, order: Reserve) -> EngineState:
        """Make an arena ready to be filled. Errors as `slot_to_fill` and `ArenaFile.ensure`."""
        self.require_open()
        slot = slot_to_fill({slot: place.state() for slot, place in self._places.items()}, order.manifest_digest)
        place = self._places[slot]
        place.move(Happening.RESERVED)
        place.filling = order.manifest_digest
        await self._drop(place)
        try:
            await self._background.run(partial(place.arena.ensure, order.size))
        except BaseException:
            place.empty(Happening.REFUSED)
            raise
        return self.state(slot=slot)

    async def prepare(self, order: Prepare) -> EngineState:
        """Check a filled arena, build its model and warm it up. Errors as `residents.load`; the slot is then empty.

        Waits until the library is there; a wise agent asks for the state until it is.
        """
        self.require_open()
        place, digest = self._places[order.slot], order.resident.manifest_digest
        if place.is_dead:
            place.empty(Happening.DISCARDED)
            await self._drop(place)
        if place.version is not None and place.version.identity == order.resident:
            return self.state(slot=order.slot)
        if place.phase is SlotPhase.FILLING and place.filling != digest:
            raise IllegalTransition(f"slot {order.slot} is reserved for another version than {digest.short}")
        after(place.phase, Happening.BUILT, slot=order.slot)
        try:
            place.version = await self._builder.build(place.arena, order, self._schema)
        except BaseException:
            place.empty(Happening.REFUSED)
            raise
        place.filling = None
        place.move(Happening.BUILT)
        return self.state(slot=order.slot)

    def commit(self, order: Commit) -> EngineState:
        """Make a resident version current.

        Raises:
            StaleTerm: a higher term has ordered already.
            IllegalTransition: the version is not resident.
            SwapFailed: it cannot serve.
        """
        started = time.perf_counter_ns()
        self.require_open()
        self._check_term(order.term)
        place = self._find(order.manifest_digest)
        if place is None or place.version is None:
            raise IllegalTransition(f"{order.manifest_digest.short} is not resident; prepare it first")
        if not place.version.service.alive:
            raise SwapFailed(f"the thread that serves {place.version.identity.version_name} has ended")
        self._make_current(place)
        self._term = order.term or self._term
        pause = -(-(time.perf_counter_ns() - started) // 1000)
        self._metrics.swapped(place.version.identity, pause)
        return self.state(slot=place.slot, pause=pause)

    def _make_current(self, place: Place) -> None:
        before = self._current
        place.move(Happening.COMMITTED)
        if before is place:
            return
        if before is not None and before.version is not None:
            before.move(Happening.SUPERSEDED)
            self._previous = before.version.identity.manifest_digest
        self._current = place  # the swap
        if before is not None:
            before.settle()

    def rollback(self, order: Rollback) -> EngineState:
        """Make the version that was current before current again. Errors as `commit`."""
        if self._previous is None or self._find(self._previous) is None:
            raise IllegalTransition("no previous version is resident")
        return self.commit(Commit(manifest_digest=self._previous, term=order.term))

    async def discard(self, order: Discard) -> EngineState:
        """Forget a version or a filling; one that is unknown is forgotten already.

        Raises:
            IllegalTransition: it is current.
            SlotBusy: requests still run on it.
        """
        self.require_open()
        for place in self._places.values():
            held = place.version.identity.manifest_digest if place.version else place.filling
            if held == order.manifest_digest:
                place.empty(Happening.DISCARDED)
                await self._drop(place)
        return self.state()

    # ---- parts

    def require_open(self) -> None:
        """Refuse orders when the engine leaves. Errors as `Builder.require_open`."""
        self._builder.require_open()

    def _schema(self) -> Schema | None:
        return self.current.schema if self.current else None

    def _check_term(self, term: int) -> None:
        if term and term < self._term:
            raise StaleTerm(f"the order is of term {term}, the engine has seen {self._term}")

    def _find(self, digest: Digest) -> Place | None:
        return next(
            (p for p in self._places.values() if p.version and p.version.identity.manifest_digest == digest), None
        )

    async def _drop(self, place: Place) -> None:
        """Free what the slot held; the arena file stays."""
        version, place.version = place.version, None
        if version is not None:
            await self._background.run(version.stop)
            del version
            await self._background.run(gc.collect)  # a model's modules refer to each other in circles
            self._metrics.keep_only({str(p.version.identity.version) for p in self._places.values() if p.version})

    async def close(self) -> None:
        """End all threads, also those of a version that is just being built. Waits for no load, and for no arena."""
        self._current = None
        await self._builder.close()
        for place in self._places.values():
            version, place.version = place.version, None
            if version is not None:
                await asyncio.to_thread(version.stop)
        self._background.close()
