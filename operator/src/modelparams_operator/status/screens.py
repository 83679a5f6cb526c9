"""Where overviews are shown: redrawn on a terminal, or line by line into a pipe or log."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Protocol, Self

from rich.live import Live

from modelparams.cli.output import console, echo, note
from modelparams_operator.status.overview import Overview
from modelparams_operator.status.tables import render


class Screen(Protocol):
    """A context manager that shows overviews as they come."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, found: Overview) -> None:
        """Show the present one."""

    def note(self, text: str) -> None:
        """Say something beside it, on standard error."""


class _Lines:
    """Shows what differs from the last time."""

    def __init__(self) -> None:
        self._last: Overview | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, found: Overview) -> None:
        if found != self._last:
            self._last = found
            self._print(found)

    def _print(self, found: Overview) -> None:
        raise NotImplementedError

    def note(self, text: str) -> None:
        note(text)


class JsonLines(_Lines):
    """One JSON object a line; indented when it is the only one."""

    def __init__(self, indent: int | None = None) -> None:
        super().__init__()
        self._indent = indent

    def _print(self, found: Overview) -> None:
        echo(json.dumps(found.wire(), indent=self._indent))


class Tables(_Lines):
    """Tables, one set below the other."""

    def __init__(self, *, pods: int, namespaces: bool) -> None:
        super().__init__()
        self._pods, self._namespaces = pods, namespaces

    def _print(self, found: Overview) -> None:
        console().print(render(found, pods=self._pods, namespaces=self._namespaces))


class LiveTables:
    """Tables that are drawn over."""

    def __init__(self, *, pods: int, namespaces: bool) -> None:
        self._pods, self._namespaces = pods, namespaces
        self._live = Live(console=console(), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, found: Overview) -> None:
        """Draw it."""
        self._live.update(render(found, pods=self._pods, namespaces=self._namespaces), refresh=True)

    def note(self, text: str) -> None:
        """Print it above the tables."""
        self._live.console.print(text, markup=False)
