"""What someone looks at first when a scene does not do what it should."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.kubectl import Kubectl, KubectlFailed
from deployed.release import SYSTEM
from deployed.scene import Scene

_LINES = "--tail=25"


def explain(scene: Scene) -> str:
    """Objects, events and logs, as text."""
    return "\n".join(f"$ kubectl {' '.join(command)}\n{said}" for command, said in _asked(scene))


def _asked(scene: Scene) -> Iterator[tuple[tuple[str, ...], str]]:
    system = Kubectl(scene.target.kubeconfig, SYSTEM)
    pods = ("--selector", f"modelparams.dev/model={scene.plan.model}")
    for kubectl, command in (
        (scene.kubectl, ("get", "pods,mpv,mpr,mpa", "-o", "wide")),
        (scene.kubectl, ("get", "events", "--sort-by=.lastTimestamp")),
        (scene.kubectl, ("get", "mpv,mpr,mpa", "-o", "jsonpath={range .items[*]}{.kind} {.status}{'\\n'}{end}")),
        (scene.kubectl, ("logs", *pods, "-c", "modelparams-agent", "--prefix", _LINES)),
        (scene.kubectl, ("logs", *pods, "-c", "engine", "--prefix", _LINES)),
        (system, ("get", "pods", "-o", "wide")),
        (system, ("logs", "deployment/modelparams-operator", "--all-pods", "--prefix", _LINES)),
    ):
        yield command, _said(kubectl, command)


def _said(kubectl: Kubectl, command: tuple[str, ...]) -> str:
    try:
        return kubectl(*command)
    except KubectlFailed as failed:
        return f"{failed}\n"
