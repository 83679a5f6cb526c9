"""An engine without a model: it obeys `modelparams.protocol` by the real transition table, in a few milliseconds.

It can be killed (connections cut, memory of slots lost, arena files kept), told to refuse, to run out of memory, to be
busy, or to die while it does something.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelparams import errors
from modelparams.digest import Digest
from modelparams.failure import classify
from modelparams.protocol import (
    LINE_MAX,
    REQUEST,
    SOCKET_NAME,
    Answer,
    Commit,
    Discard,
    EngineState,
    GetState,
    Prepare,
    Refusal,
    Region,
    Request,
    Reserve,
    Rollback,
    Slot,
    SlotPhase,
    SlotState,
)
from modelparams_serving.engine.swap_state import Happening, after, slot_to_fill

Look = Callable[[memoryview, Region], str]
"""What the fake does with a prepared arena: look at it, return the digest of its tensors, or raise."""


class Died(Exception):
    """The engine is gone in the midst of a request."""


def _nothing(_buffer: memoryview, _index: Region) -> str:
    return "0" * 64


@dataclass
class FakeEngine:
    """Listens on `directory`/engine.sock between `start` and `kill`."""

    directory: Path
    memory: int = 1 << 40
    """Bytes that both arenas may take."""
    look: Look = _nothing
    refusals: dict[str, list[errors.ModelParamsError]] = field(default_factory=dict)
    """By op: what to answer the next times."""
    dies_at: dict[str, int] = field(default_factory=dict)
    """By op: so many times, be killed in its midst."""
    deadly: tuple[str, Digest] | None = None
    """The op over which version it never survives."""
    heard: list[str] = field(default_factory=list)
    """Every op but `state`."""
    slots: dict[Slot, SlotState] = field(default_factory=dict)
    instance: str = ""
    term: int = 0
    _server: asyncio.Server | None = None
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        """Come up with empty slots over whatever arena files are there."""
        self.directory.mkdir(exist_ok=True)
        self.instance = uuid.uuid4().hex
        self.term = 0
        self.slots = {slot: SlotState(capacity=self._capacity(slot)) for slot in Slot}
        self._server = await asyncio.start_unix_server(self._serve, self.directory / SOCKET_NAME, limit=LINE_MAX)

    def kill(self) -> None:
        """Be gone as after SIGKILL; the arena files stay."""
        if self._server:
            self._server.close()
        self._server = None
        (self.directory / SOCKET_NAME).unlink(missing_ok=True)
        for writer in self._connections:
            writer.transport.abort()
        self._connections.clear()
        self.slots = {}

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def _capacity(self, slot: Slot) -> int:
        path = self.directory / slot.file_name
        return path.stat().st_size if path.exists() else 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while line := await reader.readline():
                writer.write(self.answer(line).model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
                await writer.drain()
        except Died:
            self.kill()
        except OSError:
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    def answer(self, line: bytes) -> Answer:
        """Do what one line asks."""
        request = REQUEST.validate_json(line)
        if not isinstance(request, GetState):
            self.heard.append(request.op)
        try:
            self._strike(request)
            match request:
                case GetState():
                    return self._state()
                case Reserve():
                    return self._reserve(request)
                case Prepare():
                    return self._prepare(request)
                case Commit():
                    return self._commit(request)
                case Discard():
                    return self._discard(request)
                case Rollback():
                    raise errors.IllegalTransition("the fake knows no previous version")
        except errors.ModelParamsError as error:
            return Answer(refusal=Refusal(reason=classify(error).reason, message=error.message))

    def _strike(self, request: Request) -> None:
        op = request.op
        if self.deadly == (op, _digest_of(request)):
            raise Died
        if self.dies_at.get(op, 0) > 0:
            self.dies_at[op] -= 1
            raise Died
        if waiting := self.refusals.get(op):
            raise waiting.pop(0)

    def _state(self, slot: Slot | None = None, pause: int | None = None) -> Answer:
        state = EngineState(
            instance=self.instance, slots=dict(self.slots), slot=slot, pause_microseconds=pause, term=self.term
        )
        return Answer(state=state)

    def _move(self, slot: Slot, happening: Happening, **changes: object) -> None:
        phase = after(self.slots[slot].phase, happening, slot=slot)
        self.slots[slot] = self.slots[slot].model_copy(update={"phase": phase, **changes})

    def _reserve(self, request: Reserve) -> Answer:
        slot = slot_to_fill(self.slots, request.manifest_digest)
        path = self.directory / slot.file_name
        if request.size + self._capacity(slot.other) > self.memory:
            raise errors.ArenaExhausted(f"an arena of {request.size} bytes does not fit")
        if self._capacity(slot) < request.size:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, request.size)
        self._move(
            slot,
            Happening.RESERVED,
            filling=request.manifest_digest,
            resident=None,
            tensors_digest="",
            capacity=self._capacity(slot),
        )
        return self._state(slot)

    def _prepare(self, request: Prepare) -> Answer:
        slot, state = request.slot, self.slots[request.slot]
        if state.phase is SlotPhase.FILLING and state.filling != request.resident.manifest_digest:
            raise errors.IllegalTransition("the slot is being filled with another version")
        after(state.phase, Happening.BUILT, slot=slot)
        try:
            arena = memoryview((self.directory / slot.file_name).read_bytes())
            tensors_digest = self.look(arena, request.index)
        except errors.ModelParamsError:
            self._move(slot, Happening.REFUSED, filling=None)
            raise
        self._move(slot, Happening.BUILT, resident=request.resident, filling=None, tensors_digest=tensors_digest)
        return self._state()

    def _commit(self, request: Commit) -> Answer:
        if request.term < self.term:
            raise errors.StaleTerm(f"term {request.term} is older than {self.term}")
        slot = next((s for s, state in self.slots.items() if _holds(state, request.manifest_digest)), None)
        if slot is None:
            raise errors.IllegalTransition("that version is not resident")
        self.term = request.term
        self._move(slot, Happening.COMMITTED)
        if self.slots[slot.other].phase is SlotPhase.CURRENT:
            self._move(slot.other, Happening.SUPERSEDED)
            if not self.slots[slot.other].requests:
                self._move(slot.other, Happening.ENDED)
        return self._state(pause=7)

    def end_requests(self) -> None:
        """The last request on a superseded version ends."""
        for slot, state in self.slots.items():
            self.slots[slot] = state.model_copy(update={"requests": 0})
            if state.phase is SlotPhase.DRAINING:
                self._move(slot, Happening.ENDED)

    def _discard(self, request: Discard) -> Answer:
        for slot, state in self.slots.items():
            if _holds(state, request.manifest_digest) or state.filling == request.manifest_digest:
                self._move(slot, Happening.DISCARDED, resident=None, filling=None, tensors_digest="")
        return self._state()


def _digest_of(request: Request) -> Digest | None:
    named = request.resident if isinstance(request, Prepare) else request
    return getattr(named, "manifest_digest", None)


def _holds(state: SlotState, digest: object) -> bool:
    return state.resident is not None and state.resident.manifest_digest == digest
