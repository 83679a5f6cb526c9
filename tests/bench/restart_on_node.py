"""What `bench.restart` measures, inside of the node's world, where its pods and Services have addresses.

python -m bench.restart_on_node FOLDER      writes FOLDER/rounds.json
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.load import load
from bench.restart import FINE_TUNED, PODS, RETRAINED, Change
from bench.world import altered
from cluster import images
from cluster.process import wait_until
from deployed.model import Model
from deployed.publisher import Publisher
from deployed.scene import Plan, Scene, scene
from deployed.serving import LABEL, PORT
from deployed.target import target
from models import smollm2

_MODEL, _NAMESPACE = "bench", "bench"
_MEMORY = "640Mi"
"""Two arenas of the 269 MB model."""
_SECONDS = 600.0
_PODS_OF = ("get", "pods", "--selector", f"{LABEL}={_MODEL}")


def main(folder: Path) -> None:
    """Bring all up, and measure both ways in turn."""
    cluster = target()
    built = images.ensure(builder="buildah")
    cluster.take(built)
    (folder / "publisher").mkdir()
    sources = _sources(folder / "altered")
    bring = scene(
        cluster,
        _plan(built),
        folder / "publisher",
        print,
        meanwhile=lambda publisher: _publish(publisher, sources),
        stays=True,
    )
    with bring as running, _service(running) as url:
        rounds = _Bench(running, Model(running.kubectl, _MODEL), url).rounds()
    (folder / "rounds.json").write_text(json.dumps(rounds))


def _plan(built: images.Images) -> Plan:
    return Plan(
        namespace=_NAMESPACE,
        model=_MODEL,
        replicas=PODS,
        memory=_MEMORY,
        operator=built.operator,
        serving=built.serving,
        engine={"MODELPARAMS_THREADS": "1"},
    )


def _sources(folder: Path) -> list[Path]:
    """What is published, in turn: the model, rounds between it and its fine-tune, and rounds with every byte new."""
    base, fine_tuned, altered = smollm2.base(), smollm2.pirate(), _altered(smollm2.base(), folder)
    near = itertools.islice(itertools.cycle([fine_tuned, base]), FINE_TUNED)
    far = itertools.islice(itertools.cycle([altered, base]), RETRAINED)
    return [base, *near, *far]


def _altered(source: Path, folder: Path) -> Path:
    """The same model with every parameter another: nothing of a version before can be reused."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    altered(source / "model.safetensors", folder)
    return folder


def _publish(publisher: Publisher, sources: list[Path]) -> None:
    for number, source in enumerate(sources):
        publisher.publish(_version(number), source)


def _version(number: int) -> str:
    return f"1.{number}.0"


@contextlib.contextmanager
def _service(running: Scene) -> Iterator[str]:
    """A Service of the pods, and its base URL."""
    spec = {"selector": {LABEL: _MODEL}, "ports": [{"port": PORT}]}
    running.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": _MODEL}, "spec": spec})
    with running.target.reach(_NAMESPACE, f"service/{_MODEL}", PORT) as url:
        yield url


@dataclass(frozen=True, slots=True)
class _Bench:
    """The pods, and both ways to another version."""

    scene: Scene
    model: Model
    url: str

    def rounds(self) -> list[dict[str, Any]]:
        """One of ours and one restart each, with the same arrivals, once the first version is live."""
        self._roll_out(0)
        self._is_calm()
        return [self._round(number) for number in range(1, FINE_TUNED + RETRAINED + 1)]

    def _round(self, number: int) -> dict[str, Any]:
        ours = self._under_load(number, lambda: self._roll_out(number))
        ours = replace(ours, fetched=max(o["status"]["fetchedBytes"] for o in self.model.orders().values()))
        self._is_calm()
        restart = self._under_load(number, self._restart)
        self._is_calm()
        print(f"round {number}: {ours.seconds:.1f} s against {restart.seconds:.1f} s", flush=True)
        return {"ours": asdict(ours), "restart": asdict(restart)}

    def _under_load(self, seed: int, change: Callable[[], None]) -> Change:
        with load(lambda: [("the Service", self.url)], seed=seed) as answers:
            start = time.monotonic()
            change()
            seconds = time.monotonic() - start
        for answer in answers:
            if answer.error:
                print(f"failed: {answer.error}", flush=True)
        return Change(seconds, len(answers), sum(bool(answer.error) for answer in answers))

    def _roll_out(self, number: int) -> None:
        self.model.apply(self.scene.publisher.object_file(_version(number)))
        self.model.wait_live(_version(number), PODS, seconds=_SECONDS)

    def _restart(self) -> None:
        self.scene.kubectl("rollout", "restart", f"deployment/{_MODEL}")
        self.scene.kubectl("rollout", "status", f"deployment/{_MODEL}", timeout=_SECONDS)

    def _is_calm(self) -> None:
        """Until the pods that were replaced are gone, and all of the others serve."""
        wait_until(
            lambda: len(self.scene.kubectl.json(*_PODS_OF)["items"]) == PODS, "old pods to end", seconds=_SECONDS
        )
        self.scene.serving.wait_ready(PODS, seconds=_SECONDS)
        wait_until(self.model.is_at_rest, "the rollout to rest", seconds=_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
