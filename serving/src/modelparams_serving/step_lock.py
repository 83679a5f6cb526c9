"""Many steps at once, or one swap: the boundary between what runs on a model and what exchanges its parameters."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from modelparams.errors import UsageError

_LOOK_AGAIN = 0.0005
"""Seconds. A coroutine must not wait for a lock: it would hold up the very ones whose steps have to end first."""


class GivenUp(Exception):
    """A swap that waited for steps to end was told to wait no longer."""


@dataclass(slots=True)
class _Inside:
    """One step, and the one around it: while either lasts, whoever is in it waits for no swap, which waits for it."""

    around: _Inside | None
    lasts: bool = True


class _OfThread(threading.local):
    newest: _Inside | None = None


class StepLock:
    """A lock for many readers or one writer; a waiting writer goes before new readers, so it never starves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._steps = 0
        self._swaps_waiting = 0
        self._is_swapping = False
        self._of_thread = _OfThread()
        self._of_task = ContextVar[_Inside | None]("modelparams-steps", default=None)

    def step(self) -> Step:
        """Hold off swaps: `with` in threads, `async with` in coroutines. May be nested.

        Whoever is inside of one already waits for no swap, which waits for it. So in one thread that is always inside
        of some step by plain `with`, in one coroutine or another, a swap waits for ever.
        """
        return Step(self)

    @contextlib.contextmanager
    def swap(self, given_up: threading.Event | None = None) -> Iterator[None]:
        """Wait until no step runs, and let none begin.

        Args:
            given_up: set by `give_up`.

        Raises:
            UsageError: this thread or coroutine is inside of a step, and would wait for itself.
            GivenUp: it waited, and `given_up` was set.
        """
        self.refuse_inside_step()
        given_up = given_up or threading.Event()
        with self._changed:
            self._swaps_waiting += 1
            try:
                self._changed.wait_for(lambda: given_up.is_set() or not (self._steps or self._is_swapping))
                if given_up.is_set():
                    raise GivenUp
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

    def give_up(self, waiting: threading.Event) -> None:
        """Have the swap that was begun with `waiting` end, unless it has its turn already."""
        with self._changed:
            waiting.set()
            self._changed.notify_all()

    def refuse_inside_step(self) -> None:
        """Raise UsageError in a thread or a coroutine that is inside of a step."""
        if _lasting(self._of_thread.newest) or _lasting(self._of_task.get()):
            raise UsageError(
                "a swap was asked for inside of a step", hint="call it between steps, or in another thread"
            )

    def enter_in_thread(self) -> _Inside:
        """Begin a step, after the swaps that run or wait."""
        around = _lasting(self._of_thread.newest)
        with self._changed:
            if around is None:
                self._changed.wait_for(self._is_free)
            self._of_thread.newest = step = self._begun(around)
        return step

    async def enter_in_task(self) -> _Inside:
        """The same without holding up other coroutines."""
        while True:
            with self._changed:
                around = _lasting(self._of_task.get())
                if around is not None or self._is_free():
                    self._of_task.set(step := self._begun(around))
                    return step
            await asyncio.sleep(_LOOK_AGAIN)

    def leave(self, step: _Inside) -> None:
        """End a step, wherever it began."""
        with self._changed:
            step.lasts = False
            self._steps -= 1
            self._changed.notify_all()

    def _begun(self, around: _Inside | None) -> _Inside:
        self._steps += 1
        return _Inside(around)

    def _is_free(self) -> bool:
        return not self._is_swapping and not self._swaps_waiting


def _lasting(step: _Inside | None) -> _Inside | None:
    """Give the step, or the one around it, that lasts."""
    while step is not None and not step.lasts:
        step = step.around
    return step


class Step:
    """One step; a context manager for threads and for coroutines, to be used once."""

    def __init__(self, lock: StepLock) -> None:
        self._lock = lock
        self._inside: _Inside | None = None

    def __enter__(self) -> None:
        self._inside = self._lock.enter_in_thread()

    def __exit__(self, *_: object) -> None:
        self._leave()

    async def __aenter__(self) -> None:
        self._inside = await self._lock.enter_in_task()

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._inside is not None:
            self._lock.leave(self._inside)
