"""The same work on many things by a few threads, each with its own buffer; the first failure ends all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import TypeVar

from modelparams.uninterrupted import uninterrupted

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
        Exception: the first that a worker raised; the other threads have ended by then. So they have when a Ctrl-C
            goes on upwards, or when a thread could not be started.
    """
    queue, lock, failures = iter(items), threading.Lock(), list[BaseException]()
    stops, cancellations = list[bool](), list[bool]()  # an append is atomic, also where an interrupt may come

    def stop() -> None:
        stops.append(True)

    def stopped() -> bool:
        if not stops and cancelled():  # remembered: a worker that saw it has left its item undone
            cancellations.append(True)
            stop()
        return bool(stops)

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
            stop()

    uninterrupted(lambda: _run(run, workers, stop), stop)
    if failures:
        raise failures[0]
    if cancellations:
        raise CancelledError


def _run(work: Callable[[], None], workers: int, stop: Callable[[], None]) -> None:
    """Start so many threads, and wait for all; also for those that were started before one could not be."""
    ended, begun = SimpleQueue[None](), 0

    def run() -> None:
        try:
            work()
        finally:
            ended.put(None)

    try:
        for number in range(workers):
            threading.Thread(target=run, name=f"modelparams-{number}", daemon=True).start()
            begun += 1
    except (RuntimeError, MemoryError):
        stop()
        raise
    finally:
        for _ in range(begun):
            ended.get()
