"""A Deployment that serves a model, as its owner writes it: the engine and one label; the API server adds the agent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.api import Api
from cluster.kubectl import Kubectl
from cluster.process import wait_until
from deployed.target import Target

PORT = 8000
LABEL = "modelparams.dev/model"
Object = dict[str, Any]
Start = tuple[int, str]
"""Restarts of a container, and since when it runs."""


def deployment(model: str, replicas: int, *, image: str, memory: str, limit: str = "", **environment: str) -> Object:
    """What a user writes.

    Args:
        model: the label's value, and the Deployment's name.
        replicas: how many pods.
        image: the serving image.
        memory: of the volume of both arenas.
        limit: the engine's memory limit, if any.
        environment: variables of the engine.
    """
    engine = {
        "name": "engine",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["modelparams-serve"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"limits": {"memory": limit}} if limit else {},
    }
    labels = {LABEL: model}
    template = {
        "metadata": {"labels": labels, "annotations": {"modelparams.dev/memory": memory}},
        "spec": {"enableServiceLinks": False, "terminationGracePeriodSeconds": 30, "containers": [engine]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": model}, "spec": spec}


@dataclass
class Serving:
    """The pods of one model, as the Deployment of its name makes them."""

    target: Target
    namespace: str
    model: str
    _ways: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _urls: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kubectl = Kubectl(self.target.kubeconfig, self.namespace)
        self._api = Api(self.target.kubeconfig)

    def close(self) -> None:
        """Forget the ways to the pods."""
        self._ways.close()

    def pods(self) -> list[Object]:
        """Those that are not on their way out, by name."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self._api.get(path, labelSelector=f"{LABEL}={self.model}")["items"]
        return sorted(
            (p for p in found if "deletionTimestamp" not in p["metadata"]), key=lambda p: str(p["metadata"]["name"])
        )

    def ready(self) -> list[tuple[str, str]]:
        """Name and base URL of each pod that is Ready."""
        return [(name_of(p), self._url(p)) for p in self.pods() if is_ready(p)]

    def url(self, pod: str) -> str:
        """The base URL of a pod's engine, from here."""
        (found,) = [p for p in self.pods() if name_of(p) == pod]
        return self._url(found)

    def _url(self, pod: Object) -> str:
        name = name_of(pod)
        lives = (name, pod["status"].get("podIP", ""))  # another one after its node's power was cut
        if lives not in self._urls:
            self._urls[lives] = self._ways.enter_context(self.target.reach(self.namespace, f"pod/{name}", PORT))
        return self._urls[lives]

    def starts(self) -> dict[str, Start]:
        """Of each container, as `pod/container`."""
        return starts(self.pods())

    def scale(self, replicas: int) -> None:
        """Ask for another number of pods; does not wait."""
        self.kubectl("scale", f"deployment/{self.model}", f"--replicas={replicas}")

    def wait_running(self, number: int, *, seconds: float) -> None:
        """Until so many pods run, all their containers started."""
        wait_until(lambda: sum(map(is_running, self.pods())) == number, f"{number} running pods", seconds=seconds)

    def wait_ready(self, number: int, *, seconds: float) -> None:
        """Until so many pods are Ready, and no other is there."""
        wait_until(
            lambda: [is_ready(p) for p in self.pods()] == [True] * number,
            f"{number} ready pods of {self.model}",
            seconds=seconds,
        )


def starts(pods: Iterable[Object]) -> dict[str, Start]:
    """Of each container, as `pod/container`: how often it was started again, and since when it runs."""
    return {
        f"{name_of(p)}/{c['name']}": (c["restartCount"], c.get("state", {}).get("running", {}).get("startedAt", ""))
        for p in pods
        for c in statuses(p).values()
    }


def name_of(pod: Object) -> str:
    """Its name."""
    return str(pod["metadata"]["name"])


def statuses(pod: Object) -> Mapping[str, Object]:
    """Of its containers, by name, sidecars too."""
    status = pod.get("status", {})
    return {c["name"]: c for key in ("initContainerStatuses", "containerStatuses") for c in status.get(key, ())}


def is_ready(pod: Object) -> bool:
    """True when its condition says so."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def is_running(pod: Object) -> bool:
    """True when all its containers run, ready or not."""
    found = statuses(pod).values()
    return bool(found) and all("running" in c.get("state", {}) for c in found)
