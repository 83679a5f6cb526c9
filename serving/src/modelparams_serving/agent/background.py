"""Long work beside the event loop, at the lowest priority."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
NICE = 19


async def in_background(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own at nice 19 and give its result.

    Linux keeps niceness per thread and hands it down: the threads that `work` starts have it too, while the event loop
    keeps its own, so that a swap never waits behind a staging. The thread is a daemon: it must not hold up a stop.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # T itself may be None

    def run() -> None:
        result: T | None = None
        problem: BaseException | None = None
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
            result = work()
        except BaseException as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, name="staging", daemon=True).start()
    return await done
