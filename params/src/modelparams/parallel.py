"""The same work on many things by a few threads, each with its own buffer; the first failure ends all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import TypeVar

T = TypeVar("T")
Stopped = Callable[[], bool]


def never() -> bool:
    """The default of every `cancelled`: go on to the end."""
    return False


def for_each(
    items: Iterable[T],
    make_worker: Callable[[Stopped], Callable[[T], None]],
    *,
    workers: int,
    cancelled: Stopped = never,
) -> None:
    """Do every item once, in order of taking, by `workers` threads.

    Each thread calls `make_worker` once, so what that allocates is bounded by the number of threads. The worker gets
    a function that turns true when going on is useless; it asks it between pieces of a long item.

    Raises:
        CancelledError: `cancelled` turned true.
        Exception: the first that a worker raised; the other threads have ended by then.
    """
    queue, lock, failures = iter(items), threading.Lock(), list[BaseException]()
    stop, was_cancelled = threading.Event(), threading.Event()

    def stopped() -> bool:
        if not stop.is_set() and cancelled():  # remembered: a worker that saw it has left its item undone
            was_cancelled.set()
            stop.set()
        return stop.is_set()

    def take() -> tuple[T] | None:
        with lock:
            return next(((item,) for item in queue), None)

    def run() -> None:
        try:
            work = make_worker(stopped)
            while not stopped() and (taken := take()):
                work(*taken)
        except BaseException as failure:
            failures.append(failure)
            stop.set()

    threads = [threading.Thread(target=run, name=f"modelparams-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    _join(threads, stop)
    if failures:
        raise failures[0]
    if was_cancelled.is_set():
        raise CancelledError


def _join(threads: list[threading.Thread], stop: threading.Event) -> None:
    """Wait for all; a Ctrl-C in the meantime ends them too before it goes on upwards."""
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join()
        raise
