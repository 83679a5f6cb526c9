"""Work that no signal tears: Python runs their handlers, which may raise, in the main thread and in no other.

Sources: the library reference of `signal`, "Signals and threads". What the main thread calls here is atomic: a wait of
`threading.Thread`, `Event` or `Condition` that an exception leaves half-way may take a thread for ended (`join` in
Python 3.11 and 3.12), or keep a lock for ever.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Generic, TypeVar

_LOOK_AGAIN = 0.1
"""Seconds. A signal that comes in the moment before the wait wakes nobody: its handler runs when the wait is over."""
T = TypeVar("T")


def uninterrupted(work: Callable[[], T], give_up: Callable[[], object]) -> T:
    """Do `work` to its end, whatever is raised in the main thread meanwhile, which waits while another one does it.

    Args:
        work: its own exceptions are raised here.
        give_up: called when something is raised here: `work` may end early, or go on. It must be atomic too.

    Raises:
        BaseException: what was raised here, such as KeyboardInterrupt, once `work` has ended.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return work()
    going, interrupts = _Going(work), list[BaseException]()
    while not going.is_over:
        try:
            going.outlast(interrupts, give_up)
        except BaseException as another:  # the handlers of two signals may raise one right after the other
            interrupts.append(another)
    if interrupts:
        raise interrupts[0]
    return going.result()


class _Going(Generic[T]):
    """Work that whoever comes first claims: the new thread, or the one that could not wait for it to begin."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work, self._results, self._errors = work, list[T](), list[BaseException]()
        self._claims: dict[str, str] = {}
        self._is_asked = self._has_ended = False
        self._over = threading.Lock()
        self._over.acquire()

    def outlast(self, interrupts: list[BaseException], give_up: Callable[[], object]) -> None:
        """Begin it, and wait until it is over; an interrupt is noted, and all that it lets begin is given up."""
        while not self.is_over:
            try:
                self._follow(interrupts, give_up)
            except BaseException as raised:
                interrupts.append(raised)

    def _follow(self, interrupts: list[BaseException], give_up: Callable[[], object]) -> None:
        if not self._is_asked:
            self._is_asked = True
            try:
                _thread.start_new_thread(self._run, ())
            except (RuntimeError, MemoryError):  # no thread can be had: done where it may be torn is better than not
                self._run()
        if interrupts:
            give_up()
            self._claim("caller")
        while not self.is_over:
            self._over.acquire(timeout=_LOOK_AGAIN)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or will not begin."""
        return self._has_ended or self._claims.get("by") == "caller"

    def _claim(self, who: str) -> bool:
        """Whoever asks first has it; one atomic step, so that no interrupt leaves it claimed by nobody who knows."""
        return self._claims.setdefault("by", who) == who

    def _run(self) -> None:
        try:
            if self._claim("thread"):
                self._results.append(self._work())
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._has_ended = True
            self._over.release()

    def result(self) -> T:
        """What it gave; raises what it raised."""
        if self._errors:
            raise self._errors[0]
        if not self._results:
            raise CancelledError
        return self._results[0]
