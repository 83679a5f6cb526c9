"""Results go to stdout, everything else to stderr; so a result can be piped while a person still reads along."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from modelparams.cli.exits import Exit, exit_code
from modelparams.errors import ModelParamsError

_WIDE = 240  # of what is no terminal: whoever reads it later wraps it, but a digest that was cut cannot be mended


class Output(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"


def console(*, stderr: bool = False) -> Console:
    """Made anew at each use, since tests and shells exchange the streams."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _WIDE, emoji=False)


def note(text: str) -> None:
    """A line for people, on stderr."""
    console(stderr=True).print(text, style="dim", markup=False)


def result(data: Any, table: Table | str, output: Output) -> None:
    """A command's result: `data` as JSON, or `table`."""
    if output is Output.JSON:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif isinstance(table, str):
        typer.echo(table)
    else:
        console().print(table)


def table(title: str, *columns: str) -> Table:
    """An empty table; a column whose name ends with `>` is for numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    return made


def facts(title: str, rows: dict[str, object]) -> Table:
    """Names and values, one a line."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in rows.items():
        made.add_row(name, str(value))
    return made


def size(number: int) -> str:
    """Bytes for people: `272.6 MB`; decimal, as disks and networks are sold."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def show_error(error: ModelParamsError) -> Exit:
    """Say on stderr what happened and what to do; for programs as one JSON line, if the command was to print JSON."""
    code = exit_code(error)
    if _wants_json(sys.argv):
        told = {"reason": error.reason, "message": error.message, "nextStep": error.next_step, "exitCode": int(code)}
        typer.echo(json.dumps({"error": told}, ensure_ascii=False), err=True)
        return code
    shown = console(stderr=True)
    shown.print(f"{error.reason}: {error.message}", style="bold red", markup=False)
    shown.print(f"→ {error.next_step}", markup=False)
    return code


def _wants_json(arguments: list[str]) -> bool:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any((a in ("--output", "-o") and b == "json") or a in ("--output=json", "-ojson") for a, b in pairs)
