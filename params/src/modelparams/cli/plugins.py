"""Commands of other roots, found by the entry-point group `modelparams.commands`.

An entry point's name is the command; its object is a plain function with typer's annotations, or a `typer.Typer`.
Its module must import fast, and import what is heavy inside the function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from modelparams.cli.exits import TABLE
from modelparams.cli.prose import prose
from modelparams.errors import UsageError

GROUP = "modelparams.commands"
_VERBS = ("approve", "audit", "expedite", "explain", "history", "pause", "resume", "retry", "status", "withdraw")
_EXTRAS: Mapping[str, str] = {"serve": "serving", **dict.fromkeys(_VERBS, "operator")}


def add_commands(app: typer.Typer) -> None:
    """Add every command that is installed, and for the known ones that are not, one that says how to get it."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    for name in sorted(found.keys() | _EXTRAS.keys()):
        _add(app, name, found.get(name))


def _add(app: typer.Typer, name: str, point: EntryPoint | None) -> None:
    try:
        command: Any = point.load() if point else None
    except ModuleNotFoundError:
        command = None
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    elif command is not None:
        app.command(name, help=prose(command.__doc__ or ""), epilog=TABLE)(_teaching(name, command))
    else:
        lenient = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(name, context_settings=lenient)(_missing(name))


def _teaching(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with its missing libraries explained."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise _not_installed(name, error.name) from error

    return run


def _missing(name: str) -> Callable[[], None]:
    def run() -> None:
        raise _not_installed(name, None)

    run.__doc__ = f"Not installed: pip install 'modelparams\\[{_EXTRAS.get(name, name)}]'."  # no markup of rich's
    return run


def _not_installed(name: str, module: str | None) -> UsageError:
    because = f": {module} is missing" if module else ""
    return UsageError(
        f"'{name}' is not installed{because}", hint=f"run pip install 'modelparams[{_EXTRAS.get(name, name)}]'"
    )
