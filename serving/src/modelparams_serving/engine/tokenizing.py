"""Where texts become token ids: on the event loop, unless that would hold it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_SHORT = 1 << 12  # characters; of some scripts that is 9 ms
T = TypeVar("T")


async def tokenizing(length: int, work: Callable[[], T]) -> T:
    """Do `work` on texts of `length` characters, on a thread when they are long: swaps and others would wait for it."""
    return work() if length <= _SHORT else await asyncio.to_thread(work)
