"""All rules of the agent: from how things are to the next step. Pure; no clock, no I/O.

Level-based: a step that was lost, repeated or half-done is decided again from what is then there, so a kill at
any line of the agent or of the engine is repaired by the next pass. The rules, in their order:

 1. What the order no longer names is not staged on.
 2. Serve: make current what is to be served, if the engine holds it; if it came back empty, hand it again what
    this process has verified in its arena, without fetching. Serving something comes before serving the right thing.
 3. Drop an unfinished filling that nobody goes on with. One that is filled is waited for, whatever passing thing went
    wrong: the engine may be building it still, and all of it would have to be fetched again.
 4. Hold: prepare what is filled, stage what is missing, in the order's preference. A release that is served or
    preferred never gives way to another, whatever the order was when the staging began: a store may stall meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelparams.api.release import Release
from modelparams.digest import Digest
from modelparams.protocol import EngineState, Resident, SlotPhase, SlotState
from modelparams_serving.agent.memory import Filled, Memory
from modelparams_serving.agent.order import Order

ENGINE_POLL = timedelta(milliseconds=200)
BUSY_POLL = timedelta(milliseconds=500)
RESYNC = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Stage:
    """Fetch, verify and open `release` into an arena. Runs in the background."""

    release: Release


@dataclass(frozen=True, slots=True)
class CancelStaging:
    """Stop the staging that runs."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Let the engine give an arena to the staging that runs."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Let the engine check and build what is in the arena."""

    filled: Filled


@dataclass(frozen=True, slots=True)
class Commit:
    """Make a resident release current."""

    resident: Resident
    term: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Let the engine forget a filling."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, unless something changes."""

    until: datetime


Step = Stage | CancelStaging | Reserve | Prepare | Commit | Discard | Wait


def decide(order: Order | None, engine: EngineState | None, memory: Memory, now: datetime) -> Step:
    """Name the next step; `engine` is None while it does not answer.

    At the fixed point the answer is `Wait`.
    """
    underway = memory.underway
    if underway and not underway.is_cancelled and not (order and order.names(underway.digest)):
        return CancelStaging()
    if engine is None:
        return Wait(now + ENGINE_POLL)
    step = _serve(order, engine, memory, now) or _drop(order, engine, memory, now)
    step = step or (_hold(order, engine, memory, now) if order else Wait(now + RESYNC))
    # One that ends while it starts would be held against the version that it was to prepare.
    return Wait(now + ENGINE_POLL) if engine.starting and isinstance(step, Prepare) else step


def _serve(order: Order | None, engine: EngineState, memory: Memory, now: datetime) -> Step | None:
    attempt = order.attempt if order else ""
    term = max(order.term if order else 0, memory.term, engine.term)
    for digest in _to_serve(order, engine, memory):
        if engine.current and engine.current.manifest_digest == digest:
            return None
        if _is_held_back(memory, digest, attempt, now):
            continue
        if resident := _resident(engine, digest):
            return Commit(resident, term)
        filled = memory.filled_with(digest)
        if filled and engine.current is None and _awaits(filled, engine):
            return Prepare(filled)
    return None


def _to_serve(order: Order | None, engine: EngineState, memory: Memory) -> Iterator[Digest]:
    """What to have current, best first."""
    idle = engine.current is None
    if order and order.activate and (idle or not order.is_fallback):
        yield order.activate
    if idle and memory.live:
        yield memory.live


def _drop(order: Order | None, engine: EngineState, memory: Memory, now: datetime) -> Step | None:
    for state in engine.slots.values():
        filling = state.filling if state.phase is SlotPhase.FILLING else None
        if filling is None or (memory.underway and memory.underway.digest == filling):
            continue
        if order is None or not order.names(filling) or _is_abandoned(memory, filling, order.attempt, now):
            return Discard(filling)
    return None


def _is_abandoned(memory: Memory, filling: Digest, attempt: str, now: datetime) -> bool:
    setback = memory.setback_of(filling)
    if setback is None or not setback.holds_back(attempt, now):
        return False
    return setback.retry_at is None or memory.filled_with(filling) is None


def _hold(order: Order, engine: EngineState, memory: Memory, now: datetime) -> Step:
    until = now + RESYNC
    if order.is_fallback and engine.current:
        return Wait(until)
    preferred: set[Digest] = set()
    for release in order.by_preference:
        digest = release.manifest_digest
        setback = memory.setback_of(digest)
        if engine.slot_of(digest):
            preferred.add(digest)
        elif setback and setback.holds_back(order.attempt, now):
            until = min(until, setback.retry_at or until)
            if memory.filled_with(digest):
                preferred.add(digest)
        elif (filled := memory.filled_with(digest)) and _awaits(filled, engine):
            return Prepare(filled)
        elif memory.underway is None:
            return _taking(Stage(release), engine, preferred, now, until)
        elif memory.underway.asks and memory.underway.digest == digest:
            return _taking(Reserve(digest, memory.underway.asks), engine, preferred, now, until)
    return Wait(until)


def _taking(step: Stage | Reserve, engine: EngineState, preferred: set[Digest], now: datetime, until: datetime) -> Step:
    """Do it if a slot may be taken for it: never the current one, nor that of a release preferred to it."""
    others = [state for state in engine.slots.values() if state.phase is not SlotPhase.CURRENT]
    free = [state for state in others if _held(state) not in preferred]
    if not free:
        return Wait(until)
    if all(state.phase is SlotPhase.DRAINING and state.requests for state in free):
        return Wait(now + BUSY_POLL)
    if len(free) < len(others) and (unwanted := free[0].resident):
        # Nothing is current, so the engine, which chooses the slot, could take the preferred one: leave it no choice.
        return Discard(unwanted.manifest_digest)
    return step


def _held(state: SlotState) -> Digest | None:
    return state.resident.manifest_digest if state.resident else state.filling


def _resident(engine: EngineState, digest: Digest) -> Resident | None:
    slot = engine.slot_of(digest)
    return engine.slots[slot].resident if slot else None


def _awaits(filled: Filled, engine: EngineState) -> bool:
    """Whether the engine may be handed the arena: it waits for it, or has come back without it."""
    state = engine.slots.get(filled.slot, SlotState())
    if state.phase is SlotPhase.FILLING:
        return state.filling == filled.digest
    return state.phase is SlotPhase.EMPTY


def _is_held_back(memory: Memory, digest: Digest, attempt: str, now: datetime) -> bool:
    setback = memory.setback_of(digest)
    return setback is not None and setback.holds_back(attempt, now)
