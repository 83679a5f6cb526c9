"""Looking until there is nothing more to wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from modelparams.errors import APIUnavailable
from modelparams_operator.status.overview import Outcome, Overview
from modelparams_operator.status.screens import Screen


async def follow(
    read: Callable[[], Awaitable[Overview]],
    screen: Screen,
    *,
    watch: bool = True,
    timeout: float = 0,
    every: float = 1,
) -> Overview:
    """Show an overview; with `watch`, each one until it is ready or has failed.

    An API server that goes away meanwhile is waited for; one that is away at first is an error.

    Args:
        read: reads one overview.
        screen: shows them.
        watch: go on, rather than look once.
        timeout: seconds after which it gives up; 0: never.
        every: seconds between two readings.

    Raises:
        APIError: the first reading failed, or a later one for another cause than an absent server.
    """
    ends = time.monotonic() + timeout if timeout else float("inf")
    with screen:
        found = await read()
        screen.show(found)
        while watch and found.outcome is Outcome.MOVING and time.monotonic() < ends:
            await asyncio.sleep(every)
            try:
                found = await read()
            except APIUnavailable as error:
                screen.note(str(error))
                continue
            screen.show(found)
    return found
