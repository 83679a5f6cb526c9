"""Who plays, and on what, whatever the pods are: processes beside a real control plane, or pods of a real cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cluster.kubectl import Kubectl
from deployed.publisher import Publisher
from deployed.serving import Start

ROOT = Path(__file__).parents[2]
NAMESPACE, MODEL, BUCKET = "demo", "smollm2", "weights"


class NotReached(RuntimeError):
    """Something did not happen in its time."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays.

    Attributes:
        pods: how many.
        versions: what `save_pretrained` wrote, in the order in which it is published.
        work: an empty folder for the publisher.
    """

    pods: int
    versions: Mapping[str, Path]
    work: Path


def publish(publisher: Publisher, cast: Cast, say: Callable[[str], None]) -> None:
    """Hash and publish all versions, as the pods start, and keep the objects to apply."""
    say(f"meanwhile {', '.join(cast.versions)} are published: modelparams hash, modelparams publish")
    for version, source in cast.versions.items():
        replace(publisher, say=say).publish(version, source)


class Scene(Protocol):
    """What the chapters use."""

    @property
    def tier(self) -> int:
        """2 for processes that play the pods, 4 for a real node of this machine, 5 for another cluster."""

    @property
    def kubectl(self) -> Kubectl:
        """In the namespace of the model."""

    def object_file(self, version: str) -> Path:
        """Of a published version."""

    def tamper(self) -> None:
        """Change a byte of the newest blob, as whoever can write the bucket could."""

    def ready(self) -> Sequence[tuple[str, str]]:
        """Name and base URL of each pod that is Ready."""

    def starts(self) -> Mapping[str, Start]:
        """Of each container, as `pod/container`."""

    def log(self, pod: str, container: str) -> str:
        """What a container has written."""


def keep_logs(scene: Scene, work: Path) -> None:
    """Write what each container said beside the rest of the demo's files: they end with it."""
    for name in scene.starts():
        pod, container = name.split("/")
        (work / f"{pod}.{container}.log").write_text(scene.log(pod, container))


def eventually(what: str, holds: Callable[[], bool], *, seconds: float, every: float = 0.1) -> float:
    """Wait until `holds` and give the seconds that it took.

    Raises:
        NotReached: it did not hold in time.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise NotReached(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - start
