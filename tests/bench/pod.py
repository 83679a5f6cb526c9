"""One real pod (agent and engine as processes, orders through a real API server): what a swap costs."""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import load
from bench.report import Figure
from bench.world import KEY_REF, World, world
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from cluster.pods import PodRunner
from modelparams.api.release import Encryption, KeyReference, Release, Source
from modelparams.names import ModelName, Version
from models import smollm2
from traffic.latency import percentile
from traffic.openloop import Answer
from traffic.rescore import Rescorer

_POD, _NAMESPACE = "bench-0", "default"
_SWAPS, _ROUNDS, _WINDOW_SECONDS = 20, 4, 25.0
_DEPLOY = Path(__file__).parents[2] / "operator" / "deploy" / "serving-rbac.yaml"


def figures(folder: Path) -> Iterator[Figure]:
    """Agent's memory while staging, the pause, and latency with and without swaps."""
    directories = {"1.0.0": smollm2.base(), "1.1.0": smollm2.pirate()}
    with world(folder) as place, ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig, _NAMESPACE)
        kubectl("apply", "-f", str(_DEPLOY))
        with PodRunner(plane.access, _NAMESPACE) as pods:
            pod = _Pod(kubectl, pods, place)
            pod.start()
            first = pod.publish("1.0.0", directories["1.0.0"])
            second = pod.publish("1.1.0", directories["1.1.0"])
            idle = pod.agent_memory()
            with _peak(pod.agent_memory) as peak:
                pod.order([first], activate=first)
                pod.order([first, second], activate=first)
            yield _memory(idle, peak[0])
            quiet, swapped, pauses = _windows(pod, first, second)
    yield from _swap_figures(pauses, quiet, swapped, directories)


@dataclass
class _Pod:
    """The pod, with the bench in the operator's place."""

    kubectl: Kubectl
    pods: PodRunner
    place: World

    def start(self) -> None:
        """Create it and wait for its processes."""
        environment = {
            **self.place.server.environment,
            "MODELPARAMS_TRUST": str(self.place.trust_file),
            "MODELPARAMS_KEYS": str(self.place.keys_folder),
            "MODELPARAMS_THREADS": "1",
        }
        self.pods.create(_POD, model=str(ModelName("bench")), environment=environment)
        self.uid = self.kubectl.json("get", "pod", _POD)["metadata"]["uid"]
        _until(lambda: {} if self._agent_speaks() else None, 60)

    def _agent_speaks(self) -> bool:
        """True when the agent is up, with all its imports, and waits for its order."""
        return f"{_POD}/agent" in self.pods.restarts() and bool(self.pods.logs(_POD, container="agent"))

    def publish(self, version: str, source: Path) -> Release:
        """Publish a copy of `source`."""
        directory = self.place.folder / f"v{version}"
        shutil.copytree(source, directory)
        published = self.place.publish(directory, version)
        return Release(
            version_name=f"bench-{version}",
            model_name=ModelName("bench"),
            version=Version(version),
            manifest_digest=published.manifest_digest,
            source=Source(s3=self.place.source),
            encryption=Encryption(key_ref=KeyReference(name=KEY_REF)),
        )

    def order(self, releases: list[Release], *, activate: Release) -> dict[str, Any]:
        """Write the assignment, wait until the pod holds all of them and serves the one, and give its status."""
        owner = {"apiVersion": "v1", "kind": "Pod", "name": _POD, "uid": self.uid}
        spec = {
            "rolloutName": "bench",
            "podUID": self.uid,
            "releases": [release.wire() for release in releases],
            "activate": str(activate.manifest_digest),
            "term": 1,
        }
        document = {
            "apiVersion": "modelparams.dev/v1alpha1",
            "kind": "ModelParamAssignment",
            "metadata": {"name": _POD, "namespace": _NAMESPACE, "ownerReferences": [owner]},
            "spec": spec,
        }
        self.kubectl.apply(document)
        wanted = {str(release.manifest_digest) for release in releases}
        return _until(lambda: self._status(wanted, str(activate.manifest_digest)), 120)

    def agent_memory(self) -> int:
        """Bytes of the agent's own memory: the arenas are shared and not in it."""
        status = Path(f"/proc/{self.pods.pid(_POD, 'agent')}/status").read_text()
        return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) * 1024

    def _status(self, held: set[str], live: str) -> dict[str, Any] | None:
        status = dict(self.kubectl.json("get", "mpa", _POD).get("status", {}))
        staged = {entry["manifestDigest"] for entry in status.get("staged", ())}
        serving = (status.get("live") or {}).get("manifestDigest")
        return status if held <= staged and serving == live else None


