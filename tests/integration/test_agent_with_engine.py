"""Agent and engine as they ship, in one pod: a model that answers, updated, rolled back, and killed."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import classifiers
from builders.agent_scene import Scene, staged
from builders.releases import Releases
from cluster import pods
from cluster.api import Api
from cluster.control_plane import Access
from cluster.process import wait_until
from modelparams.hashes import write_hashes

pytestmark = [pytest.mark.integration, pytest.mark.model]
LIMIT = 90


@pytest.fixture
def scene(control_plane: Access, api: Api, namespace: str, bucket: Any, tmp_path: Path) -> Iterator[Scene]:
    releases = Releases(tmp_path, bucket.server, bucket.name)
    with staged(control_plane, api, namespace, releases, tmp_path, engine=pods.ENGINE) as made:
        yield made


def ask(scene: Scene, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body of the pod's answer, which names its version as the head does."""
    [(_, url)] = scene.pods.ready()
    data = json.dumps({"model": scene.releases.model} | body).encode()
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        told: dict[str, Any] = json.loads(reply.read())
        assert reply.headers["X-ModelParams-Version"] == told["model_params"]["version"]
        return told


def answer(scene: Scene) -> tuple[str, str]:
    """The version that answers, and what."""
    told = ask(scene, "/v1/completions", {"prompt": "The capital of France", "max_tokens": 4, "temperature": 0})
    return told["model_params"]["version"], told["choices"][0]["text"]


def classes(scene: Scene) -> tuple[str, list[list[float]]]:
    """The version that classifies, and how."""
    told = ask(scene, "/classify", {"input": ["this was a good day", "bad"]})
    return told["model_params"]["version"], [one["probs"] for one in told["data"]]


def wait_answer(scene: Scene, version: str, answer: Callable[[Scene], tuple[str, Any]] = answer) -> Any:
    """Wait until the pod answers with it."""
    found: list[Any] = []

    def answers() -> bool:
        try:
            served, text = answer(scene)
        except (OSError, ValueError):
            return False
        found.append(text)
        return served == version

    try:
        wait_until(answers, version, seconds=LIMIT)
    except TimeoutError as late:
        raise AssertionError(f"{late}: {scene.told()}\n{scene.pods.logs('web-0')[-3000:]}") from late
    return found[-1]


def test_a_pod_answers_with_what_it_was_ordered_and_survives_its_own_parts(scene: Scene) -> None:
    scene.start(MODELPARAMS_THREADS="1", MODELPARAMS_NUM_BLOCKS="64")
    scene.order("1.0.0", activate="1.0.0")
    first = wait_answer(scene, "1.0.0")
    status = scene.status()
    assert status["live"]["tensorsDigest"]

    scene.order("1.1.0", "1.0.0", activate="1.1.0")
    assert wait_answer(scene, "1.1.0") != first
    scene.wait(lambda: scene.status().get("state") == "Live")
    assert scene.status()["live"]["tensorsDigest"] != status["live"]["tensorsDigest"]

    scene.order("1.1.0", "1.0.0", activate="1.0.0")
    assert wait_answer(scene, "1.0.0") == first

    scene.pods.kill("web-0", "engine", signal.SIGKILL)
    wait_until(lambda: scene.pods.restarts()["web-0/engine"] == 1, "the engine to come back", seconds=LIMIT)
    assert wait_answer(scene, "1.0.0") == first
    assert scene.pods.logs("web-0", "agent").count('"Verified and opened"') == 2

    scene.pods.kill("web-0", "agent", signal.SIGKILL)
    wait_until(lambda: scene.pods.restarts()["web-0/agent"] == 1, "the agent to come back", seconds=LIMIT)
    scene.order("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
    wait_answer(scene, "1.1.0")
    assert scene.pods.restarts() == {"web-0/agent": 1, "web-0/engine": 1}


def test_a_pod_classifies_with_what_it_was_ordered(scene: Scene, tmp_path: Path) -> None:
    scene.releases.model = classifiers.MODEL
    for seed, version in enumerate(("1.0.0", "1.1.0")):
        directory = classifiers.classifier(tmp_path / "params" / version, seed)
        write_hashes(directory)
        scene.samples[version] = str(directory)
    scene.start(MODELPARAMS_THREADS="1")
    scene.order("1.0.0", activate="1.0.0")
    first = wait_answer(scene, "1.0.0", classes)
    scene.order("1.1.0", "1.0.0", activate="1.1.0")
    assert wait_answer(scene, "1.1.0", classes) != first
    scene.order("1.1.0", "1.0.0", activate="1.0.0")
    assert wait_answer(scene, "1.0.0", classes) == first
