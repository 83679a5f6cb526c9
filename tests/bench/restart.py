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

PODS, ROUNDS = 3, 5


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
    rounds = json.loads((folder / "rounds.json").read_text())
    shutil.rmtree(folder)
    yield from judged([Change(**r["ours"]) for r in rounds], [Change(**r["restart"]) for r in rounds])


def judged(ours: list[Change], restarts: list[Change]) -> Iterator[Figure]:
    """The figures of paired rounds."""
    ratio = statistics.median(b.seconds / a.seconds for a, b in zip(ours, restarts, strict=True))
    each = "; ".join(f"{a.seconds:.1f} s against {b.seconds:.1f} s" for a, b in zip(ours, restarts, strict=True))
    how = (
        f"{each}. Ours: the rollout that the operator makes (1 pod, 25 %, all, without pauses), every byte new, "
        f"{max(a.fetched for a in ours) / 1e6:.0f} MB a pod; the other: rollout restart, then rollout status, "
        f"of the same Deployment (its default strategy), whose pods fetch the same"
    )
    yield Figure(f"apply → all {PODS} pods live, 269 MB, beside their restart", ratio, "× faster", ">= 10", how)
    sent, failed = sum(a.sent for a in ours), sum(a.failed for a in ours)
    theirs = f"{sum(b.failed for b in restarts)} of {sum(b.sent for b in restarts)} during the restarts"
    yield Figure(
        "failed requests meanwhile", failed, "", "<= 0", f"of {sent}, by the Service, without a retry; {theirs}"
    )


def _prepare() -> None:
    """What a node is made of, and the images: inside of it there is no way to a package."""
    try:
        debian.require()
        build_all(NODE)
        images.ensure(builder="buildah")
    except (NodeImpossible, InstallFailed, images.NoBuilder) as why:
        raise LeftOut(str(why)) from why
