"""Agent and engine as they ship, in one pod: a model that answers, updated, rolled back, and killed."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.agent_scene import Scene, staged
from builders.releases import Releases
from cluster import pods
from cluster.api import Api
from cluster.control_plane import Access
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.model]
LIMIT = 90


@pytest.fixture
def scene(control_plane: Access, api: Api, namespace: str, bucket: Any, tmp_path: Path) -> Iterator[Scene]:
    releases = Releases(tmp_path, bucket.server, bucket.name)
    with staged(control_plane, api, namespace, releases, tmp_path, engine=pods.ENGINE) as made:
        yield made


def answer(scene: Scene) -> tuple[str, str]:
    """The version that answers, and what."""
    body = {"model": scene.releases.model, "prompt": "The capital of France", "max_tokens": 4, "temperature": 0}
    [(_, url)] = scene.pods.ready()
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        told = json.loads(reply.read())
        assert reply.headers["X-ModelParams-Version"] == told["model_params"]["version"]
        return told["model_params"]["version"], told["choices"][0]["text"]


def wait_answer(scene: Scene, version: str) -> str:
    """Wait until the pod answers with it."""
    found: list[str] = []

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
