"""One cluster with our chart and three serving pods for all tests; each begins with 1.0.0 live on all of them.

python -m cluster.node exec --fresh -- python -m pytest -m e2e tests/e2e        # the real node: Linux and root
KUBECONFIG=… MODELPARAMS_LOAD_IMAGE='kind load image-archive {}' python -m pytest -m e2e tests/e2e
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import images
from cluster.process import wait_until
from deployed.explain import explain
from deployed.model import Model
from deployed.scene import Plan, Scene, scene
from deployed.target import NoTarget, Target, target

SAMPLES = Path(__file__).parents[2] / "params" / "samples" / "params" / "tiny-llama"
MODEL, PODS = "tiny-llama", 3
_SECONDS = 1800
"""The first test waits until a cluster elsewhere has taken images of some gigabytes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With a failure comes what someone would look at first."""
    outcome = yield
    report = outcome.get_result()
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and world is not None:
        report.sections.append(("the cluster", explain(world)))


@pytest.fixture(scope="session")
def cluster() -> Target:
    """The node that the tests run inside of, or the one that KUBECONFIG names."""
    try:
        return target()
    except NoTarget as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def world(cluster: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The chart, an S3 server, and the pods."""
    built = images.ensure()
    cluster.take(built)
    plan = Plan(
        namespace=f"e2e-{uuid.uuid4().hex[:8]}",
        model=MODEL,
        replicas=PODS,
        memory="64Mi",
        operator=built.operator,
        serving=built.serving,
        engine={"MODELPARAMS_THREADS": "1", "MODELPARAMS_QUIET_SECONDS": "0.2"},
        limit="2Gi",
    )
    with scene(cluster, plan, tmp_path_factory.mktemp("publisher"), print) as running:
        for version in ("1.0.0", "1.1.0"):
            running.publisher.publish(version, SAMPLES / f"v{version}")
        yield running


@pytest.fixture
def model(world: Scene) -> Model:
    """Three ready pods with 1.0.0, and no other version applied."""
    found = Model(world.kubectl, MODEL)
    world.kubectl("delete", "mpv", f"{MODEL}-1.1.0", "--ignore-not-found")
    found.apply(world.publisher.object_file("1.0.0"))
    world.serving.scale(PODS)
    world.serving.wait_ready(PODS, seconds=120)
    found.wait_live("1.0.0", PODS, seconds=120)
    return found


@pytest.fixture
def newer(world: Scene) -> Path:
    """The object of 1.1.0."""
    return world.publisher.object_file("1.1.0")


def until(what: str, holds: object, seconds: float = 60) -> None:
    """Poll until it holds; the time-out's message names it."""
    assert callable(holds)
    wait_until(holds, what, seconds=seconds, every=0.2)
