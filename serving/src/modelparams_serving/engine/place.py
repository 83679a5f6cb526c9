"""One of the two slots: which arena, phase and version it has, and how that is told. A dead version is told as none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelparams.digest import Digest
from modelparams.protocol import Slot, SlotPhase, SlotState
from modelparams_serving.engine.arena_files import ArenaFile
from modelparams_serving.engine.swap_state import Happening, after

if TYPE_CHECKING:
    from modelparams_serving.engine.residents import ResidentVersion


@dataclass(slots=True)
class Place:
    """One slot: its arena, and the version in it."""

    slot: Slot
    arena: ArenaFile
    phase: SlotPhase = SlotPhase.EMPTY
    filling: Digest | None = None
    version: ResidentVersion | None = None

    def move(self, happening: Happening) -> None:
        """Go where `happening` leads. Errors as `after`."""
        self.phase = after(self.phase, happening, slot=self.slot)

    @property
    def is_dead(self) -> bool:
        """Whether the thread of a version at rest has ended. The arena still holds it: it can be prepared again."""
        return self.phase is SlotPhase.RESIDENT and self.version is not None and not self.version.service.alive

    def settle(self) -> None:
        """Be merely resident, if it drains and its last request has ended."""
        if self.phase is SlotPhase.DRAINING and self.version is not None and not self.version.requests:
            self.move(Happening.ENDED)

    def empty(self, happening: Happening) -> None:
        """Forget what it was filled with; the version's threads are not ended yet."""
        self.move(happening)
        self.filling = None

    def state(self) -> SlotState:
        """Say how it is, as the protocol does."""
        version = None if self.is_dead else self.version
        return SlotState(
            phase=SlotPhase.EMPTY if self.is_dead else self.phase,
            capacity=self.arena.capacity,
            resident=version.identity if version else None,
            filling=self.filling,
            tensors_digest=version.tensors_digest if version else "",
            requests=version.requests if version else 0,
        )
