"""Pods from the images, as the chart runs them: nobody's user, no capability, a root that cannot be written."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from typing import Any

import pytest

from cluster.api import Api
from cluster.images import Images, load_into
from cluster.kubectl import Kubectl, KubectlFailed
from cluster.node import Node
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.node]

SECONDS = 120
COMMANDS = {
    "operator": ["modelparams-operator", "run", "--help"],
    "agent": ["modelparams-agent", "--help"],
    "engine": ["modelparams-serve", "--help"],
}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
RUNTIME = {"name": "runtime", "mountPath": "/run/modelparams"}


@pytest.fixture(scope="session")
def loaded(node: Node, images: Images) -> Images:
    """On the node."""
    begin = time.monotonic()
    load_into(node, images)
    print(f"\nboth images on the node after {time.monotonic() - begin:.1f} s")
    begin = time.monotonic()
    load_into(node, images)
    print(f"and again after {time.monotonic() - begin:.1f} s")
    return images


class Pods:
    """Pods of one container each."""

    def __init__(self, api: Api, kubectl: Kubectl) -> None:
        self.api, self.kubectl = api, kubectl

    def start(self, name: str, image: str, command: list[str] | None = None) -> None:
        container = {
            "name": "c",
            "image": image,
            "securityContext": RESTRICTED,
            "volumeMounts": [RUNTIME],
            **({"command": command} if command else {}),
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"fsGroup": 65532},
            "containers": [container],
            "volumes": [{"name": "runtime", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
        }
        self.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.api.get(f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{name}")["status"])

    def ended(self, name: str) -> dict[str, Any] | None:
        [status] = self.status(name).get("containerStatuses") or [{"state": {}}]
        return status["state"].get("terminated")

    def end(self, name: str) -> dict[str, Any]:
        wait_until(lambda: self.ended(name) is not None, f"the end of {name}", seconds=SECONDS)
        found = self.ended(name)
        assert found is not None
        return found

    def ask_to_end(self, name: str) -> None:
        """As kubelet does, which also ends what was begun inside of the container."""
        with contextlib.suppress(KubectlFailed):
            self.python(name, "import os, signal; os.kill(1, signal.SIGTERM)")

    def python(self, name: str, script: str) -> str:
        return self.kubectl("exec", name, "--", "python", "-c", script)


@pytest.fixture
def pods(api: Api, kubectl: Kubectl) -> Pods:
    return Pods(api, kubectl)


def answers(address: str, path: str) -> int | None:
    connection = http.client.HTTPConnection(address, 8000, timeout=3)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def test_each_command_says_what_it_does(loaded: Images, pods: Pods) -> None:
    for name, command in COMMANDS.items():
        pods.start(name, loaded.operator if name == "operator" else loaded.serving, command)
    for name in COMMANDS:
        ended = pods.end(name)
        log = pods.kubectl("logs", name)
        assert (ended["exitCode"], "MODELPARAMS_" in log) == (0, True), log


def test_the_operator_that_has_no_settings_says_so_and_ends(loaded: Images, pods: Pods) -> None:
    pods.start("bare", loaded.operator)
    assert pods.end("bare")["exitCode"] == 2
    assert "MODELPARAMS_TRUST" in pods.kubectl("logs", "bare")


def test_a_program_ends_when_told_also_before_it_has_said_how(loaded: Images, pods: Pods) -> None:
    """As the first process of its container it would not even notice."""
    pods.start("imports", loaded.operator, ["python", "-c", "import time; time.sleep(600)"])
    wait_until(lambda: pods.status("imports")["phase"] == "Running", "it to run", seconds=SECONDS)
    pods.ask_to_end("imports")
    assert pods.end("imports")["exitCode"] == 143


def test_an_engine_answers_before_it_has_parameters_and_ends_in_order_when_told(loaded: Images, pods: Pods) -> None:
    begin = time.monotonic()
    pods.start("engine", loaded.serving)
    wait_until(lambda: "podIP" in pods.status("engine"), "its address", seconds=SECONDS)
    address = pods.status("engine")["podIP"]
    wait_until(lambda: answers(address, "/healthz") == 200, "its health", seconds=SECONDS)
    print(f"\nhealth answers {time.monotonic() - begin:.1f} s after apply")
    assert answers(address, "/readyz") == 503
    facts = "import json, os; print(json.dumps([os.getuid(), os.getgid(), os.access('/opt/venv', os.W_OK)]))"
    assert json.loads(pods.python("engine", facts)) == [65532, 65532, False]
    with pytest.raises(KubectlFailed, match="Read-only file system"):
        pods.python("engine", "open('/tmp/x', 'w')")
    torch = "import torch; print(torch.ones(2).sum().item(), torch.cuda.is_available())"
    assert pods.python("engine", torch).split() == ["2.0", "False"]
    pods.ask_to_end("engine")
    ended = pods.end("engine")
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed"), pods.kubectl("logs", "engine")
