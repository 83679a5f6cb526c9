"""What only a real kubelet does: real pods, their network, their memory, their ends."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from builders.workloads import READY, container, pod, service, serving
from cluster.api import Api
from cluster.kubectl import Kubectl, KubectlFailed
from cluster.node import ImageFailed, Node, NodeRefused
from cluster.node.settings import PAUSE
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.node]

SECONDS = 60.0


class Scene:
    """One namespace on the node."""

    def __init__(self, node: Node, api: Api, kubectl: Kubectl) -> None:
        self.node, self.api, self.kubectl = node, api, kubectl
        self.path = f"/api/v1/namespaces/{kubectl.namespace}"

    def pods(self, app: str) -> list[dict[str, Any]]:
        found = self.api.get(f"{self.path}/pods", labelSelector=f"app={app}")["items"]
        return [p for p in found if "deletionTimestamp" not in p["metadata"]]

    def names(self, app: str) -> set[str]:
        return {p["metadata"]["name"] for p in self.pods(app)}

    def serve(self, app: str, replicas: int, **more: Any) -> list[str]:
        """A serving Deployment whose pods run and are not ready; their names."""
        self.kubectl.apply(serving(app, replicas, **more))
        wait_until(lambda: len(self.running(app)) == replicas, f"{replicas} running pods of {app}", seconds=SECONDS)
        return self.running(app)

    def running(self, app: str) -> list[str]:
        return [p["metadata"]["name"] for p in self.pods(app) if p["status"]["phase"] == "Running"]

    def ready(self, app: str) -> list[str]:
        return [p["metadata"]["name"] for p in self.pods(app) if is_ready(p)]

    def allow(self, pod_name: str) -> None:
        """Let a pod's readiness probe pass."""
        self.run(pod_name, "touch", READY)

    def run(self, pod_name: str, *command: str) -> str:
        return self.kubectl("exec", pod_name, "-c", "engine", "--", "/bin/pod", *command)

    def service_address(self, app: str) -> str:
        self.kubectl.apply(service(app))
        return str(self.api.get(f"{self.path}/services/{app}")["spec"]["clusterIP"])

    def wait_ready(self, app: str, number: int) -> None:
        wait_until(lambda: len(self.ready(app)) == number, f"{number} ready pods of {app}", seconds=SECONDS)


def is_ready(p: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))


def restarts(p: dict[str, Any]) -> dict[str, int]:
    status = p["status"]
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {c["name"]: c["restartCount"] for c in every}


@pytest.fixture
def scene(node: Node, api: Api, kubectl: Kubectl) -> Scene:
    return Scene(node, api, kubectl)


