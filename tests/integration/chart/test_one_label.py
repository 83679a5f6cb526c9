"""One label is enough: what the API server makes of pods, and that the component for older clusters makes the same."""

from __future__ import annotations

import copy
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.chart import CHART, RELEASE, SYSTEM, Object, values
from cluster.api import Api, ApiError
from cluster.control_plane import ControlPlane
from cluster.helm import Helm
from cluster.kubectl import Kubectl
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("chart")]

COMPONENT = Path(__file__).parents[3] / "serving" / "kustomize" / "agent"
PODS = "/api/v1/namespaces/models/pods"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
PLAIN: Object = {"containers": [{"name": "engine", "image": "vllm"}]}
FURNISHED: Object = {
    "serviceAccountName": "modelparams-agent",
    "securityContext": {"runAsUser": 1000},
    "initContainers": [
        {"name": "migrate", "image": "web", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
        {"name": "proxy", "image": "proxy", "restartPolicy": "Always"},
    ],
    "containers": [
        {"name": "logger", "image": "logger", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
        {
            "name": "engine",
            "image": "vllm",
            "ports": [{"name": "http", "containerPort": 9000}],
            "env": [{"name": "MODE", "value": "fast"}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        },
    ],
    "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "more", "emptyDir": {}}],
}
SHAPES = {
    "plain": PLAIN,
    "furnished": FURNISHED,
    "without a token": PLAIN | {"automountServiceAccountToken": False},
    "another account": PLAIN | {"serviceAccountName": "modelparams-agent"},
}
shapes = pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)


@pytest.fixture(scope="module")
def models(bare_cluster: ControlPlane) -> Api:
    """A cluster with the chart, and a namespace `models` that serves."""
    api = Api(bare_cluster.kubeconfig)
    for name in ("models", "others"):
        api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    Helm(bare_cluster.kubeconfig)(
        "install", RELEASE, CHART, "--namespace", SYSTEM, "--create-namespace",
        *values(serving_namespaces=[{"name": "models"}]),
    )  # fmt: skip
    for name in ("models", "others"):
        wait_until(
            lambda at=name: api.find(f"/api/v1/namespaces/{at}/serviceaccounts/default") is not None, "it", seconds=30
        )
    broken = {
        "modelparams.dev/memory": "lots"
    }  # refused as soon as the policies are in force, the last one applied too
    wait_until(lambda: "no quantity of memory" in refusal(api, PLAIN, annotations=broken), "the policies", seconds=30)
    wait_until(lambda: agent(admitted(api, PLAIN)) is not None, "the injection", seconds=30)
    return api


def pod(spec: Object, labels: Object | None = None, annotations: Object | None = None) -> Object:
    labels = {"modelparams.dev/model": "smollm2"} if labels is None else labels
    metadata = {"name": f"web-{uuid.uuid4().hex[:8]}", "labels": labels, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(spec)}


def admitted(api: Api, spec: Object, *, path: str = PODS, **metadata: Any) -> Object:
    """The spec that the API server would store."""
    return dict(api.post(f"{path}?dryRun=All", pod(spec, **metadata))["spec"])


def refusal(api: Api, spec: Object, **metadata: Any) -> str:
    try:
        admitted(api, spec, **metadata)
    except ApiError as error:
        return error.message
    return ""


def containers(spec: Object) -> dict[str, Object]:
    return {c["name"]: c for c in [*spec.get("initContainers", []), *spec["containers"]]}


def agent(spec: Object) -> Object | None:
    return containers(spec).get("modelparams-agent")


def mounts(container: Object) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}


def volume(spec: Object, name: str) -> Object:
    (found,) = [v for v in spec["volumes"] if v["name"] == name]
    return dict(found)


@shapes
def test_the_label_brings_the_agent_as_the_first_native_sidecar(models: Api, spec: Object) -> None:
    made = admitted(models, spec)
    first, *others = made["initContainers"]
    assert (first["name"], first["restartPolicy"]) == ("modelparams-agent", "Always")
    assert [c["name"] for c in others] == [c["name"] for c in spec.get("initContainers", [])]
    assert made["containers"][0]["name"] == spec["containers"][0]["name"]


@shapes
def test_the_agent_has_identity_keys_trust_and_credentials(models: Api, spec: Object) -> None:
    made = admitted(models, spec)
    given = agent(made)
    assert given is not None
    assert mounts(given) == {
        "/run/modelparams": "modelparams-runtime",
        TOKEN: "modelparams-identity",
        "/etc/modelparams/keys": "modelparams-keys",
        "/etc/modelparams/trust": "modelparams-trust",
    }
    env = {e["name"]: e.get("valueFrom", {}) for e in given["env"]}
    assert env["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == "modelparams-s3"
    assert env["MODELPARAMS_MODEL"]["fieldRef"]["fieldPath"] == "metadata.labels['modelparams.dev/model']"
    assert volume(made, "modelparams-runtime")["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}


@shapes
def test_no_other_container_has_a_token_a_key_or_a_credential(models: Api, spec: Object) -> None:
    made = admitted(models, spec)
    assert made["automountServiceAccountToken"] is False
    assert [v["name"] for v in made["volumes"] if v["name"].startswith("kube-api-access")] == []
    for name, container in containers(made).items():
        if name != "modelparams-agent":
            assert TOKEN not in mounts(container)
            assert set(mounts(container).values()) <= {"scratch", "modelparams-runtime"}
            assert "AWS" not in json.dumps(container)
            assert "secret" not in json.dumps(container).lower()


@shapes
def test_the_memory_is_mounted_where_the_engine_is_and_nowhere_else(models: Api, spec: Object) -> None:
    made = admitted(models, spec)
    sharing = {name for name, c in containers(made).items() if "/run/modelparams" in mounts(c)}
    assert sharing == {"engine", "modelparams-agent"}
    assert made["securityContext"]["fsGroup"] == 65532


@pytest.mark.parametrize(
    ("names", "annotations", "engine"),
    [
        (["web", "side"], {}, "web"),
        (["side", "engine"], {}, "engine"),
        (["engine", "vllm"], {"modelparams.dev/engine": "vllm"}, "vllm"),
    ],
)
def test_the_engine_is_the_one_that_is_named_so(
    models: Api, names: list[str], annotations: Object, engine: str
) -> None:
    made = admitted(models, {"containers": [{"name": n, "image": n} for n in names]}, annotations=annotations)
    assert [c["name"] for c in made["containers"] if "/run/modelparams" in mounts(c)] == [engine]
    assert [c["name"] for c in made["containers"] if "readinessProbe" in c] == [engine]


def test_the_pod_is_ready_when_a_version_is_applied_unless_it_says_otherwise(models: Api) -> None:
    def probe(spec: Object) -> Object:
        return dict(containers(admitted(models, spec))["engine"]["readinessProbe"]["httpGet"])

    own = {"httpGet": {"path": "/mine", "port": 1}}
    assert probe(PLAIN) == {"path": "/readyz", "port": 8000, "scheme": "HTTP"}
    assert probe(FURNISHED)["port"] == 9000
    assert probe({"containers": [{"name": "engine", "image": "x", "readinessProbe": own}]})["path"] == "/mine"


def test_annotations_name_the_memory_and_the_keys(models: Api) -> None:
    wanted = {"modelparams.dev/memory": "600Mi", "modelparams.dev/keys": "smollm2,smollm2-2027"}
    made = admitted(models, PLAIN, annotations=wanted)
    assert volume(made, "modelparams-runtime")["emptyDir"]["sizeLimit"] == "600Mi"
    sources = [s["secret"] for s in volume(made, "modelparams-keys")["projected"]["sources"]]
    # As `modelparams keys kek NAME --secret` makes them, and as the agent looks for them.
    assert [(s["name"], s["items"]) for s in sources] == [
        (name, [{"key": "key", "path": f"{name}/key"}]) for name in ("smollm2", "smollm2-2027")
    ]


def test_a_group_of_the_pod_s_own_is_kept(models: Api) -> None:
    assert admitted(models, PLAIN | {"securityContext": {"fsGroup": 7}})["securityContext"] == {"fsGroup": 7}


@pytest.mark.parametrize(
    ("labels", "own"),
    [
        ({}, []),
        ({"modelparams.dev/model": "smollm2", "modelparams.dev/inject": "false"}, []),
        ({"modelparams.dev/model": "smollm2"}, [{"name": "modelparams-agent", "image": "mine"}]),
    ],
    ids=["no label", "opted out", "an agent of its own"],
)
def test_a_pod_that_does_not_ask_is_left_alone(models: Api, labels: Object, own: list[Object]) -> None:
    made = admitted(models, {"initContainers": own, **PLAIN}, labels=labels)
    assert [c["image"] for c in made.get("initContainers", [])] == [c["image"] for c in own]
    assert TOKEN in mounts(containers(made)["engine"])
    assert not [v for v in made["volumes"] if v["name"].startswith("modelparams")]


def test_a_pod_that_runs_is_never_changed(models: Api) -> None:
    made = models.post(PODS, pod(PLAIN, labels={}))
    labelled = {"metadata": {"labels": {"modelparams.dev/model": "smollm2"}}}
    assert models.patch(f"{PODS}/{made['metadata']['name']}", labelled)["spec"] == made["spec"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"annotations": {"modelparams.dev/memory": "lots"}}, "modelparams.dev/memory is lots, which is no quantity"),
        ({"annotations": {"modelparams.dev/memory": "0"}}, "write twice the size of the largest version, such as 4Gi"),
        (
            {"annotations": {"modelparams.dev/engine": "vllm"}},
            "names vllm, and the pod has no such container: name one of engine",
        ),
        (
            {"annotations": {"modelparams.dev/keys": "../a"}},
            "modelparams.dev/keys names ../a: write the names of Secrets",
        ),
        (
            {"labels": {"modelparams.dev/model": "Smol_LM"}},
            "is Smol_LM, which is no model name: use lower-case letters",
        ),
    ],
)
def test_what_cannot_be_given_is_refused_with_what_to_change(models: Api, asked: Object, words: str) -> None:
    assert words in refusal(models, PLAIN, **asked)


