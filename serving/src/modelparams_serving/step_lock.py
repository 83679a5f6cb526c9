"""Many steps at once, or one swap: the boundary between what runs on a model and what exchanges its parameters.

Made of one lock and one set, whose operations are atomic: a signal's exception (Ctrl-C) may come between any two of
them, and would leave a `threading.Condition` locked for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from weakref import WeakSet

from modelparams.errors import UsageError
from modelparams.parallel import never

_LOOK_AGAIN = 0.0005
"""Seconds."""
_TELL_AFTER = 30.0
"""Seconds."""
_log = logging.getLogger(__name__)


_LOCKS = WeakSet["StepLock"]()
"""Of a swap that another thread is in the middle of, a fork has the locked gate and not the thread."""


def _open_gates() -> None:
    for lock in _LOCKS:
        lock.after_fork()


os.register_at_fork(after_in_child=_open_gates)


class GivenUp(Exception):
    """A swap that waited for steps to end was told to wait no longer."""


class StepLock:
    """A lock for many readers or one writer; a waiting writer goes before new readers, so it never starves."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        """Held by a swap from when it waits until it is done; steps that had to wait for that pass through it."""
        self._open = set[Step]()
        self._is_exchanging = self._is_torn = False
        self._newest = _OfThread()
        _LOCKS.add(self)
        self._of_task = ContextVar[Step | None]("modelparams-steps", default=None)

    def after_fork(self) -> None:
        """Let steps begin in the child, unless it has half of an exchange. What it loads, it loads by another lock."""
        self._gate, self._is_torn = threading.Lock(), self._is_exchanging

    def step(self) -> Step:
        """Hold off swaps: `with` in threads, `async with` in coroutines. May be nested.

        Whoever is inside of one already waits for no swap, which waits for it. So in one thread that is always inside
        of some step by plain `with`, in one coroutine or another, a swap waits for ever; and a thread that another one
        waits for inside of its step is taken for inside of it only when it was begun by `asyncio.to_thread`.
        """
        return Step(self)

    @contextlib.contextmanager
    def swap(self, given_up: Callable[[], bool] = never) -> Iterator[None]:
        """Wait until no step runs, and let none begin.

        Args:
            given_up: asked while it waits.

        Raises:
            UsageError: this thread or coroutine is inside of a step, and would wait for itself.
            GivenUp: `given_up` turned true.
        """
        self.refuse_inside_step()
        with self._gate:
            self._wait(given_up)
            self._is_exchanging = True
            try:
                yield
            finally:
                self._is_exchanging = False

    def refuse_inside_step(self) -> None:
        """Raise UsageError in a thread or a coroutine that is inside of a step."""
        if self.is_inside():
            raise UsageError(
                "a swap was asked for inside of a step", hint="call it between steps, or in another thread"
            )

    def is_inside(self) -> bool:
        """Tell whether this thread or coroutine, or who began it, is inside of a step."""
        return bool(self._lasting(self._newest.step) or self._lasting(self._of_task.get()))

    def begin_in_thread(self, step: Step) -> None:
        """Begin a step, after the swap that waits or runs.

        It is open before anybody looks whether one does, and a swap looks for open steps only when it has the gate: so
        one of the two sees the other.
        """
        step.around = self._lasting(self._newest.step)
        self._open.add(step)
        if not self.is_inside() and self._gate.locked():
            self._open.discard(step)
            with self._gate:
                self._open.add(step)
        self._newest.step = step

    async def begin_in_task(self, step: Step) -> None:
        """The same without holding up other coroutines, whose steps may have to end first."""
        step.around = self._lasting(self._of_task.get())
        self._open.add(step)
        while not self.is_inside() and self._gate.locked():
            self._open.discard(step)
            await asyncio.sleep(_LOOK_AGAIN)
            self._open.add(step)
        self._of_task.set(step)

    def end(self, step: Step) -> None:
        """End a step, wherever it began; of one that has ended, or never began, nothing."""
        self._open.discard(step)
        step.around = self._lasting(step.around)  # or a chain would grow

    def refuse_if_torn(self) -> None:
        """Raise UsageError in a process that was forked while parameters were exchanged."""
        if self._is_torn:
            raise UsageError(
                "this process was forked while parameters were exchanged, and has some of two versions",
                hint="fork between updates, or make the module and its ParamLoader in each process",
            )

    def is_open(self, step: Step) -> bool:
        """Tell whether it has begun and not ended."""
        return step in self._open

    def _lasting(self, step: Step | None) -> Step | None:
        """Give the step, or the first around it, that lasts."""
        while step is not None and step not in self._open:
            step = step.around
        return step

    def _wait(self, given_up: Callable[[], bool]) -> None:
        tell_at = time.monotonic() + _TELL_AFTER
        while self._open:
            if given_up():
                raise GivenUp
            if time.monotonic() > tell_at:
                _log.warning("a swap waits for %d steps to end: let none last for ever", len(self._open))
                tell_at = float("inf")
            time.sleep(_LOOK_AGAIN)


class Step:
    """One step; a context manager for threads and for coroutines, to be used once."""

    def __init__(self, lock: StepLock) -> None:
        self._lock = lock
        self.around: Step | None = None
        """The one that lasted when it began, of the same thread, or of the same coroutine if it is one's."""

    def __enter__(self) -> None:
        self._require_new()
        try:
            self._lock.begin_in_thread(self)
        except BaseException:
            self._lock.end(self)
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.end(self)

    async def __aenter__(self) -> None:
        self._require_new()
        try:
            await self._lock.begin_in_task(self)
        except BaseException:
            self._lock.end(self)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.end(self)

    def _require_new(self) -> None:
        self._lock.refuse_if_torn()
        if self._lock.is_open(self):
            raise UsageError("a step is begun that lasts already", hint="ask the loader for one each time")


class _OfThread(threading.local):
    """The newest step of each thread, which may have ended."""

    step: Step | None = None
