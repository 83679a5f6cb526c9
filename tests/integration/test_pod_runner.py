"""The stand-in kubelet: what a pod of it can rely on, and what it cannot do."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.api import Api, ApiError, Object
from cluster.pods import PodRunner
from cluster.process import wait_until
from cluster.state import processes_of

pytestmark = pytest.mark.integration

_ENGINE = """
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/env":
            body = "\\n".join(f"{k}={v}" for k, v in os.environ.items()).encode()
        elif self.path == "/die":
            os._exit(3)
        else:
            body = b"ok"
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
print("engine starts", flush=True)
http.server.HTTPServer((os.environ["MODELPARAMS_HOST"], int(os.environ["MODELPARAMS_PORT"])), H).serve_forever()
"""
_AGENT = """
import os, pathlib, signal
def end(*_):
    print("agent ends in order", flush=True); os._exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(os.environ["MODELPARAMS_RUNTIME_DIR"], "seen").write_text(os.environ["MODELPARAMS_POD_NAME"])
print("agent starts", flush=True)
while True: signal.pause()
"""
_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
_ENVIRONMENT = {"AWS_SECRET_ACCESS_KEY": "for-the-agent-only", "MODELPARAMS_THREADS": "1"}


@pytest.fixture
def pods(kubeconfig: Path, namespace: str) -> Iterator[PodRunner]:
    python = [sys.executable, "-S", "-c"]
    with PodRunner(kubeconfig, namespace, agent=[*python, _AGENT], engine=[*python, _ENGINE]) as runner:
        yield runner


def _start(pods: PodRunner, *names: str) -> None:
    for name in names:
        pods.create(name, model="tiny", environment=_ENVIRONMENT)
    wait_until(lambda: {name for name, _ in pods.ready()} == set(names), "the pods to be ready", seconds=30)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_pods_are_ready_side_by_side_on_one_port(pods: PodRunner, api: Api, namespace: str) -> None:
    _start(pods, "a", "b")
    listed = api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    assert {_condition(pod, "Ready") for pod in listed} == {"True"}
    addresses = {pod["status"]["podIP"] for pod in listed}
    assert {f"http://{address}:8000" for address in addresses} == {url for _, url in pods.ready()}
    assert len(addresses) == 2


def _condition(pod: Object, kind: str) -> str:
    return next(c["status"] for c in pod["status"]["conditions"] if c["type"] == kind)


def test_the_token_names_its_pod_to_every_policy(kubeconfig: Path, pods: PodRunner, api: Api, namespace: str) -> None:
    _start(pods, "a")
    me = Api(pods.kubeconfig("a")).post(_REVIEWS, _REVIEW)["status"]["userInfo"]
    assert me["username"] == f"system:serviceaccount:{namespace}:modelparams-agent"
    assert me["extra"]["authentication.kubernetes.io/pod-name"] == ["a"]
    uid = api.get(f"/api/v1/namespaces/{namespace}/pods/a")["metadata"]["uid"]
    assert me["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]


def test_the_token_ends_with_its_pod(pods: PodRunner) -> None:
    _start(pods, "a")
    me = Api(pods.kubeconfig("a"))
    pods.delete("a")
    with pytest.raises(ApiError) as refused:
        me.post(_REVIEWS, _REVIEW)
    assert refused.value.code == 401


def test_the_engine_has_neither_login_nor_credential(pods: PodRunner) -> None:
    _start(pods, "a")
    told = _get(f"{pods.ready()[0][1]}/env")
    assert "MODELPARAMS_THREADS=1" in told
    assert "KUBECONFIG" not in told
    assert "for-the-agent-only" not in told


def test_a_dead_process_is_started_again_and_counted(pods: PodRunner, api: Api, namespace: str) -> None:
    _start(pods, "a")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        _get(f"{pods.ready()[0][1]}/die")
    wait_until(lambda: pods.restarts() == {"a/agent": 0, "a/engine": 1}, "the engine's restart", seconds=20)
    wait_until(lambda: len(pods.ready()) == 1, "the pod to be ready again", seconds=20)
    status = api.get(f"/api/v1/namespaces/{namespace}/pods/a")["status"]["containerStatuses"][0]
    assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (1, 3)
    assert pods.logs("a").count("engine starts") == 2


def test_a_killed_agent_leaves_the_engine_and_the_memory_volume(pods: PodRunner) -> None:
    _start(pods, "a")
    engine = pods.pid("a", "engine")
    (pods.runtime_dir("a") / "arena").write_bytes(b"x")
    pods.kill("a", "agent")
    wait_until(lambda: pods.restarts() == {"a/agent": 1, "a/engine": 0}, "the agent's restart", seconds=20)
    assert pods.pid("a", "engine") == engine
    assert (pods.runtime_dir("a") / "arena").read_bytes() == b"x"
    assert (pods.runtime_dir("a") / "seen").read_text() == "a"


def test_a_deleted_pod_ends_in_order_and_is_gone(pods: PodRunner) -> None:
    _start(pods, "a")
    log = pods._container("a", "agent").process.log
    pods.delete("a")
    assert log.read_text() == "agent starts\nagent ends in order\n"
    wait_until(lambda: pods.restarts() == {}, "the node to forget the pod", seconds=5)


def test_a_deployment_scales_up_and_down(pods: PodRunner, api: Api, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = pods.template("tiny", _ENVIRONMENT, {"app": "web"})
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    api.post(path, {"metadata": {"name": "web"}, "spec": spec})
    wait_until(lambda: api.get(f"{path}/web")["status"].get("availableReplicas") == 2, "two replicas", seconds=30)
    api.patch(f"{path}/web", {"spec": {"replicas": 1}})
    wait_until(lambda: len(pods.restarts()) == 2, "one pod to be left", seconds=30)


def test_a_command_that_is_none_shows_as_a_crash_loop(kubeconfig: Path, api: Api, namespace: str) -> None:
    with PodRunner(kubeconfig, namespace, agent=["/no/such/program"], engine=[sys.executable, "-c", ""]) as pods:
        pods.create("a", model="tiny")
        wait_until(lambda: pods.restarts().get("a/agent", 0) > 1, "restarts", seconds=20)
        assert "No such file" in pods.logs("a", "agent")
        assert pods.ready() == []


def test_nothing_runs_after_the_node(kubeconfig: Path, namespace: str) -> None:
    python = [sys.executable, "-S", "-c"]
    with PodRunner(kubeconfig, namespace, agent=[*python, _AGENT], engine=[*python, _ENGINE]) as pods:
        _start(pods, "a")
        folder, memory = pods.runtime_dir("a"), pods._state.path
        assert len(processes_of(memory)) == 2
    assert processes_of(memory) == []
    assert not folder.exists()
    assert json.dumps(pods.ready()) == "[]"
