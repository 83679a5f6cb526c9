"""What a release of the chart goes through under pods that serve: none of it reaches their requests."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from bench.load import load
from deployed.model import Model, condition
from deployed.scene import Scene
from e2e.conftest import PODS, SAMPLES, until

pytestmark = [pytest.mark.integration]


def versions(world: Scene) -> set[str]:
    """What each ready pod answers with."""
    request = {"prompt": "a", "max_tokens": 1, "temperature": 0}
    asked = [httpx.post(f"{url}/v1/completions", json=request, timeout=60) for _, url in world.serving.ready()]
    assert len(asked) == PODS
    return {answer.raise_for_status().headers["x-modelparams-version"] for answer in asked}


def operators(world: Scene) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.release.kubectl.json("get", "pods")["items"]]


def test_an_upgrade_of_the_chart_starts_the_operator_again_and_no_pod(world: Scene, model: Model, newer: Path) -> None:
    before, old = world.serving.starts(), set(operators(world))
    with load(world.serving.ready, seed=1) as answers:
        world.release.install(replicas=1, resources__requests__memory="200Mi")
        until("the operator's old pods to be gone", lambda: not old & set(operators(world)), 120)
        model.apply(newer)
        model.wait_live("1.1.0", PODS, seconds=120)
    assert [answer.error for answer in answers if answer.error] == []
    assert answers
    assert world.serving.starts() == before
    world.release.install()


def test_pods_serve_on_without_the_operator_and_follow_it_when_it_is_installed_again(
    world: Scene, model: Model, newer: Path
) -> None:
    before = world.serving.starts()
    with load(world.serving.ready, seed=2) as answers:
        world.release.uninstall()
        until("the operator to be gone", lambda: operators(world) == [], 120)
        model.apply(newer)
        assert versions(world) == {"1.0.0"}, "there is nobody who would order another"
        world.release.install()
        model.wait_live("1.1.0", PODS, seconds=120)
    assert [answer.error for answer in answers if answer.error] == []
    assert answers
    assert world.serving.starts() == before
    assert versions(world) == {"1.1.0"}


def test_a_signer_who_joins_is_known_to_running_pods_and_the_operator(world: Scene, model: Model) -> None:
    """The kubelet brings each of them the new policy when it comes to it: pods may have it later than the operator."""
    keys, before = world.publisher, world.serving.starts()
    keys("keys", "signer", "second.pem")
    keys("keys", "trust", "release.pem", "second.pem", "--out", "both.json")
    try:
        model.apply(keys.publish("1.3.0", SAMPLES / "v1.1.0", "--trust", "both.json", sign="second.pem"))
        until("the refusal", lambda: condition(model.version("1.3.0"), "Stalled")[1] == "SignerUnknown")
        changed = json.dumps({"data": {"trust.json": (keys.work / "both.json").read_text()}})
        for kubectl, name in (
            (world.release.kubectl, "modelparams-operator-trust"),
            (world.kubectl, "modelparams-trust"),
        ):
            kubectl("patch", "configmap", name, "--type=merge", "--patch", changed)
        model.wait_live("1.3.0", PODS, seconds=300)
    finally:
        model.delete("1.3.0")
        world.release.install()
    assert world.serving.starts() == before
