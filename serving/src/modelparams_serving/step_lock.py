"""Many steps at once, or one swap: the boundary between what runs on a model and what exchanges its parameters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from modelparams.errors import UsageError


class StepLock:
    """A lock for many readers or one writer; a waiting writer goes before new readers, so it never starves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._steps = 0
        self._swaps_waiting = 0
        self._is_swapping = False
        self._mine = threading.local()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Hold off swaps. May be nested in one thread."""
        depth = self._depth
        if depth == 0:
            self._enter()
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if depth == 0:
                self._leave()

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        """Wait until no step runs, and let none begin.

        Raises:
            UsageError: this thread is inside of a step, and would wait for itself.
        """
        self.refuse_inside_step()
        with self._changed:
            self._swaps_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._steps and not self._is_swapping)
                self._is_swapping = True
            finally:
                self._swaps_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._is_swapping = False
                self._changed.notify_all()

    def refuse_inside_step(self) -> None:
        """Raise UsageError in a thread that is inside of a step."""
        if self._depth:
            raise UsageError(
                "a swap was asked for inside of a step", hint="call it between steps, or in another thread"
            )

    @property
    def _depth(self) -> int:
        return getattr(self._mine, "depth", 0)

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_swapping and not self._swaps_waiting)
            self._steps += 1

    def _leave(self) -> None:
        with self._changed:
            self._steps -= 1
            self._changed.notify_all()
