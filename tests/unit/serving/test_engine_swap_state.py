"""The transition table of a slot."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from modelparams.digest import Digest
from modelparams.errors import IllegalTransition, SlotBusy
from modelparams.protocol import Slot, SlotPhase, SlotState
from modelparams_serving.engine.swap_state import TRANSITIONS, Happening, after, slot_to_fill

EVERY_PAIR = list(itertools.product(SlotPhase, Happening))
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


@pytest.mark.parametrize(("phase", "happening"), EVERY_PAIR)
def test_every_pair_that_is_not_listed_is_refused(phase: SlotPhase, happening: Happening) -> None:
    if (phase, happening) in TRANSITIONS:
        assert after(phase, happening, slot=Slot.A) is TRANSITIONS[phase, happening]
        return
    with pytest.raises((IllegalTransition, SlotBusy), match="slot a"):
        after(phase, happening, slot=Slot.A)


def test_only_a_slot_with_requests_is_busy_and_everything_else_is_wrong() -> None:
    busy = []
    for phase, happening in EVERY_PAIR:
        try:
            after(phase, happening, slot=Slot.A)
        except SlotBusy:
            busy.append((phase, happening))
        except IllegalTransition:
            pass
    assert busy == [(SlotPhase.DRAINING, Happening.RESERVED), (SlotPhase.DRAINING, Happening.DISCARDED)]


def test_nothing_becomes_current_without_having_been_built() -> None:
    into_current = {before for (before, _), then in TRANSITIONS.items() if then is SlotPhase.CURRENT}
    assert into_current == {SlotPhase.RESIDENT, SlotPhase.CURRENT, SlotPhase.DRAINING}


def test_what_is_current_can_only_be_superseded() -> None:
    leaving = {h for (p, h), then in TRANSITIONS.items() if p is SlotPhase.CURRENT and then is not SlotPhase.CURRENT}
    assert leaving == {Happening.SUPERSEDED}


@pytest.mark.parametrize(
    ("a", "b", "chosen"),
    [
        (SlotPhase.EMPTY, SlotPhase.EMPTY, Slot.A),
        (SlotPhase.CURRENT, SlotPhase.EMPTY, Slot.B),
        (SlotPhase.CURRENT, SlotPhase.RESIDENT, Slot.B),
        (SlotPhase.RESIDENT, SlotPhase.FILLING, Slot.B),
        (SlotPhase.FILLING, SlotPhase.RESIDENT, Slot.A),
        (SlotPhase.DRAINING, SlotPhase.EMPTY, Slot.B),
    ],
)
def test_the_slot_whose_loss_costs_least_is_filled(a: SlotPhase, b: SlotPhase, chosen: Slot) -> None:
    assert slot_to_fill({Slot.A: SlotState(phase=a), Slot.B: SlotState(phase=b)}, ONE) is chosen


def test_a_repeated_reserve_gives_the_same_slot() -> None:
    slots = {Slot.A: SlotState(phase=SlotPhase.EMPTY), Slot.B: SlotState(phase=SlotPhase.FILLING, filling=ONE)}
    assert slot_to_fill(slots, ONE) is Slot.B
    assert slot_to_fill(slots, TWO) is Slot.A


def test_a_reserve_waits_for_the_last_request_of_the_version_it_would_drop() -> None:
    slots = {Slot.A: SlotState(phase=SlotPhase.CURRENT), Slot.B: SlotState(phase=SlotPhase.DRAINING)}
    with pytest.raises(SlotBusy, match="requests still run"):
        slot_to_fill(slots, ONE)


def test_the_page_has_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "serving" / "PROTOCOL.md").read_text().split("## Slots")[1]
    rows = [
        [cell.strip(" `") for cell in line.strip("| ").split("|")] for line in page.splitlines() if line[:2] == "| "
    ]
    head, _, *body = [row + [""] * (8 - len(row)) for row in rows]
    written = {
        (SlotPhase(row[0]), Happening(happening)): cell
        for row in body
        for happening, cell in zip(head[1:], row[1:], strict=True)
    }
    assert written == {pair: _cell(*pair) for pair in EVERY_PAIR}


def _cell(phase: SlotPhase, happening: Happening) -> str:
    try:
        return str(after(phase, happening, slot=Slot.A))
    except SlotBusy:
        return "*busy*"
    except IllegalTransition:
        return ""
