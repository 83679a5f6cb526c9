"""The two slots' life as a transition table: what may follow what. Whatever is not listed is refused.

    Empty ──reserved──► Filling ──built──► Resident ──committed──► Current
      ▲  └────────────built───────────────────▲  ▲                   │ superseded
      └── refused, discarded                  │  └──ended── Draining ◄┘
                                              └───────────────committed──► Current

serving/PROTOCOL.md shows it beside the orders. Pure: no clock, no I/O, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from modelparams.digest import Digest
from modelparams.errors import IllegalTransition, SlotBusy
from modelparams.protocol import Slot, SlotPhase, SlotState

_P = SlotPhase


class Happening(StrEnum):
    """What can happen to a slot."""

    RESERVED = "reserved"
    BUILT = "built"
    """A prepare was carried out in full."""
    REFUSED = "refused"
    """A reserve or prepare failed."""
    COMMITTED = "committed"
    SUPERSEDED = "superseded"
    """The other slot was committed."""
    ENDED = "ended"
    """Its last request has ended."""
    DISCARDED = "discarded"


_H = Happening

TRANSITIONS: Mapping[tuple[SlotPhase, Happening], SlotPhase] = MappingProxyType(
    {
        (_P.EMPTY, _H.RESERVED): _P.FILLING,
        (_P.EMPTY, _H.BUILT): _P.RESIDENT,  # after a restart: what the agent had verified is still in the arena
        (_P.EMPTY, _H.REFUSED): _P.EMPTY,
        (_P.EMPTY, _H.DISCARDED): _P.EMPTY,
        (_P.FILLING, _H.RESERVED): _P.FILLING,
        (_P.FILLING, _H.BUILT): _P.RESIDENT,
        (_P.FILLING, _H.REFUSED): _P.EMPTY,
        (_P.FILLING, _H.DISCARDED): _P.EMPTY,
        (_P.RESIDENT, _H.RESERVED): _P.FILLING,
        (_P.RESIDENT, _H.COMMITTED): _P.CURRENT,
        (_P.RESIDENT, _H.DISCARDED): _P.EMPTY,
        (_P.CURRENT, _H.COMMITTED): _P.CURRENT,
        (_P.CURRENT, _H.SUPERSEDED): _P.DRAINING,
        (_P.DRAINING, _H.COMMITTED): _P.CURRENT,
        (_P.DRAINING, _H.ENDED): _P.RESIDENT,
    }
)
_BUSY = frozenset({(_P.DRAINING, _H.RESERVED), (_P.DRAINING, _H.DISCARDED)})


def after(phase: SlotPhase, happening: Happening, *, slot: Slot) -> SlotPhase:
    """Give the phase that follows.

    Raises:
        SlotBusy: requests still run on the slot; it will pass.
        IllegalTransition: the table has no such move.
    """
    if (phase, happening) in _BUSY:
        raise SlotBusy(f"slot {slot} cannot be {happening}: requests still run on the version it holds")
    following = TRANSITIONS.get((phase, happening))
    if following is None:
        raise IllegalTransition(f"slot {slot} is {phase} and cannot be {happening}")
    return following


# Taken first: what costs nothing, then an unfinished filling, then a version that could still be rolled back to.
_PREFERENCE = (_P.EMPTY, _P.FILLING, _P.RESIDENT, _P.DRAINING)


def slot_to_fill(slots: Mapping[Slot, SlotState], digest: Digest) -> Slot:
    """Choose the slot for a version: the one reserved for it already, else the one whose loss costs least.

    Raises:
        IllegalTransition: the version is resident; there is nothing to fill.
        SlotBusy: requests still run on the only slot that could be taken.
    """
    for slot, state in slots.items():
        if state.filling == digest:
            return slot
        if state.resident is not None and state.resident.manifest_digest == digest:
            raise IllegalTransition(f"{digest.short} is resident in slot {slot} already; there is nothing to fill")
    chosen = min(
        (slot for slot, state in slots.items() if state.phase in _PREFERENCE),
        key=lambda slot: (_PREFERENCE.index(slots[slot].phase), slot),
    )
    after(slots[chosen].phase, Happening.RESERVED, slot=chosen)
    return chosen
