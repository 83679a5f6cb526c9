"""What a platform team gets wrong: each says what to change, and what serves goes on serving."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployed.model import Model, condition
from deployed.publisher import Publisher
from deployed.scene import BUCKET, Scene, apply_deployment
from deployed.serving import Serving, deployment
from e2e.conftest import SAMPLES, until

pytestmark = [pytest.mark.integration]


class Other:
    """One more model, served by one pod."""

    def __init__(self, world: Scene, name: str, work: Path) -> None:
        self.world, self.name, self.work = world, name, work
        store = f"s3://{BUCKET}/{name}?endpoint={world.store.outside}"
        self.publisher: Publisher = replace(world.publisher, work=work, model=name, store=store)
        shutil.copy(world.publisher.work / "release.pem", work)  # whom the cluster trusts
        self.secret = self.publisher("keys", "kek", name, "--secret", "--namespace", world.plan.namespace)
        self.model = Model(world.kubectl, name)
        self.serving = Serving(world.target, world.plan.namespace, name)

    def serve(self, *, image: str = "", memory: str = "64Mi") -> None:
        """Start the pod, with 1.0.0 applied."""
        body = deployment(self.name, 1, image=image or self.world.plan.serving, memory=memory)
        apply_deployment(self.world.kubectl, body, self.work)
        self.apply("1.0.0")

    def apply(self, version: str) -> None:
        """Publish and apply a version."""
        self.model.apply(self.publisher.publish(version, SAMPLES / f"v{version}"))

    def tells(self) -> str:
        """All that the objects of the model say."""
        orders = [order.get("status", {}) for order in self.model.orders().values()]
        return json.dumps([*orders, self.model.rollout().get("status", {})])


@contextlib.contextmanager
def another(world: Scene, name: str, work: Path) -> Iterator[Other]:
    """One more model; gone afterwards."""
    other = Other(world, name, work)
    try:
        yield other
    finally:
        world.kubectl("delete", f"deployment/{name}", f"secret/{name}", "--ignore-not-found")
        world.kubectl("delete", "mpv", *(f"{name}-{v}" for v in ("1.0.0", "1.1.0")), "--ignore-not-found")
        other.serving.close()


def test_a_pod_without_its_key_says_so_and_goes_on_when_the_secret_comes(
    world: Scene, model: Model, tmp_path: Path
) -> None:
    with another(world, "keyless", tmp_path) as other:
        other.serve()
        until("the pod to say what it misses", lambda: "KeyUnavailable" in other.tells(), 120)
        assert "key 'keyless'" in other.tells()
        before = other.serving.starts()
        world.kubectl.apply(other.secret)
        other.model.wait_live("1.0.0", 1, seconds=240)
        assert other.serving.starts() == before


def test_a_version_that_does_not_fit_beside_the_live_one_says_so_and_the_pod_serves_on(
    world: Scene, model: Model, tmp_path: Path
) -> None:
    with another(world, "narrow", tmp_path) as other:
        world.kubectl.apply(other.secret)
        other.serve(memory="512Ki")
        other.model.wait_live("1.0.0", 1, seconds=120)
        other.apply("1.1.0")
        until("the pod to say that it does not fit", lambda: "ArenaExhausted" in other.tells(), 120)
        assert other.model.live().popitem()[1] == "1.0.0"
        other.serving.wait_ready(1, seconds=10)
        assert "modelparams.dev/memory" in other.tells()


def test_pods_whose_image_cannot_start_are_counted_as_not_serving(world: Scene, model: Model, tmp_path: Path) -> None:
    with another(world, "imageless", tmp_path) as other:
        world.kubectl.apply(other.secret)
        other.serve(image="modelparams/serving:none")
        until("the rollout to count it", lambda: condition(other.model.rollout(), "Available")[0] == "False", 60)
        assert "0 of 1 pods serve" in condition(other.model.rollout(), "Available")[2]
