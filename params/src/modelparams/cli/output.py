"""Results go to stdout, everything else to stderr; so a result can be piped while a person still reads along."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from modelparams.cli.exits import Exit, exit_code, next_step
from modelparams.cli.harmless import HarmlessConsole, harmless
from modelparams.errors import ModelParamsError, UsageError
from modelparams.whole_files import replace_file

_WIDE = 240  # of what is no terminal: whoever reads it later wraps it, but a digest that was cut cannot be mended

_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)  # also before what ends a style
_NEARLY_FITS = 110  # columns of a table that is printed whole where there are fewer


class Output(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"


def console(*, stderr: bool = False) -> Console:
    """Made anew at each use, since tests and shells exchange the streams."""
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream is not None and stream.isatty()
    return HarmlessConsole(file=stream, highlight=False, width=None if is_terminal else _WIDE, emoji=False)


def take_the_places_of_closed_streams() -> None:
    """Open what a shell closed (`>&-`): a file of ours would get its number, and what is said there.

    What is said on a closed standard error is lost. A closed standard output stays None, as Python has it, for
    `_to_stdout` to see.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: the stream's own
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def end_by_a_broken_pipe() -> None:
    """Have every console of rich's end so, typer's for `--help` too: it would end with 1."""
    Console.on_broken_pipe = _nobody_reads  # type: ignore[method-assign, assignment]


def _nobody_reads(_: object = None) -> NoReturn:
    _give_stdout_up()
    raise SystemExit(Exit.PIPE)


def _give_stdout_up() -> None:
    """At its end the interpreter would try once more, fail, and end with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """A line for people, on stderr."""
    console(stderr=True).print(text, style="dim")


class Notes(logging.Handler):
    """What libraries log, as lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging`."""
        note(record.getMessage())


@contextlib.contextmanager
def _to_stdout() -> Iterator[None]:
    if sys.stdout is None:
        raise UsageError("standard output is closed", hint="let it go somewhere, and repeat")
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever closed a pipe knows
            _nobody_reads()
        _give_stdout_up()
        raise UsageError(
            f"standard output cannot be written ({error.strerror})",
            hint="let it go elsewhere, or make room, and repeat",
        ) from None


def echo(text: str) -> None:
    """Print a result, with a line end if it has none. What would steer a terminal is written as JSON and YAML do.

    Raises:
        UsageError: standard output does not take it.
    """
    with _to_stdout():
        typer.echo(harmless(text.removesuffix("\n")))


def result(data: Any, table: Table | str, output: Output) -> None:
    """A command's result: `data` as JSON, or `table`."""
    if output is Output.JSON:
        echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif isinstance(table, str):
        echo(table)
    else:
        with _to_stdout():
            print_whole(console(), table)


def print_whole(where: Console, table: Table) -> None:
    """Leave lines that a digest makes a little too long to the terminal: broken by us, it could not be copied."""
    natural = Measurement.get(where, where.options.update(width=_NEARLY_FITS), table).maximum
    if not where.width < natural < _NEARLY_FITS:
        where.print(table)
        return
    where.width = natural
    with where.capture() as captured:
        where.print(table)
    where.file.write(_PADDING.sub(r"\1", captured.get()))  # it would be broken into empty lines


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


def write_file(path: Path, text: str) -> None:
    """Write what an option asked to have in a file.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        replace_file(path, text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})", hint="name another file") from None


def require_place(path: Path) -> None:
    """Refuse a file that could not be written, before the work that it is to tell of.

    Raises:
        UsageError: its directory is not there, or takes no file.
    """
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written there", hint="name another file")


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
        told = {"reason": error.reason, "message": error.message, "nextStep": next_step(error), "exitCode": int(code)}
        typer.echo(harmless(json.dumps({"error": told}, ensure_ascii=False)), err=True)
        return code
    shown = console(stderr=True)
    shown.print(f"{error.reason}: {error.message}", style="bold red")
    shown.print(f"→ {next_step(error)}")
    return code


def _wants_json(arguments: list[str]) -> bool:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any((a in ("--output", "-o") and b == "json") or a in ("--output=json", "-ojson") for a, b in pairs)
