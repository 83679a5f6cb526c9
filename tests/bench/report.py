"""The table that `make bench` prints, and `build/bench/report.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


class LeftOut(RuntimeError):
    """A part cannot be measured on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. `reach` is what it should reach, such as ``>= 2.5``."""

    name: str
    value: float
    unit: str
    reach: str
    how: str

    @property
    def ok(self) -> bool:
        """Whether it does."""
        relation, bound = self.reach.split()
        return self.value >= float(bound) if relation == ">=" else self.value <= float(bound)


def write(figures: Iterable[Figure], path: Path) -> None:
    """Save all figures as a list of `{name, value, unit, reach, ok, how}`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(figure) | {"ok": figure.ok} for figure in figures]
    path.write_text(json.dumps(rows, indent=2) + "\n")


def show(figures: Iterable[Figure], console: Console) -> None:
    """Print all figures."""
    table = Table(title="Speed and memory", title_justify="left")
    for column in ("what", "measured", "reach", "", "how"):
        table.add_column(column, overflow="fold")
    for figure in figures:
        mark = "[green]ok[/]" if figure.ok else "[red]missed[/]"
        table.add_row(figure.name, f"{figure.value:,.3g} {figure.unit}", figure.reach, mark, figure.how)
    console.print(table)
