"""The agent's one loop: observe, decide, act, report; again when something changed or time has come.

All that it does is decided in `decide`; all that it says is put together in `report`. It holds nothing that a restart
could not find again: the order is in the API server, the residents are in the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import structlog

from modelparams import errors
from modelparams.digest import Digest
from modelparams.failure import classify
from modelparams.protocol import Commit as CommitOrder
from modelparams.protocol import Discard as DiscardOrder
from modelparams.protocol import EngineState, Resident
from modelparams.protocol import Prepare as PrepareOrder
from modelparams.protocol import Reserve as ReserveOrder
from modelparams.reasons import Reason
from modelparams_serving.agent import metrics
from modelparams_serving.agent.decide import CancelStaging, Commit, Discard, Prepare, Reserve, Stage, Step, Wait, decide
from modelparams_serving.agent.engine_client import SLOW, Sent, is_loss
from modelparams_serving.agent.filled_arena import is_as_verified, still_holds
from modelparams_serving.agent.health import Pulse
from modelparams_serving.agent.memory import Failed, Filled, Memory, spoilt, unwell
from modelparams_serving.agent.order import Order
from modelparams_serving.agent.order_book import Orders
from modelparams_serving.agent.report import report
from modelparams_serving.agent.staging import Stages
from modelparams_serving.agent.staging_task import StagingTask, served
from modelparams_serving.agent.status_writer import StatusWriter

PROGRESS_TICK = 1.0
AFTER_FAILURE = 0.2
ENGINE_GRACE = timedelta(seconds=120)
_PASS_MAX = 2 * SLOW
"""Seconds: it asks for the state and gives an order. Nobody else asks anything of the engine."""
logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class Engine(Protocol):
    """The engine in this pod."""

    async def ask(self, request: Sent) -> EngineState:
        """Carry out an order; raises a SwapError or an IntegrityError."""

    async def state(self) -> EngineState:
        """What it holds; raises EngineUnavailable."""


def _now() -> datetime:
    return datetime.now(UTC)


class Agent:
    """Drives one engine by the orders for one pod."""

    def __init__(
        self,
        *,
        orders: Orders,
        runtime_dir: Path,
        engine: Engine,
        stages: Stages,
        writer: StatusWriter,
        engine_grace: timedelta = ENGINE_GRACE,
        now: Callable[[], datetime] = _now,
        pulse: Pulse | None = None,
    ) -> None:
        self._orders, self._runtime_dir = orders, runtime_dir
        self._engine, self._writer, self._now = engine, writer, now
        self._memory, self._pulse = Memory(), pulse or Pulse()
        self._engine_due = now() + engine_grace
        self._staging = StagingTask(stages, filled=self._filled, failed=self._failed, changed=orders.changed.set)

    async def run(self) -> None:
        """Loop for ever."""
        while True:
            self._orders.changed.clear()  # before looking: what changes during the pass is not lost
            self._pulse.next_within(_PASS_MAX)
            pause = await self.once()
            self._pulse.next_within(pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._orders.changed.wait()

    async def stop(self) -> None:
        """Give up a staging that runs, without waiting long for its threads. The engine serves on."""
        await self._staging.stop()

    async def once(self) -> float:
        """Do one pass and give the seconds until the next, unless something changes."""
        engine = await self._observe()
        order = self._accept()
        # After the engine was asked: the staging may have ended meanwhile.
        self._memory = replace(self._memory, underway=self._staging.underway)
        self._say(order, engine)
        step = decide(order, engine, self._memory, self._now())
        if isinstance(step, Wait):
            pause = max((step.until - self._now()).total_seconds(), 0.01)
            return min(pause, PROGRESS_TICK) if self._memory.underway else pause
        logger.info("Next step", step=type(step).__name__)
        try:
            await self._act(step, order, engine)
        except errors.ModelParamsError as error:
            logger.warning("Step refused", step=type(step).__name__, reason=error.reason, problem=error.message)
            return AFTER_FAILURE
        return 0.0

    async def _observe(self) -> EngineState | None:
        try:
            engine = await self._engine.state()
        except errors.EngineUnavailable as error:
            self._miss(error)
            return None
        metrics.ENGINE_UP.set(1)
        self._memory = replace(
            self._memory,
            engine_seen=True,
            engine_gone_at=None,
            filled=tuple(f for f in self._memory.filled if still_holds(self._runtime_dir, f, engine)),
            live=engine.current.manifest_digest if engine.current else self._memory.live,
            term=max(self._memory.term, engine.term),
        )
        return engine

    def _miss(self, error: errors.EngineUnavailable) -> None:
        metrics.ENGINE_UP.set(0)
        if not self._memory.engine_seen and self._now() < self._engine_due:
            return  # a pod's start: the agent is up first, and the engine's image may still be on its way
        if self._memory.engine_gone_at is None:
            logger.warning("Engine does not answer", reason=error.reason, problem=error.message)
            self._memory = replace(self._memory, engine_gone_at=self._now())

    def _accept(self) -> Order | None:
        if earlier := self._orders.earlier_life():
            self._memory = self._memory.adopting(earlier)
        order = self._orders.accept(self._memory.term)
        if order and not order.is_fallback:
            self._memory = replace(self._memory, term=max(self._memory.term, order.term))
        return order

    def _say(self, order: Order | None, engine: EngineState | None) -> None:
        if found := self._orders.own_assignment:
            status = report(
                order, engine, self._memory, pod_uid=self._orders.pod_uid, generation=self._orders.generation
            )
            self._writer.offer(found.uid, status, known=found.status)

    async def _act(self, step: Step, order: Order | None, engine: EngineState | None) -> None:
        attempt = order.attempt if order else ""
        match step:
            case Stage(release):
                resident = served(order, engine)
                self._staging.begin(release, attempt, floor=self._memory.floor, resident=resident)
            case CancelStaging():
                self._staging.cancel()
            case Reserve(digest, size):
                await self._staging.give(self._reserve(ReserveOrder(manifest_digest=digest, size=size)))
            case Prepare(filled):
                await self._prepare(filled, attempt)
            case Commit(resident, term):
                await self._commit(resident, term, attempt)
            case Discard(digest):
                self._memory = self._memory.without_filled(digest)
                await self._engine.ask(DiscardOrder(manifest_digest=digest))

    async def _reserve(self, request: ReserveOrder) -> EngineState:
        state = await self._engine.ask(request)
        if state.slot is not None:
            self._memory = self._memory.without_slot(state.slot)
        return state

    def _filled(self, filled: Filled, floor: int) -> None:
        self._memory = self._memory.having_filled(filled, floor)

    async def _prepare(self, filled: Filled, attempt: str) -> None:
        release = filled.release
        resident = Resident(
            version_name=release.version_name,
            model_name=release.model_name,
            version=release.version,
            manifest_digest=release.manifest_digest,
        )
        with self._blaming(resident, attempt, filled):
            if not await is_as_verified(self._runtime_dir, filled):
                self._spoilt(filled, attempt)
                return
            await self._engine.ask(PrepareOrder(slot=filled.slot, resident=resident, index=filled.index))
            self._memory = self._memory.having_taken(filled)

    def _refused_again(self, filled: Filled, error: errors.IntegrityError, attempt: str) -> None:
        """What an engine took once is no worse than it was: the arena was written to, or this engine is not well."""
        if isinstance(error, errors.IndexInvalid | errors.NotFinite):
            self._spoilt(filled, attempt)
        else:
            self._fail(Failed(filled.release.version_name, filled.digest, unwell(error), attempt), error)

    def _spoilt(self, filled: Filled, attempt: str) -> None:
        """Fetch it anew."""
        self._memory = self._memory.without_filled(filled.digest)
        self._fail(Failed(filled.release.version_name, filled.digest, spoilt(filled), attempt))

    async def _commit(self, resident: Resident, term: int, attempt: str) -> None:
        digest = resident.manifest_digest
        with self._blaming(resident, attempt):
            engine = await self._engine.ask(CommitOrder(manifest_digest=digest, term=term))
            logger.info("Live", version=resident.version_name, reason=Reason.LIVE, pause_us=engine.pause_microseconds)
            metrics.SWAPS.inc()
            metrics.PAUSE.set((engine.pause_microseconds or 0) / 1e6)
            self._memory = replace(
                self._memory.without_setback(digest),
                live=digest,
                pause_microseconds=engine.pause_microseconds,
                swapped_at=self._now(),
            )

    @contextlib.contextmanager
    def _blaming(self, resident: Resident, attempt: str, filled: Filled | None = None) -> Iterator[None]:
        """Hold a failure against the version that the engine was to take. What is true is read back, never assumed."""
        digest = resident.manifest_digest
        try:
            yield
        except errors.StaleTerm:
            raise
        except errors.IntegrityError as error:
            if filled and filled.was_taken:
                self._refused_again(filled, error, attempt)
                return
            self._memory = self._memory.without_filled(digest)
            self._failed(error, resident.version_name, digest, attempt)
        except errors.ModelParamsError as error:
            self._failed(error, resident.version_name, digest, attempt)

    def _failed(self, error: Exception, version_name: str, digest: Digest, attempt: str) -> None:
        self._fail(Failed(version_name, digest, classify(error), attempt, took_engine_down=is_loss(error)), error)

    def _fail(self, what: Failed, error: Exception | None = None) -> None:
        self._memory = self._memory.having_failed(what, self._now(), random.uniform(0.75, 1.25))  # noqa: S311
        failure = self._memory.setbacks[-1].failure  # it may have been given up for that
        metrics.FAILURES.labels(failure.reason).inc()
        logger.warning(
            "Version not taken",
            version=what.version_name,
            reason=failure.reason,
            problem=failure.message,
            is_final=failure.is_final,
            exc_info=error if failure.reason is Reason.INTERNAL_ERROR else None,
        )
