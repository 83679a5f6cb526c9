"""Work that must not disturb serving: one thread that the kernel runs when nothing else wants the core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_LOWEST = 19
T = TypeVar("T")


class Background:
    """A single thread at nice 19, so that background work never runs twice at once.

    Threads inherit the nice value of the one that starts them, OpenMP's teams too: so torch's own workers for this
    work are nice as well, and nothing that serves may be started from here.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="background", initializer=_be_nice)

    async def run(self, work: Callable[[], T]) -> T:
        """Carry `work` out to its end, also when the waiter is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, work))

    def close(self) -> None:
        """Let the thread end once what runs has ended. That may take minutes, and nobody waits."""
        self._pool.shutdown(wait=False)


def _be_nice() -> None:
    with contextlib.suppress(OSError):  # Linux has a nice value per thread; elsewhere this work is merely as others
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
