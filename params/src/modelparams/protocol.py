"""The agent's orders to the engine, over a Unix socket: one JSON object a line, one answer a request.

The agent connects; the engine listens on `engine.sock` in the pod's runtime directory, where its two arena
files `arena-a` and `arena-b` are too. serving/PROTOCOL.md has the transition table and an example.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from modelparams.api.base import ObjectName, TensorsDigest, Wire, WireDigest, WireModelName, WireVersion
from modelparams.reasons import Reason

PROTOCOL = 1
SOCKET_NAME = "engine.sock"
LINE_MAX = 1 << 20

Whole = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What an int64 of a status can be. An engine that answers more has not answered: the agent could not report it."""


class Slot(StrEnum):
    """One of the two arenas."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The opposite one."""
        return Slot.B if self is Slot.A else Slot.A

    @property
    def file_name(self) -> str:
        """The arena's file in the runtime directory."""
        return f"arena-{self.value}"


class SlotPhase(StrEnum):
    """Where one slot is. serving's transition table has all moves."""

    EMPTY = "Empty"
    FILLING = "Filling"
    """Reserved: the agent writes into the arena; the engine does not look at it."""
    RESIDENT = "Resident"
    """Checked and built; can be made current at once."""
    CURRENT = "Current"
    """New requests begin here."""
    DRAINING = "Draining"
    """Was current, requests still run on it; it can be made current again."""


class Region(Wire):
    """A part of an arena, in bytes."""

    offset: Whole
    size: Whole


class Resident(Wire):
    """What a slot holds."""

    version_name: ObjectName
    model_name: WireModelName
    version: WireVersion
    manifest_digest: WireDigest


class GetState(Wire):
    """Ask what the engine holds."""

    op: Literal["state"] = "state"


class Reserve(Wire):
    """Ask for an arena of at least `size` bytes to fill. Repeating it for one digest gives the same slot.

    Drops what the slot held. Refused: SlotBusy while requests run on it, ArenaExhausted without memory.
    """

    op: Literal["reserve"] = "reserve"
    manifest_digest: WireDigest
    size: int = Field(gt=0, lt=1 << 63)
    """What a file can be long at the most is below that."""


class Prepare(Wire):
    """Check and build what the agent has verified and written into the slot. May take seconds; changes nothing live.

    Refused: LayoutMismatch, NotFinite, IndexInvalid; the slot is then empty.
    """

    op: Literal["prepare"] = "prepare"
    slot: Slot
    resident: Resident
    index: Region
    """The tensor index (JSON, params/FORMAT.md §index) in the arena; it names everything else."""


class Commit(Wire):
    """Make a resident version current between two steps. Repeating it is a no-op."""

    op: Literal["commit"] = "commit"
    manifest_digest: WireDigest
    term: Whole = 0


class Rollback(Wire):
    """Make the previous version current again; a commit of it by another name, for people on call."""

    op: Literal["rollback"] = "rollback"
    term: Whole = 0


class Discard(Wire):
    """Forget a version that is not current, or an unfinished filling."""

    op: Literal["discard"] = "discard"
    manifest_digest: WireDigest


Request = Annotated[GetState | Reserve | Prepare | Commit | Rollback | Discard, Field(discriminator="op")]
REQUEST: TypeAdapter[GetState | Reserve | Prepare | Commit | Rollback | Discard] = TypeAdapter(Request)


class SlotState(Wire):
    """One slot as it is now."""

    phase: SlotPhase = SlotPhase.EMPTY
    capacity: Whole = 0
    """Bytes that its arena file has."""
    resident: Resident | None = None
    filling: WireDigest | None = None
    tensors_digest: TensorsDigest = ""
    requests: Whole = 0
    """Requests that run on it."""


class EngineState(Wire):
    """The answer to every order that succeeded: the state after it."""

    protocol: int = PROTOCOL
    instance: str
    """Another value after each start of the engine process."""
    slots: dict[Slot, SlotState]
    slot: Slot | None = None
    """For `reserve`: the slot to fill."""
    pause_microseconds: Whole | None = None
    """For `commit` and `rollback`: time in which no request could start."""
    term: Whole = 0
    starting: bool = False
    """The engine cannot prepare yet: what it is made of is still being loaded. It reserves, so fetching can begin."""

    def slot_of(self, digest: object) -> Slot | None:
        """Where a version is resident, if it is."""
        return next(
            (s for s, state in self.slots.items() if state.resident and state.resident.manifest_digest == digest), None
        )

    @property
    def current(self) -> Resident | None:
        """What new requests begin on."""
        return next((s.resident for s in self.slots.values() if s.phase is SlotPhase.CURRENT), None)


class Refusal(Wire):
    """The answer to an order that failed; nothing live changed unless the reason is SwapFailed."""

    reason: Reason
    message: str


class Answer(Wire):
    """One line back: exactly one of the two."""

    state: EngineState | None = None
    refusal: Refusal | None = None
