"""A version reaches real pods, and none of them is restarted for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from cluster.process import answers_http, wait_until
from deployed.model import Model, condition
from deployed.scene import BUCKET, Scene, apply_deployment
from deployed.serving import Serving, Start, deployment, is_ready, is_running, name_of
from e2e.conftest import SAMPLES

pytestmark = [pytest.mark.integration]


def answer(url: str) -> httpx.Response:
    request = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "temperature": 0}
    return httpx.post(f"{url}/v1/chat/completions", json=request, timeout=60).raise_for_status()


def test_the_installed_chart_says_that_it_works(world: Scene, model: Model) -> None:
    assert "Phase:          Succeeded" in world.release.test()


def never_restarted(world: Scene) -> dict[str, Start]:
    """Starts of the pods, once those are made anew that a restarted node, in a test before, started again."""
    if old := {key.split("/")[0] for key, (count, _) in world.serving.starts().items() if count}:
        world.kubectl("delete", "pod", *sorted(old))
        world.serving.wait_ready(3, seconds=120)
    return world.serving.starts()


def test_a_new_version_is_swapped_in_and_no_container_is_restarted(world: Scene, model: Model, newer: Path) -> None:
    before = never_restarted(world)
    model.apply(newer)
    model.wait_live("1.1.0", 3, seconds=120)
    assert world.serving.starts() == before
    assert {count for count, _ in before.values()} == {0}
    digest = model.version("1.1.0")["spec"]["manifestDigest"]
    for _, url in world.serving.ready():
        said = answer(url)
        assert (said.headers["x-modelparams-version"], said.headers["x-modelparams-digest"]) == ("1.1.0", digest)


def test_deleting_the_newer_version_brings_the_older_back(world: Scene, model: Model, newer: Path) -> None:
    before = world.serving.starts()
    model.apply(newer)
    model.wait_live("1.1.0", 3, seconds=120)
    model.delete("1.1.0")
    model.wait_live("1.0.0", 3, seconds=120)
    assert world.serving.starts() == before
    assert {answer(url).headers["x-modelparams-version"] for _, url in world.serving.ready()} == {"1.0.0"}


def test_a_tampered_version_is_refused_before_a_pod_is_touched(world: Scene, model: Model, tmp_path: Path) -> None:
    orders = {name: order["spec"] for name, order in model.orders().items()}
    file = world.publisher.publish("1.2.0", _changed(world, tmp_path))
    world.store.flip_a_byte_of_the_newest(BUCKET, f"{world.plan.model}/blobs/")
    model.apply(file)
    try:
        wait_until(lambda: condition(model.version("1.2.0"), "Stalled")[0] == "True", "the refusal", seconds=60)
        _, reason, message = condition(model.version("1.2.0"), "Ready")
        assert reason == "BlobDigestMismatch", message
        assert {name: order["spec"] for name, order in model.orders().items()} == orders
    finally:
        model.delete("1.2.0")


def test_pods_without_a_version_run_and_are_not_ready(world: Scene, model: Model, tmp_path: Path) -> None:
    apply_deployment(world.kubectl, deployment("bare", 1, image=world.plan.serving, memory="64Mi"), tmp_path)
    bare = Serving(world.target, world.plan.namespace, "bare")
    try:
        bare.wait_running(1, seconds=60)
        url = bare.url(name_of(bare.pods()[0]))
        wait_until(lambda: answers_http(f"{url}/healthz"), "the engine to listen", seconds=180)
        wait_until(lambda: "starts" not in httpx.get(f"{url}/readyz").text, "the engine to have started", seconds=60)
        refused = httpx.get(f"{url}/readyz")
        assert (refused.status_code, refused.json()["reason"]) == (503, "no verified version is applied yet")
        (pod,) = bare.pods()
        assert (is_running(pod), is_ready(pod)) == (True, False)
    finally:
        world.kubectl("delete", "deployment", "bare")
        bare.close()


def _changed(world: Scene, folder: Path) -> Path:
    """1.1.0 with one other byte of weights, so that it has a blob of its own."""
    copy = folder / "v"
    shutil.copytree(SAMPLES / "v1.1.0", copy)
    weights = copy / "model.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)
    return copy
