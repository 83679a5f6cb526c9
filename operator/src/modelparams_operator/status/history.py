"""What a rollout remembers of its past, as rows and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelparams.api.rollout import Revision, RolloutStatus
from modelparams.cli.harmless import harmless
from modelparams_operator.core.memory import is_at_rest

_COLOURS = {"Promoted": "green", "Failed": "red"}
_HEADINGS = ("version", "outcome", "from", "until", "approved by", "digest")


def rows(status: RolloutStatus) -> tuple[tuple[str, ...], ...]:
    """One for what is under way, if anything is, and one for each entry of the history, newest first."""
    return (*_under_way(status), *(_row(one) for one in status.history))


def _under_way(status: RolloutStatus) -> Sequence[tuple[str, ...]]:
    target = status.target
    if target is None or is_at_rest(status):
        return ()
    since = _time(status.started_at) if status.started_at is not None else ""
    return ((target.version_name, f"step {status.step}", since, "", "", target.manifest_digest.short),)


def _row(one: Revision) -> tuple[str, ...]:
    outcome = f"{one.outcome}, expedited" if one.expedited else one.outcome
    by = ", ".join(one.approved_by)
    times = _time(one.started_at), _time(one.finished_at)
    return (one.version_name, outcome, *times, by, one.manifest_digest.short)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def table(status: RolloutStatus) -> RenderableType:
    """For a terminal; users' names are shown as text, never as markup."""
    found = rows(status)
    if not found:
        return Text("nothing was rolled out yet")
    made = Table(box=None, pad_edge=False, header_style="dim")
    for heading in _HEADINGS:
        made.add_column(heading, overflow="fold", no_wrap=heading in ("from", "until", "digest"))
    for row in found:
        made.add_row(*(Text(harmless(cell), style=_COLOURS.get(cell, "")) for cell in row))
    return made


def wire(status: RolloutStatus) -> list[dict[str, Any]]:
    """As status.history has it, newest first: names of fields are API."""
    return [one.wire() for one in status.history]
