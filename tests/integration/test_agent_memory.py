"""What an agent costs beside its engine: memory of its own, apart from the arenas that it fills."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from builders.agent_scene import Scene, staged
from builders.releases import Releases
from cluster.api import Api
from cluster.control_plane import Access
from cluster.process import wait_until
from modelparams.hashes import write_hashes

pytestmark = pytest.mark.integration
MIB = 1 << 20
LAYERS, LAYER = 16, 8 * MIB
ALLOWED = 64 * MIB
"""Issue: at most so much more than at rest."""


@pytest.fixture
def scene(control_plane: Access, api: Api, namespace: str, bucket: Any, tmp_path: Path) -> Iterator[Scene]:
    releases = Releases(tmp_path, bucket.server, bucket.name)
    with staged(control_plane, api, namespace, releases, tmp_path) as made:
        yield made


def big(directory: Path) -> Path:
    """128 MiB of parameters in 16 layers."""
    directory.mkdir()
    noise = np.random.default_rng(1)
    tensors = {
        f"model.layers.{n}.weight": noise.random(LAYER // 4, dtype=np.float32).reshape(-1, 1024) for n in range(LAYERS)
    }
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"model_type": "noise"}))
    write_hashes(directory)
    return directory


def own_memory(pid: int) -> int:
    """Anonymous bytes: the arenas are shared files and do not count."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))


def test_staging_takes_little_more_memory_than_resting(scene: Scene, tmp_path: Path) -> None:
    scene.samples["1.0.0"] = str(big(tmp_path / "big"))
    scene.release("1.0.0")
    scene.start()
    wait_until(lambda: '"Started"' in agent_log(scene), "the agent to have started", seconds=30)
    pid, done = scene.pods.pid("web-0", "agent"), threading.Event()
    idle = peak = own_memory(pid)

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, own_memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        scene.order("1.0.0", activate="1.0.0")
        scene.wait_live("1.0.0")
    finally:
        done.set()
        watcher.join()
    assert peak - idle <= ALLOWED, f"{idle >> 20} MiB at rest, {peak >> 20} MiB while staging"
    assert idle <= 128 * MIB


def agent_log(scene: Scene) -> str:
    """Empty before its process is there."""
    with contextlib.suppress(StopIteration):
        return scene.pods.logs("web-0", "agent")
    return ""
