"""The harness itself: what the other integration tests stand on."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cluster.api import Api, ApiError
from cluster.control_plane import Access, ControlPlane, create_kinds
from cluster.kubectl import Kubectl
from cluster.process import wait_until
from cluster.state import disk_root, processes_of, start_time

pytestmark = pytest.mark.integration

_WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.modelparams.dev"},
    "spec": {
        "group": "modelparams.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def _pod(name: str) -> dict[str, object]:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": "nowhere", "containers": [{"name": "c", "image": "none"}]},
    }


def test_a_killed_run_leaves_no_process_and_no_file(control_plane_tools: None) -> None:
    script = (
        "import cluster.control_plane as c; p = c.ControlPlane(crds=[]); p.start(); print('up', flush=True); input()"
    )
    tests = str(Path(__file__).parents[1])
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": tests},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout
        assert run.stdout.readline() == "up\n"
        home = disk_root() / f"{run.pid}-{start_time(run.pid)}"
        assert len(processes_of(home)) == 3
        os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not home.exists() and not processes_of(home), "the guard to sweep", seconds=20)


def test_the_audit_log_has_bodies_of_our_group_only(own_widgets: Access, namespace: str) -> None:
    api = Api(own_widgets.kubeconfig)
    widget = {"apiVersion": "modelparams.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "size": 7}
    api.post(f"/apis/modelparams.dev/v1/namespaces/{namespace}/widgets", widget)
    api.post(
        f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "s"}, "stringData": {"k": "not-for-the-log"}}
    )
    mine = [e for e in own_widgets.audit_events() if e.get("objectRef", {}).get("namespace") == namespace]
    bodies = {e["objectRef"]["resource"]: e.get("requestObject") for e in mine if e["verb"] == "create"}
    assert bodies["widgets"]["size"] == 7
    assert bodies["secrets"] is None
    assert "not-for-the-log" not in own_widgets.audit_log.read_text()


@pytest.fixture
def own_widgets(control_plane: Access, api: Api) -> Access:
    """The shared control plane, with a kind of our group that no other test has."""
    create_kinds(api, [_WIDGETS])
    return control_plane


def test_secrets_are_encrypted_in_etcd(control_plane: Access, api: Api, namespace: str) -> None:
    secret = {"metadata": {"name": "s"}, "stringData": {"key": "not-for-the-disk"}}
    api.post(f"/api/v1/namespaces/{namespace}/secrets", secret)
    key = base64.b64encode(f"/registry/secrets/{namespace}/s".encode()).decode()
    request = urllib.request.Request(f"{control_plane.etcd_url}/v3/kv/range", json.dumps({"key": key}).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        value = base64.b64decode(json.load(answer)["kvs"][0]["value"])
    assert value.startswith(b"k8s:enc:aesgcm:v1:k1:")
    assert b"not-for-the-disk" not in value


def test_a_user_without_a_role_may_nothing(control_plane: Access, namespace: str) -> None:
    stranger = Api(control_plane.kubeconfig_for("stranger"))
    with pytest.raises(ApiError) as refused:
        stranger.get(f"/api/v1/namespaces/{namespace}/pods")
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")


def test_what_a_deleted_object_owned_is_garbage_collected(api: Api, namespace: str) -> None:
    pods, maps = f"/api/v1/namespaces/{namespace}/pods", f"/api/v1/namespaces/{namespace}/configmaps"
    pod = api.post(pods, _pod("owner"))
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "owner", "uid": pod["metadata"]["uid"]}
    api.post(maps, {"metadata": {"name": "owned", "ownerReferences": [owner]}})
    api.delete(f"{pods}/owner", grace_seconds=0)
    wait_until(lambda: api.find(f"{maps}/owned") is None, "the garbage collector", seconds=20)


def test_kubectl_shows_what_users_see(kubectl: Kubectl) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}})
    assert kubectl.json("get", "configmap", "m")["data"] == {"a": "b"}


def test_objects_outlive_a_crash_of_the_api_server_and_of_etcd(own_control_plane: ControlPlane) -> None:
    api = Api(own_control_plane.kubeconfig)
    api.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "m"}})
    own_control_plane.kill_apiserver()
    with pytest.raises(ConnectionError):
        api.get("/api/v1/namespaces/default/configmaps/m")
    own_control_plane.kill_etcd()
    own_control_plane.start_etcd()
    own_control_plane.start_apiserver()
    assert api.get("/api/v1/namespaces/default/configmaps/m")["metadata"]["name"] == "m"
