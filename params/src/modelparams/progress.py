"""How long work tells how far it is, without knowing who looks."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from several threads at once; must be quick and must not raise."""

    def start(self, task: str, total: int) -> None:
        """Begin a task of `total` bytes; `task` is a few words for people."""

    def advance(self, task: str, n: int) -> None:
        """`n` more bytes are done; negative when work is repeated after a fault."""


class NoProgress:
    """Nobody looks."""

    def start(self, task: str, total: int) -> None:
        """Ignore."""

    def advance(self, task: str, n: int) -> None:
        """Ignore."""