def ask(url: str) -> str | None:
    """Who answers, or None."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as answer:
            return str(answer.read().decode().strip())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def test_a_deployment_with_a_native_sidecar_and_a_memory_volume_becomes_ready(scene: Scene) -> None:
    begin = time.monotonic()
    names = scene.serve("web", 2)
    print(f"\n2 pods run {time.monotonic() - begin:.1f} s after apply")
    assert [scene.run(name, "cat", "/shared/by-agent") for name in names] == ["written", "written"]
    assert scene.ready("web") == []
    for name in names:
        scene.allow(name)
    scene.wait_ready("web", 2)
    assert [restarts(p) for p in scene.pods("web")] == [{"agent": 0, "engine": 0}] * 2


def test_a_pods_own_token_reaches_the_api_server_by_the_service_address(scene: Scene) -> None:
    [name] = scene.serve("web", 1)
    path = f"{scene.path}/pods/{name}"
    assert scene.run(name, "api", path).startswith("403"), "it is known, and may nothing yet"
    account = f"system:serviceaccount:{scene.kubectl.namespace}:default"
    scene.kubectl("create", "role", "reader", "--verb=get", "--resource=pods")
    scene.kubectl("create", "rolebinding", "reader", "--role=reader", f"--user={account}")
    wait_until(lambda: scene.run(name, "api", path).startswith("200"), "the role to count", seconds=10)
    assert f'"name":"{name}"' in scene.run(name, "api", path)


def test_a_service_sends_requests_to_ready_pods_only(scene: Scene) -> None:
    first, second = scene.serve("web", 2)
    url = f"http://{scene.service_address('web')}/"
    assert ask(url) is None
    scene.allow(first)
    wait_until(lambda: ask(url) == first, "the Service to find the ready pod", seconds=SECONDS)
    assert {ask(url) for _ in range(20)} == {first}
    scene.allow(second)
    wait_until(lambda: ask(url) == second, "the Service to find the other too", seconds=SECONDS)
    assert scene.run(first, "get", url).startswith("200"), "a pod reaches a Service that it is behind"
    scene.run(first, "remove", READY)
    wait_until(lambda: scene.ready("web") == [second], "the first to be unready", seconds=SECONDS)
    wait_until(lambda: {ask(url) for _ in range(20)} == {second}, "the Service to leave it out", seconds=SECONDS)


def test_a_deleted_pod_is_replaced_and_its_neighbour_goes_on(scene: Scene) -> None:
    gone, stays = scene.serve("web", 2)
    scene.kubectl("delete", "pod", gone)
    wait_until(lambda: len(scene.running("web")) == 2, "a new pod", seconds=SECONDS)
    assert gone not in scene.names("web")
    [neighbour] = [p for p in scene.pods("web") if p["metadata"]["name"] == stays]
    assert restarts(neighbour) == {"agent": 0, "engine": 0}


def test_a_container_that_eats_too_much_is_killed_and_started_again_and_its_neighbour_is_not(scene: Scene) -> None:
    scene.kubectl.apply(pod("hungry", container("eater", "eat", memory="24Mi"), container("other", "pause")))

    def eater() -> dict[str, Any]:
        statuses = scene.api.get(f"{scene.path}/pods/hungry")["status"].get("containerStatuses", [])
        return next((c for c in statuses if c["name"] == "eater"), {})

    wait_until(lambda: eater().get("restartCount", 0) > 0, "the eater to be killed", seconds=SECONDS)
    ended = eater()["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert restarts(scene.api.get(f"{scene.path}/pods/hungry"))["other"] == 0


@pytest.mark.parametrize("program", ["kubelet", "containerd", "kube-proxy"])
def test_pods_outlive_a_crash_of_what_runs_them(scene: Scene, program: str) -> None:
    [name] = scene.serve("web", 1)
    scene.allow(name)
    scene.wait_ready("web", 1)
    scene.node.kill(program)
    scene.node.start_program(program)
    scene.kubectl.apply(serving("later", 1))
    wait_until(lambda: len(scene.running("later")) == 1, f"a new pod after {program} came back", seconds=SECONDS)
    assert [restarts(p) for p in scene.pods("web")] == [{"agent": 0, "engine": 0}]
    assert scene.ready("web") == [name]


def test_after_a_power_cut_pods_come_back_without_what_was_in_memory(scene: Scene) -> None:
    [name] = scene.serve("web", 1)
    scene.allow(name)
    scene.wait_ready("web", 1)
    scene.node.reboot()
    wait_until(lambda: restarts(scene.pods("web")[0])["engine"] == 1, "its second start", seconds=SECONDS)
    assert scene.running("web") == [name]
    assert scene.ready("web") == []
    assert scene.run(name, "cat", "/shared/by-agent") == "written"
    url = f"http://{scene.service_address('web')}/"
    scene.allow(name)
    wait_until(lambda: ask(url) == name, "the Service to find it again", seconds=SECONDS)


def test_a_new_layer_on_an_image_that_is_there_makes_another_image(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "version").write_text("2")
    image = "localhost/modelparams/pod:2"
    scene.node.load_layer(PAUSE, image, {"app": tmp_path / "code"})
    [name] = scene.serve("web", 1, image=image)
    assert scene.run(name, "cat", "/app/version") == "2"
    with pytest.raises(ImageFailed, match="no image localhost/none:1 on the node; there are localhost/"):
        scene.node.load_layer("localhost/none:1", image, {})


def test_there_is_no_way_out_of_the_world(node: Node) -> None:
    links = {path.name for path in Path("/sys/class/net").iterdir()}
    assert {"lo", "node0", "node1"} <= links
    assert {name for name in links if not name.startswith("veth")} == {"lo", "node0", "node1"}


def test_an_order_that_makes_no_sense_is_refused_with_what_would(node: Node) -> None:
    with pytest.raises(NodeRefused, match="one of start, stop, kill, then one of containerd, kubelet, kube-proxy"):
        node.kill("docker")
    with pytest.raises(NodeRefused, match="kubelet runs already"):
        node.start_program("kubelet")


def test_the_logs_of_a_container_come_through_the_api_server(scene: Scene) -> None:
    scene.kubectl.apply(pod("speaks", container("c", "cat", "/no-such-file")))

    def said() -> bool:
        try:
            return "no such file" in scene.kubectl("logs", "speaks")
        except KubectlFailed:
            return False

    wait_until(said, "its log", seconds=SECONDS)