def test_a_pod_that_wants_its_token_everywhere_is_told_why_not(models: Api) -> None:
    said = refusal(models, PLAIN | {"automountServiceAccountToken": True})
    assert "the engine must have none: leave the field out, and mount a projected token into the container" in said


def test_a_restricted_namespace_takes_the_agent(models: Api) -> None:
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = f"restricted-{uuid.uuid4().hex[:8]}"
    models.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": enforced}})
    wait_until(lambda: models.find(f"/api/v1/namespaces/{name}/serviceaccounts/default") is not None, "it", seconds=30)
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "engine", "image": "x", "securityContext": safe}],
    }
    assert agent(admitted(models, spec, path=f"/api/v1/namespaces/{name}/pods")) is not None


def test_an_editor_reaches_no_secret_of_another_namespace_by_it(models: Api, bare_cluster: ControlPlane) -> None:
    models.post("/api/v1/namespaces/others/secrets", {"metadata": {"name": "prized"}, "stringData": {"key": "x"}})
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "editor"}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    who = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "editor"}]
    bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/models/rolebindings"
    models.post(bindings, {**head, "roleRef": role, "subjects": who})
    editor = Api(bare_cluster.kubeconfig_for("editor"))
    wait_until(lambda: not refusal(editor, PLAIN), "the editor's rights", seconds=30)
    for name in ("others/prized", "../others/prized", "others.prized/../x"):
        assert "write the names of Secrets" in refusal(editor, PLAIN, annotations={"modelparams.dev/keys": name})
    with pytest.raises(ApiError) as label:
        editor.post(PODS, pod(PLAIN, labels={"modelparams.dev/model": "others/prized"}))
    assert label.value.code == 422
    made = editor.post(PODS, pod(PLAIN, labels={"modelparams.dev/model": "prized"}))
    # A volume has no namespace: it is the pod's own, where there is no such Secret.
    assert made["metadata"]["namespace"] == "models"
    for source in volume(made["spec"], "modelparams-keys")["projected"]["sources"]:
        assert set(source["secret"]) == {"name", "items", "optional"}
    assert models.find("/api/v1/namespaces/models/secrets/prized") is None
    for path in ("secrets/prized", "secrets", "pods"):
        with pytest.raises(ApiError) as denied:
            editor.get(f"/api/v1/namespaces/others/{path}")
        assert denied.value.code == 403


