"""Whether the operator does its work, not only whether it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from modelparams_operator.shell import metrics

_BEAT = 1.0
_LAG_LAST = 10.0
# A watch brings a bookmark each minute, and a silent one is cut after 70 s: nothing for so long is a loop that hangs.
_SILENCE_LAST = 240.0


class Heard(Protocol):
    """A mirror, as far as its health goes."""

    heard_at: float
    synced: asyncio.Event


class Health:
    """Answers the two probes."""

    def __init__(self) -> None:
        self._mirrors: Sequence[Heard] = ()
        self._lag = 0.0
        self._leading_since: float | None = None

    def watch(self, mirrors: Sequence[Heard]) -> None:
        """From now on these must be alive."""
        self._mirrors, self._leading_since = mirrors, _now()

    async def measure_lag(self) -> None:
        """Note how late the event loop wakes up, for ever."""
        while True:
            due = _now() + _BEAT
            await asyncio.sleep(_BEAT)
            self._lag = max(_now() - due, 0.0)
            metrics.LOOP_LAG.set(self._lag)

    def problem(self) -> str | None:
        """What a restart would cure."""
        if self._lag > _LAG_LAST:
            return f"the event loop was {self._lag:.0f} s late"
        silent = max((_now() - max(m.heard_at, self._leading_since or 0.0) for m in self._mirrors), default=0.0)
        return f"no news from the API server for {silent:.0f} s" if silent > _SILENCE_LAST else None

    def unreadiness(self) -> str | None:
        """What is not there yet; one that waits for the lease is ready to take over."""
        waiting = [mirror for mirror in self._mirrors if not mirror.synced.is_set()]
        return "the first lists are not complete" if waiting else None


def _now() -> float:
    return asyncio.get_running_loop().time()
