"""One pass of the planner over a thousand pods: pure, so nothing is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.measure import interleaved, median_seconds
from bench.report import Figure
from builders.rollouts import desired, observed, pods, status, version
from modelparams_operator.core.model import Observed
from modelparams_operator.core.plan import plan

_PODS, _ROUNDS = 1000, 15


def figures(folder: Path) -> Iterator[Figure]:
    """The slowest of three worlds: at rest, a canary that begins, a first version."""
    del folder
    timings = interleaved(
        {name: lambda seen=seen: plan(desired(), seen) for name, seen in _worlds().items()}, rounds=_ROUNDS
    )
    spent = {name: median_seconds(rounds) * 1e3 for name, rounds in timings.items()}
    each = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    yield Figure(f"plan of {_PODS:,} pods", max(spent.values()), "ms", "<= 20", f"{each}; median of {_ROUNDS}")


def _worlds() -> dict[str, Observed]:
    both = (version("1.0.0"), version("1.1.0"))
    return {
        "at rest": observed(*both, *pods(_PODS, "1.1.0", staged=["1.0.0"]), memory=status("1.1.0")),
        "canary": observed(*both, *pods(_PODS, "1.0.0", staged=["1.1.0"]), memory=status("1.0.0")),
        "first version": observed(version("1.0.0"), *pods(_PODS, ordered=None)),
    }
