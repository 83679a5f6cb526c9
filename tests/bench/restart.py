"""A version applied to running pods, beside `kubectl rollout restart` of the same pods, on a real node."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.report import Figure, LeftOut
from cluster import images
from cluster.node import InstallFailed, NodeCluster, NodeImpossible, debian
from cluster.tools.build import build_all
from cluster.tools.recipes import NODE

PODS = 3
FINE_TUNED, RETRAINED = 3, 5
"""Rounds to a version whose last layers alone are new, and then to one with every byte new."""


@dataclass(frozen=True, slots=True)
class Change:
    """How the pods came to a version, under load: by our rollout, or by their replacement.

    Attributes:
        seconds: until all of them served it.
        sent, failed: requests through the Service meanwhile.
        fetched: sealed bytes that each pod fetched; 0 where nobody counted.
    """

    seconds: float
    sent: int
    failed: int
    fetched: int = 0


def figures(folder: Path) -> Iterator[Figure]:
    """Seconds of the one over the other's, and the requests that failed.

    Raises:
        LeftOut: no real node can run here.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _prepare()
    with NodeCluster() as node:
        if code := node.run([sys.executable, "-m", "bench.restart_on_node", str(folder)]):
            raise RuntimeError(f"the part on the node ended with {code}")
    rounds = [(Change(**r["ours"]), Change(**r["restart"])) for r in json.loads((folder / "rounds.json").read_text())]
    shutil.rmtree(folder)
    yield judged("a fine-tune", rounds[:FINE_TUNED])
    yield judged("every byte new", rounds[FINE_TUNED:])
    yield failures(rounds)


def judged(what: str, rounds: list[tuple[Change, Change]]) -> Figure:
    """How much faster, of rounds of one kind: ours, and the restart after it."""
    ratio = statistics.median(restart.seconds / ours.seconds for ours, restart in rounds)
    each = "; ".join(f"{ours.seconds:.1f} s against {restart.seconds:.1f} s" for ours, restart in rounds)
    how = (
        f"{each}. Ours: the rollout that the operator makes (1 pod, 25 %, all, without pauses), "
        f"{max(ours.fetched for ours, _ in rounds) / 1e6:.0f} MB fetched by each pod; the other: rollout restart, "
        f"then rollout status, of the same Deployment (its default strategy), whose pods fetch all of it"
    )
    return Figure(
        f"apply → all {PODS} pods live, 269 MB, {what}, beside their restart", ratio, "× faster", ">= 10", how
    )


def failures(rounds: list[tuple[Change, Change]]) -> Figure:
    """The requests that failed while versions came, beside those of the restarts."""
    ours, restarts = zip(*rounds, strict=True)
    sent, failed = sum(a.sent for a in ours), sum(a.failed for a in ours)
    theirs = f"{sum(b.failed for b in restarts)} of {sum(b.sent for b in restarts)} during the restarts"
    how = f"of {sent}, by the Service, without a retry; {theirs}"
    return Figure("failed requests meanwhile", failed, "", "<= 0", how)


def _prepare() -> None:
    """What a node is made of, and the images: inside of it there is no way to a package."""
    try:
        debian.require()
        build_all(NODE)
        images.ensure(builder="buildah")
    except (NodeImpossible, InstallFailed, images.NoBuilder) as why:
        raise LeftOut(str(why)) from why
