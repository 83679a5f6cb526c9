"""Waits that grow, with jitter, so that many waiters do not come back at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Seconds to wait: `first`, doubled each time up to `last`, each times 0.5 to 1."""

    first: float
    last: float
    failures: int = 0

    def next(self) -> float:
        """The wait after one more failure."""
        self.failures += 1
        grown = self.first * 2.0 ** min(self.failures - 1, 30)
        return min(grown, self.last) * random.uniform(0.5, 1)  # noqa: S311 - spreads waits, hides nothing

    def reset(self) -> None:
        """Begin anew after a success."""
        self.failures = 0


@dataclass(frozen=True, slots=True)
class Endless:
    """Backoffs for ever, for kopf's `error_backoffs`: each of its requests iterates it anew."""

    first: float
    last: float

    def __iter__(self) -> Iterator[float]:
        backoff = Backoff(self.first, self.last)
        while True:
            yield backoff.next()
