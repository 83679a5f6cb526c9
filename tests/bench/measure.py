"""Interleaved rounds, so that noise on the machine hits all cases alike; medians of what they gave."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """One round of one case."""

    seconds: float
    cpu_seconds: float
    """User and system time of this process and the children that it waited for."""


def cpu_seconds() -> float:
    """CPU time of this process so far, its reaped children included."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(case: Callable[[], object]) -> Timing:
    """Run `case` once."""
    cpu, start = cpu_seconds(), time.perf_counter()
    case()
    return Timing(time.perf_counter() - start, cpu_seconds() - cpu)


def interleaved(cases: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1) -> dict[str, list[Timing]]:
    """Run all cases in turn, `warm_up` rounds uncounted and `rounds` counted."""
    found: dict[str, list[Timing]] = {name: [] for name in cases}
    for number in range(warm_up + rounds):
        for name, case in cases.items():
            timing = timed(case)
            if number >= warm_up:
                found[name].append(timing)
    return found


def median_ratio(over: list[Timing], under: list[Timing]) -> float:
    """The median of the rounds' own ratios of seconds: how many times longer `over` took than `under`."""
    return statistics.median(a.seconds / b.seconds for a, b in zip(over, under, strict=True))


def median_seconds(timings: list[Timing]) -> float:
    """The median round."""
    return statistics.median(timing.seconds for timing in timings)


def median_cpu(timings: list[Timing]) -> float:
    """The median round's CPU time."""
    return statistics.median(timing.cpu_seconds for timing in timings)
