"""A namespace with an operator's rights, played pods and real sealed versions: what each operator test stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from builders.agents import Agents
from builders.operator_process import OperatorProcess
from builders.releases import Releases
from cluster.api import Api
from cluster.process import wait_until
from modelparams.api import API_VERSION, GROUP

Object = dict[str, Any]
DEPLOY = Path(__file__).parents[2] / "operator" / "deploy"
OPERATOR_USER = "system:serviceaccount:modelparams-system:modelparams-operator"
DEFAULT = "tiny-llama-default"
_LIMIT = 60
_KINDS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/{}",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/{}",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings/{}",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles/{1}",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{1}",
}


def install_rights(api: Api) -> None:
    """The operator's own, as users install them."""
    if api.find("/api/v1/namespaces/modelparams-system") is None:
        api.apply("/api/v1/namespaces/modelparams-system", _object("v1", "Namespace", "modelparams-system"))
    for subject in _documents("rbac.yaml"):
        _apply(api, subject["metadata"].get("namespace", ""), subject)


def open_namespace(api: Api, namespace: str) -> None:
    """What a serving namespace needs; and, since each test has its lease in its own namespace, the right on that."""
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
    role = _object("rbac.authorization.k8s.io/v1", "Role", "lease") | {"rules": [rule]}
    binding = _object("rbac.authorization.k8s.io/v1", "RoleBinding", "lease") | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lease"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR_USER}],
    }
    for subject in (*_documents("serving-rbac.yaml"), role, binding):
        _apply(api, namespace, subject)


def open_alone(api: Api, namespace: str, user: str) -> None:
    """Give `user` an operator's rights in this namespace and no other, as the chart does for watched namespaces."""
    rules = [rule for one in _documents("rbac.yaml") if one["kind"] in ("ClusterRole", "Role") for rule in one["rules"]]
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    role = _object("rbac.authorization.k8s.io/v1", "Role", "alone") | {"rules": [*rules, secrets]}
    binding = _object("rbac.authorization.k8s.io/v1", "RoleBinding", "alone") | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "alone"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    for subject in (role, binding):
        _apply(api, namespace, subject)


def _documents(file: str) -> list[Object]:
    return [document for document in yaml.safe_load_all((DEPLOY / file).read_text()) if document]


def _apply(api: Api, namespace: str, subject: Object) -> None:
    api.apply(_KINDS[subject["kind"]].format(namespace, subject["metadata"]["name"]), subject)


def _object(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def conditions(subject: Object) -> dict[str, str]:
    """Type to status/reason."""
    found = subject.get("status", {}).get("conditions", [])
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in found}


@dataclass
class Stage:
    """A namespace with its pods and its versions, and how to start operators for it."""

    api: Api
    namespace: str
    kubeconfig: Path
    """The operator's."""
    releases: Releases
    agents: Agents
    folder: Path

    def operator(self, name: str = "operator", **more: Any) -> OperatorProcess:
        """One that is not started yet: use it as a context."""
        return OperatorProcess(
            self.folder,
            kubeconfig=self.kubeconfig,
            namespace=self.namespace,
            trust=self.releases.trust,
            name=name,
            **more,
        )

    def path(self, plural: str, name: str = "") -> str:
        """Of our kinds."""
        return f"/apis/{GROUP}/{API_VERSION}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def apply(self, *versions: str, **how: Any) -> None:
        """Apply version files; `how` as `Releases.version` takes it."""
        for version in versions:
            subject = self.releases.version(version, **how)
            self.api.apply(self.path("modelparamversions", subject["metadata"]["name"]), subject)

    def apply_rollout(self, name: str = "tiny-llama", **spec: Any) -> None:
        """Apply a user's rollout."""
        body = _object(f"{GROUP}/{API_VERSION}", "ModelParamRollout", name)
        policy = {"type": "HighestSemver", "range": ">=1.0.0 <2.0.0"}
        body["spec"] = {"modelName": Releases.model, "versionPolicy": policy, **spec}
        self.api.apply(self.path("modelparamrollouts", name), body)

    def delete(self, version: str) -> None:
        """As a Git revert does."""
        self.api.delete(self.path("modelparamversions", f"{Releases.model}-{version}"))

    def version(self, version: str) -> Object:
        """The object, or nothing."""
        return self.api.find(self.path("modelparamversions", f"{Releases.model}-{version}")) or {}

    def rollout(self, name: str = DEFAULT) -> Object:
        """The object, or nothing."""
        return self.api.find(self.path("modelparamrollouts", name)) or {}

    def pods(self, *names: str) -> None:
        """Make pods that opted in."""
        for name in names:
            self.agents.create(name)

    def events(self, name: str) -> list[tuple[str, str]]:
        """Type and reason of an object's events."""
        found = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [(e["type"], e["reason"]) for e in found if e["regarding"]["name"] == name]

    def counts(self, name: str) -> dict[str, int]:
        """How often each reason of an object's events has happened."""
        found = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        ours = [e for e in found if e["regarding"]["name"] == name]
        return {e["reason"]: (e.get("series") or {}).get("count", 1) for e in ours}

    def wait(self, holds: Callable[[], bool], what: str, seconds: float = _LIMIT) -> None:
        """Wait, and tell on failure how the objects are."""
        try:
            wait_until(holds, what, seconds=seconds)
        except TimeoutError as late:
            versions = self.api.get(self.path("modelparamversions"))["items"]
            seen = {v["metadata"]["name"]: conditions(v) for v in versions}
            told = f"{late}; versions {seen}; rollout {self.rollout().get('status')}; live {self.agents.live()}"
            raise AssertionError(told) from late

    def wait_until_live(self, **versions: str) -> None:
        """Wait until exactly these pods serve these versions: `web_0="1.0.0"`."""
        wanted = {name.replace("_", "-"): version for name, version in versions.items()}
        self.wait(lambda: self.agents.live() == wanted, f"live {wanted}")

    def wait_until_all_live(self, version: str) -> None:
        """Wait until each pod serves it."""
        names = [pod.name for pod in self.agents.all()]
        self.wait(lambda: self.agents.live() == dict.fromkeys(names, version), f"{version} on all of {names}")

    def wait_for_version(self, version: str, **wanted: str) -> None:
        """Wait for conditions, such as Ready="True/Live"."""
        self.wait(lambda: wanted.items() <= conditions(self.version(version)).items(), f"version {version} {wanted}")

    def wait_for_rollout(self, name: str = DEFAULT, **wanted: str) -> None:
        """Wait for conditions, such as Ready="True/Promoted"."""
        self.wait(lambda: wanted.items() <= conditions(self.rollout(name)).items(), f"rollout {name} {wanted}")
