"""Orders, engine states and a real agent around a fake engine. A test names only what it is about."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from builders.fake_engine import FakeEngine
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus
from modelparams.api.release import Encryption, KeyReference, Release, S3Source, Source
from modelparams.arena import small_hash
from modelparams.digest import Digest
from modelparams.names import ModelName, Version
from modelparams.protocol import EngineState, Region, Reserve, Resident, Slot, SlotPhase, SlotState
from modelparams_serving.agent.arena import inode_of
from modelparams_serving.agent.engine_client import EngineClient
from modelparams_serving.agent.kube import Backoff
from modelparams_serving.agent.loop import Agent
from modelparams_serving.agent.memory import Filled
from modelparams_serving.agent.order import Assignment, Order, Rollout
from modelparams_serving.agent.order_book import Orders
from modelparams_serving.agent.staging import ReserveSlot, Staged, Ticket
from modelparams_serving.agent.status_writer import StatusWriter

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
MODEL, POD_UID = ModelName("tiny"), "11111111-1111-4111-8111-111111111111"
SIZE = 8192
REGION = Region(offset=0, size=64)


def digest_of(version: str) -> Digest:
    """Stable, and different for each version."""
    return Digest.of(version.encode())


def release(version: str = "1.0.0") -> Release:
    """A release of the model `tiny`."""
    return Release(
        version_name=f"tiny-{version}",
        model_name=MODEL,
        version=Version(version),
        manifest_digest=digest_of(version),
        source=Source(s3=S3Source(bucket="params")),
        encryption=Encryption(key_ref=KeyReference(name="kek")),
    )


def order(*versions: str, activate: str | None = None, attempt: str = "", term: int = 0, **facts: bool) -> Order:
    """To hold `versions` and to serve `activate`."""
    releases = tuple(release(version) for version in versions)
    return Order(releases, digest_of(activate) if activate else None, term, attempt, **facts)


def spec(*versions: str, activate: str | None = None, term: int = 1, attempt: str = "") -> AssignmentSpec:
    """The same as an assignment's spec."""
    wanted = order(*versions, activate=activate)
    return AssignmentSpec(
        rollout_name="tiny",
        pod_uid=POD_UID,
        releases=wanted.releases,
        activate=wanted.activate,
        term=term,
        attempt=attempt,
    )


def resident(version: str) -> Resident:
    """What a slot says that it holds."""
    return Resident(
        version_name=f"tiny-{version}",
        model_name=MODEL,
        version=Version(version),
        manifest_digest=digest_of(version),
    )


def slot(phase: SlotPhase = SlotPhase.EMPTY, version: str = "", requests: int = 0) -> SlotState:
    """A slot that holds `version`, or is being filled with it."""
    if phase is SlotPhase.FILLING:
        return SlotState(phase=phase, filling=digest_of(version))
    return SlotState(phase=phase, resident=resident(version) if version else None, requests=requests)


def engine(a: SlotState | None = None, b: SlotState | None = None, term: int = 0) -> EngineState:
    """An engine's state."""
    return EngineState(instance="one", slots={Slot.A: a or slot(), Slot.B: b or slot()}, term=term)


def filled(version: str, where: Slot = Slot.A) -> Filled:
    """An arena that was filled."""
    return Filled(release(version), where, REGION, inode=1, assets=REGION, small_hash="")


@dataclass
class FakeStages:
    """Stages by writing a few bytes; fails, or hangs until `gate` is set, as told."""

    directory: Path
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    """By version: what to raise the next times."""
    gate: asyncio.Event | None = None
    answers: asyncio.Event | None = None
    """Until it is set the store answers nothing, not even that a staging was cancelled."""
    staged: list[str] = field(default_factory=list)
    floors: list[int] = field(default_factory=list)
    """Below which each staging was to take nothing."""
    floor: int = 0

    async def stage(self, ticket: Ticket, reserve: ReserveSlot) -> Staged:
        """See `staging.Stages`."""
        version = ticket.release.version.text
        self.staged.append(version)
        self.floors.append(ticket.floor)
        if self.answers:
            await self.answers.wait()
        state = await reserve(Reserve(manifest_digest=ticket.release.manifest_digest, size=SIZE))
        ticket.start("pull", 100)
        ticket.advance("pull", 61)
        while self.gate and not self.gate.is_set() and not ticket.is_cancelled():  # noqa: ASYNC110 - a flag of threads
            await asyncio.sleep(0.005)
        if ticket.is_cancelled():
            raise CancelledError
        if waiting := self.failures.get(version):
            raise waiting.pop(0)
        assert state.slot
        path = self.directory / state.slot.file_name
        written = version.encode().ljust(64)
        with path.open("r+b") as arena:
            arena.write(written)
        found = small_hash(memoryview(written), REGION, REGION)
        return Staged(Filled(ticket.release, state.slot, REGION, inode_of(path), REGION, found, 100), self.floor)


