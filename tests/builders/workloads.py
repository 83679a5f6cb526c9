"""Real pods of the test program `pod`, for a real node."""

from __future__ import annotations

from typing import Any

from cluster.node.settings import PAUSE as IMAGE

SHARED = "/shared"
READY = f"{SHARED}/ready"
PORT = 8080


def container(name: str, *command: str, image: str = IMAGE, memory: str = "32Mi", **more: Any) -> dict[str, Any]:
    """One that runs `pod COMMAND`."""
    return {
        "name": name,
        "image": image,
        "command": ["/bin/pod", *command],
        "resources": {"limits": {"memory": memory}},
        **more,
    }


def pod(name: str, *containers: dict[str, Any]) -> dict[str, Any]:
    """A pod that dies at once when told to."""
    spec = {"terminationGracePeriodSeconds": 1, "containers": list(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def serving(name: str, replicas: int, *, image: str = IMAGE) -> dict[str, Any]:
    """A Deployment shaped as a serving one: a native sidecar fills a memory volume, the server is ready by a file."""
    mount = {"name": "shared", "mountPath": SHARED}
    sidecar = container(
        "agent",
        "write",
        f"{SHARED}/by-agent",
        "written",
        restartPolicy="Always",
        startupProbe={"exec": {"command": ["/bin/pod", "cat", f"{SHARED}/by-agent"]}, "periodSeconds": 1},
        volumeMounts=[mount],
    )
    server = container(
        "engine",
        "serve",
        READY,
        image=image,
        readinessProbe={"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 1, "failureThreshold": 1},
        volumeMounts=[mount],
    )
    spec = {
        "terminationGracePeriodSeconds": 1,
        "initContainers": [sidecar],
        "containers": [server],
        "volumes": [{"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(name: str) -> dict[str, Any]:
    """In front of the Deployment of that name, on port 80."""
    ports = [{"port": 80, "targetPort": PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }
