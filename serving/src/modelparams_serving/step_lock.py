"""Many steps at once, or one swap: the boundary between what runs on a model and what exchanges its parameters."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

from modelparams.errors import UsageError

_LOOK_AGAIN = 0.0005
"""Seconds. A coroutine must not wait for a lock: it would hold up the very ones whose steps have to end first."""


class _Holder:
    """A thread, or a coroutine with those that it began, and how many steps it is inside of."""

    def __init__(self) -> None:
        self.steps = 0


class StepLock:
    """A lock for many readers or one writer; a waiting writer goes before new readers, so it never starves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._steps = 0
        self._swaps_waiting = 0
        self._is_swapping = False
        self._of_thread = threading.local()
        self._of_task = ContextVar[_Holder | None]("modelparams-steps", default=None)

    def step(self) -> Step:
        """Hold off swaps: `with` in threads, `async with` in coroutines. May be nested.

        Whoever is inside of one already waits for no swap, which waits for it. So in one thread that is always inside
        of some step by plain `with`, in one coroutine or another, a swap waits for ever.
        """
        return Step(self)

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        """Wait until no step runs, and let none begin.

        Raises:
            UsageError: this thread or coroutine is inside of a step, and would wait for itself.
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
        """Raise UsageError in a thread or a coroutine that is inside of a step."""
        task = self._of_task.get()
        if self._thread().steps or (task is not None and task.steps):
            raise UsageError(
                "a swap was asked for inside of a step", hint="call it between steps, or in another thread"
            )

    def enter_in_thread(self) -> _Holder:
        """Begin a step, after the swaps that run or wait."""
        holder = self._thread()
        with self._changed:
            if not holder.steps:
                self._changed.wait_for(self._is_free)
            return self._begin(holder)

    async def enter_in_task(self) -> _Holder:
        """The same without holding up other coroutines."""
        holder = self._of_task.get()
        if holder is None:
            self._of_task.set(holder := _Holder())
        while True:
            with self._changed:
                if holder.steps or self._is_free():
                    return self._begin(holder)
            await asyncio.sleep(_LOOK_AGAIN)

    def leave(self, holder: _Holder) -> None:
        """End a step, wherever it began."""
        with self._changed:
            holder.steps -= 1
            self._steps -= 1
            self._changed.notify_all()

    def _begin(self, holder: _Holder) -> _Holder:
        holder.steps += 1
        self._steps += 1
        return holder

    def _is_free(self) -> bool:
        return not self._is_swapping and not self._swaps_waiting

    def _thread(self) -> _Holder:
        found: _Holder | None = getattr(self._of_thread, "holder", None)
        if found is None:
            found = self._of_thread.holder = _Holder()
        return found


class Step:
    """One step; a context manager for threads and for coroutines, to be used once."""

    def __init__(self, lock: StepLock) -> None:
        self._lock, self._holder = lock, _Holder()

    def __enter__(self) -> None:
        self._holder = self._lock.enter_in_thread()

    def __exit__(self, *_: object) -> None:
        self._lock.leave(self._holder)

    async def __aenter__(self) -> None:
        self._holder = await self._lock.enter_in_task()

    async def __aexit__(self, *_: object) -> None:
        self._lock.leave(self._holder)
