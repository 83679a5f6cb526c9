"""Several pieces of work, some at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable


async def each(work: Iterable[Awaitable[None]], places: asyncio.Semaphore) -> list[BaseException]:
    """Do all of it, as many at once as there are places; one that fails stops no other. Gives what failed."""

    async def do(one: Awaitable[None]) -> None:
        async with places:
            await asyncio.sleep(0)  # what decides long before it writes gives others their turn
            await one

    done = await asyncio.gather(*(do(one) for one in work), return_exceptions=True)
    return [result for result in done if result is not None]
