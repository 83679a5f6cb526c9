"""What the story plays on, whatever its pods are: processes beside a real control plane, or pods of a real cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cluster.kubectl import Kubectl
from deployed.serving import Start

ROOT = Path(__file__).parents[2]
NAMESPACE, MODEL, BUCKET = "demo", "smollm2", "weights"


class NotReached(RuntimeError):
    """Something did not happen in its time."""


class Scene(Protocol):
    """What the chapters use."""

    @property
    def tier(self) -> int:
        """2 for processes that play the pods, 4 for a real node of this machine, 5 for another cluster."""

    @property
    def kubectl(self) -> Kubectl:
        """In the namespace of the model."""

    def publish(self, version: str, source: Path) -> None:
        """Hash and publish one version of what `save_pretrained` wrote, and keep the object to apply."""

    def object_file(self, version: str) -> Path:
        """Of a published version."""

    def tamper(self) -> None:
        """Change a byte of the newest blob, as whoever can write the bucket could."""

    def ready(self) -> Sequence[tuple[str, str]]:
        """Name and base URL of each pod that is Ready."""

    def starts(self) -> Mapping[str, Start]:
        """Of each container, as `pod/container`."""


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
