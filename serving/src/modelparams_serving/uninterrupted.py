"""Work that no signal tears: Python runs their handlers, which may raise, in the main thread and in no other.

Source: the library reference of `signal`, "Signals and threads".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def uninterrupted(work: Callable[[], T], give_up: Callable[[], None]) -> T:
    """Do `work` in a thread of its own and wait for its end, whatever is raised in this one meanwhile.

    Args:
        work: its own exceptions are raised here.
        give_up: called when something is raised here: `work` may end early, or be done.

    Raises:
        BaseException: what was raised here while it ran, such as KeyboardInterrupt, once it has ended.
    """
    future = Future[T]()
    interrupt: BaseException | None = None
    threading.Thread(target=_fulfil, args=(future, work), name="modelparams-exchange").start()
    while not future.done():
        try:
            wait([future])
        except BaseException as raised:
            interrupt = raised
            give_up()
    if interrupt is not None:
        raise interrupt
    return future.result()


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