# Older clusters.


def with_component(spec: Object, folder: Path) -> Object:
    """The pod template's spec that kustomize makes of a Deployment."""
    labels = {"app": "web", "modelparams.dev/model": "smollm2"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    for name, document in {"web.yaml": deployment, "service.yaml": service}.items():
        (folder / name).write_text(json.dumps(document))
    component = os.path.relpath(COMPONENT, folder.resolve())
    top = {"resources": ["web.yaml", "service.yaml"], "components": [component]}
    (folder / "kustomization.yaml").write_text(json.dumps(top))
    built = Kubectl(Path(os.devnull))("kustomize", str(folder))
    (made,) = [d for d in yaml.safe_load_all(built) if d["kind"] == "Deployment"]
    return dict(made["spec"]["template"]["spec"])


@shapes
def test_the_component_gives_the_pod_that_the_api_server_gives(models: Api, spec: Object, tmp_path: Path) -> None:
    ready = copy.deepcopy(spec)
    for container in ready["containers"]:
        if container["name"] == "engine":
            container["readinessProbe"] = {"httpGet": {"path": "/readyz", "port": 8000}}
    patched, injected = admitted(models, with_component(ready, tmp_path)), admitted(models, ready)
    # Kustomize puts the container that it patches first; among those that start together that means nothing.
    assert sorted(patched.pop("containers"), key=_name) == sorted(injected.pop("containers"), key=_name)
    assert patched == injected


def _name(container: Object) -> str:
    return str(container["name"])