def _windows(pod: _Pod, first: Release, second: Release) -> tuple[_Windows, _Windows, list[int]]:
    """Answers of windows without and with swaps, in turn and with the same arrivals, and all pauses in microseconds."""
    quiet, swapped, pauses = _Windows(), _Windows(), list[int]()
    turn = 0
    for number in range(_ROUNDS):
        quiet.append(_load(pod, number, lambda end: time.sleep(end - time.monotonic())))
        until_next = _WINDOW_SECONDS / (_SWAPS / _ROUNDS)

        def swap(end: float, until_next: float = until_next) -> None:
            nonlocal turn
            due = time.monotonic()
            for _ in range(_SWAPS // _ROUNDS):
                turn += 1
                status = pod.order([first, second], activate=(first, second)[turn % 2])
                pauses.append(status["pauseMicroseconds"])
                due += until_next
                time.sleep(max(0.0, due - time.monotonic()))

        swapped.append(_load(pod, number, swap))
    return quiet, swapped, pauses


class _Windows(list[list[Answer]]):
    """The answers of each window."""

    @property
    def all(self) -> list[Answer]:
        return [answer for window in self for answer in window]


def _load(pod: _Pod, seed: int, during: Callable[[float], None]) -> list[Answer]:
    with load(pod.pods.ready, seed=seed) as answers:
        during(time.monotonic() + _WINDOW_SECONDS)
    return answers


def _memory(idle: int, peak: int) -> Figure:
    how = "RssAnon of the agent's process, sampled while it stages both versions; the arenas are shared memory"
    return Figure("agent's peak memory beyond the arenas, over idle", (peak - idle) / 1e6, "MB", "<= 64", how)


def _swap_figures(
    pauses: list[int], quiet: _Windows, swapped: _Windows, directories: dict[str, Path]
) -> Iterator[Figure]:
    how = f"median of {len(pauses)} swaps under load, in the engine; the longest {max(pauses) / 1000:.3f} ms"
    yield Figure("swap: time in which no request can start", statistics.median(pauses) / 1000, "ms", "<= 0.2", how)
    ratios = [_p99(after) / _p99(before) for before, after in zip(quiet, swapped, strict=True)]
    how = (
        f"median of {len(ratios)} pairs of windows with the same arrivals ({min(ratios):.2f} to {max(ratios):.2f});"
        f" of all {len(swapped.all)} streams with {len(pauses)} swaps {_p99(swapped.all):.0f} ms,"
        f" of {len(quiet.all)} without {_p99(quiet.all):.0f} ms"
    )
    yield Figure("open-loop p99 latency during 20 swaps", statistics.median(ratios), "×", "<= 1.3", how)
    answers = quiet.all + swapped.all
    failed = [answer for answer in answers if answer.error]
    yield Figure("failed requests", len(failed), "", "<= 0", f"of {len(answers)}")
    named = Counter(answer.version for answer in swapped.all if not answer.error)
    how = "in the windows with swaps: " + ", ".join(f"{version} {count}" for version, count in sorted(named.items()))
    yield Figure("versions that the answers name", len(named), "", ">= 2", how)
    torn = Rescorer(directories).torn(answer for answer in answers if not answer.error)
    yield Figure("torn answers", len(torn), "", "<= 0", "each rescored, token by token, by the version that it names")


def _p99(answers: list[Answer]) -> float:
    return 1000 * percentile([answer.latency for answer in answers if not answer.error], 0.99)


@contextlib.contextmanager
def _peak(value: Callable[[], int]) -> Iterator[list[int]]:
    """Sample `value` until the block ends; the list's one item is the largest."""
    found, stop = [value()], threading.Event()

    def sample() -> None:
        while not stop.wait(0.005):
            found[0] = max(found[0], value())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _until(get: Callable[[], dict[str, Any] | None], seconds: float) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := get()) is not None:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"the pod did not follow its order within {seconds:.0f} s")