@dataclass
class Sink:
    """Takes what the agent reports."""

    statuses: list[AssignmentStatus] = field(default_factory=list)
    failure: Exception | None = None

    async def report(self, uid: str, status: AssignmentStatus) -> None:
        """See `status_writer.StatusSink`."""
        if self.failure:
            raise self.failure
        self.statuses.append(status)

    @property
    def last(self) -> AssignmentStatus:
        """What `kubectl get mpa` would show."""
        return self.statuses[-1] if self.statuses else AssignmentStatus()


@dataclass
class Namespace:
    """A namespace with the given rollouts."""

    found: tuple[Rollout, ...] = ()

    async def rollouts(self) -> tuple[Rollout, ...]:
        """See `order_book.SeesRollouts`."""
        return self.found


@dataclass
class Pod:
    """An agent and a fake engine, as in one pod."""

    directory: Path
    engine: FakeEngine
    stages: FakeStages
    sink: Sink = field(default_factory=Sink)
    rollouts: Namespace = field(default_factory=Namespace)
    orders: Orders = field(default_factory=lambda: Orders(MODEL, POD_UID))
    generation: int = 0
    ordered: AssignmentSpec = field(default_factory=spec)
    agent: Agent | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _client: EngineClient | None = None

    def start_agent(self, **settings: timedelta) -> None:
        """A new agent process: it knows nothing."""
        self.orders = Orders(MODEL, POD_UID)
        writer = StatusWriter(self.sink, Backoff(first=0.01, bound=0.02))
        self._client = EngineClient(self.directory, on_loss=self.orders.changed.set)
        self.agent = Agent(
            orders=self.orders,
            runtime_dir=self.directory,
            engine=self._client,
            stages=self.stages,
            writer=writer,
            **settings,
        )
        self._tasks = [
            asyncio.create_task(work) for work in (self.agent.run(), writer.run(), self.orders.seek(self.rollouts))
        ]

    async def kill_agent(self) -> None:
        """It is gone, in the midst of whatever it did."""
        assert self.agent
        assert self._client
        staging = self.agent._staging._task
        for task in [*self._tasks, *([staging] if staging else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._client.__aexit__(None, None, None)

    def assign(self, *versions: str, activate: str | None = None, term: int = 1, attempt: str = "") -> None:
        """The operator writes an order."""
        self.generation += 1
        self.ordered = spec(*versions, activate=activate, term=term, attempt=attempt)
        self.tell()

    def tell(self) -> None:
        """The watch says what is there, as the API server shows it."""
        status = AssignmentStatus.parse(self.sink.last.wire())
        self.orders.assigned(Assignment("uid-1", self.generation, self.ordered, status))

    @property
    def live(self) -> str | None:
        """The version that the engine serves."""
        current = [state.resident for state in self.engine.slots.values() if state.phase is SlotPhase.CURRENT]
        return current[0].version.text if current and current[0] else None

    @property
    def held(self) -> set[str]:
        """The versions that are resident."""
        return {state.resident.version.text for state in self.engine.slots.values() if state.resident}

    async def until(self, holds: Callable[[], object], seconds: float = 5.0) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running_pod(directory: Path) -> AsyncIterator[Pod]:
    """A pod whose agent and engine run."""
    pod = Pod(directory, FakeEngine(directory), FakeStages(directory))
    await pod.engine.start()
    pod.start_agent()
    try:
        yield pod
    finally:
        await pod.kill_agent()
        pod.engine.kill()
        await asyncio.sleep(0)
