"""The story's scene with real pods: our images, our chart, a Deployment with one label."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import images
from cluster.kubectl import Kubectl
from demo.scene import MODEL, NAMESPACE, Cast, publish
from deployed.scene import BUCKET, Plan, Scene, scene
from deployed.serving import Start
from deployed.target import RealNode, Target

# Two arenas of the 269 MB model.
_MEMORY = "640Mi"


@dataclass
class Pods:
    """A `Scene` of tier 4 or 5."""

    scene: Scene
    tier: int

    @property
    def kubectl(self) -> Kubectl:
        """In the model's namespace."""
        return self.scene.kubectl

    def object_file(self, version: str) -> Path:
        """In the publisher's folder."""
        return self.scene.publisher.object_file(version)

    def tamper(self) -> None:
        """By the S3 API."""
        self.scene.store.flip_a_byte_of_the_newest(BUCKET, f"{MODEL}/blobs/")

    def ready(self) -> Sequence[tuple[str, str]]:
        """As kubelet's readiness probes have it."""
        return self.scene.serving.ready()

    def starts(self) -> Mapping[str, Start]:
        """As kubelet has it."""
        return self.scene.serving.starts()

    def log(self, pod: str, container: str) -> str:
        """By kubelet."""
        return self.kubectl("logs", pod, "--container", container)


@contextlib.contextmanager
def pods(target: Target, cast: Cast, say: Callable[[str], None], *, stays: bool) -> Iterator[Pods]:
    """Bring all up on a cluster; on the way out, or on any error, take it down unless it `stays`."""
    say(f"the images go to {target.name}")
    built = images.ensure()
    target.take(built)
    plan = Plan(
        namespace=NAMESPACE,
        model=MODEL,
        replicas=cast.pods,
        memory=_MEMORY,
        operator=built.operator,
        serving=built.serving,
        engine={"MODELPARAMS_THREADS": "1"},
    )
    with scene(target, plan, cast.work, say, meanwhile=lambda by: publish(by, cast, say), stays=stays) as running:
        yield Pods(running, 4 if isinstance(target, RealNode) else 5)
