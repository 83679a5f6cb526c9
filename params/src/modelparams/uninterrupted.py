"""Work that no signal tears: Python runs their handlers, which may raise, in the main thread and in no other.

Sources: the library reference of `signal`, "Signals and threads". What the main thread calls here is atomic: a wait of
`threading.Thread`, `Event` or `Condition` that an exception leaves half-way may take a thread for ended (`join` in
Python 3.11 and 3.12), or keep a lock for ever.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

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
    going = _Going(work)
    interrupt: BaseException | None = None
    try:
        _thread.start_new_thread(going.run, ())
    except BaseException as raised:
        if going.take():  # it has not begun, and will not
            raise
        interrupt = raised
        give_up()
    while True:
        try:
            while not going.is_over:  # within: this very question may be interrupted
                going.over.acquire()
            break
        except BaseException as raised:
            interrupt = raised
            give_up()
    if interrupt is not None:
        raise interrupt
    return going.result()


class _Going(Generic[T]):
    """Work that whoever comes first takes: the new thread, or the one that could not wait for it to begin."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work, self._results, self._errors = [work], list[T](), list[BaseException]()
        self.over = threading.Lock()
        """Held until it is over."""
        self.over.acquire()

    @property
    def is_over(self) -> bool:
        return bool(self._results or self._errors)

    def take(self) -> list[Callable[[], T]]:
        try:
            return [self._work.pop()]
        except IndexError:
            return []

    def run(self) -> None:
        for work in self.take():
            try:
                self._results.append(work())
            except BaseException as error:
                self._errors.append(error)
        self.over.release()

    def result(self) -> T:
        if self._errors:
            raise self._errors[0]
        return self._results[0]
