"""Leaving without breaking a request.

At SIGTERM the pod turns unready at once, but whoever routes to it learns of that a little later. So new requests are
still taken for a while; then they are refused, so that those that run can end, until none has run for a moment, at most
for the grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

_LOOK_EVERY = 0.02


class Drain:
    """Whether this engine is about to leave."""

    def __init__(self, late_seconds: float) -> None:
        """Begin to serve; requests that come later than `late_seconds` after the signal are too late."""
        self._asked, self._late, self._since = asyncio.Event(), late_seconds, 0.0
        self._kept = 0

    @property
    def draining(self) -> bool:
        """True from the signal on."""
        return self._asked.is_set()

    @property
    def refusing(self) -> bool:
        """True once whoever routes here has had the time to look away."""
        return self.draining and time.monotonic() - self._since >= self._late

    def begin(self) -> None:
        """Take the signal; a second one changes nothing."""
        if not self.draining:
            self._since = time.monotonic()
        self._asked.set()

    async def asked(self) -> None:
        """Wait for the signal."""
        await self._asked.wait()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Have the engine wait for an answer that is still sent, though it needs no version any more."""
        self._kept += 1
        try:
            yield
        finally:
            self._kept -= 1

    async def quiet(self, running: Callable[[], int], *, quiet_seconds: float, grace_seconds: float) -> bool:
        """Wait until nothing has run for `quiet_seconds`. False when the grace period ended first."""
        end = time.monotonic() + grace_seconds
        busy = time.monotonic()
        while (now := time.monotonic()) < end:
            if running() or self._kept:
                busy = now
            elif now - busy >= quiet_seconds:
                return True
            await asyncio.sleep(_LOOK_EVERY)
        return not (running() or self._kept)
