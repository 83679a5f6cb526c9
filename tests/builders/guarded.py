"""A namespace in which roles and policies of operator/deploy are in force, and ways to be somebody in it."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from builders import objects
from builders.objects import Object, assignment, pod, rollout, version
from cluster.api import Api, ApiError
from cluster.pki import kubeconfig
from cluster.process import wait_until

DEPLOY = Path(__file__).parents[2] / "operator" / "deploy"
SYSTEM, AGENT = "modelparams-system", "modelparams-agent"
PEOPLE = ("view", "edit", "admin")
VERSIONS, ROLLOUTS, ASSIGNMENTS = "modelparamversions", "modelparamrollouts", "modelparamassignments"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Role": RBAC + "/namespaces/{namespace}/roles",
    "RoleBinding": RBAC + "/namespaces/{namespace}/rolebindings",
    "ClusterRole": RBAC + "/clusterroles",
    "ClusterRoleBinding": RBAC + "/clusterrolebindings",
    "ValidatingAdmissionPolicy": ADMISSION + "/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": ADMISSION + "/validatingadmissionpolicybindings",
}


def documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def apply(api: Api, subject: Object, namespace: str) -> str:
    folder = PATHS[subject["kind"]].format(namespace=subject["metadata"].get("namespace", namespace))
    path = f"{folder}/{subject['metadata']['name']}"
    api.apply(path, subject)
    return path


def narrowed(subject: Object, namespace: str) -> Object:
    """The policy or binding under a name of this test's own, for its namespace alone."""
    mine = copy.deepcopy(subject)
    mine["metadata"]["name"] += f".{namespace}"
    if "policyName" in mine["spec"]:
        mine["spec"]["policyName"] += f".{namespace}"
        here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        mine["spec"]["matchResources"] = {"namespaceSelector": here}
    return mine


@dataclass(frozen=True)
class Guarded:
    """A namespace with agents' roles and the policies in force, and ways to be somebody in it."""

    admin: Api
    namespace: str
    folder: Path

    def path(self, plural: str, name: str = "", subresource: str = "") -> str:
        return objects.path(plural, self.namespace, name, subresource)

    def login(self, account: str, *, namespace: str = "", bound_to: Object | None = None) -> Api:
        """Whoever holds a token of a service account, bound to a pod or to nothing."""
        return Api(self.kubeconfig(account, namespace=namespace, bound_to=bound_to))

    def kubeconfig(self, account: str, *, namespace: str = "", bound_to: Object | None = None) -> Path:
        """For that login."""
        spec: dict[str, Any] = {"expirationSeconds": 3600}
        if bound_to is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", **name_and_uid(bound_to)}
        path = f"/api/v1/namespaces/{namespace or self.namespace}/serviceaccounts/{account}/token"
        token = self.admin.post(path, {"spec": spec})["status"]["token"]
        file = self.folder / f"{uuid.uuid4().hex}.kubeconfig"
        file.write_bytes(kubeconfig(self.admin.server, self.admin.ca, {"token": token}))
        return file

    @property
    def operator(self) -> Api:
        return self.login("modelparams-operator", namespace=SYSTEM)

    def pod(self, name: str) -> Object:
        body = pod(name)
        body["spec"]["serviceAccountName"] = AGENT
        return self.admin.post(f"/api/v1/namespaces/{self.namespace}/pods", body)

    def ordered_pod(self, name: str) -> Object:
        """A pod and the operator's order to it."""
        web = self.pod(name)
        self.operator.apply(self.path(ASSIGNMENTS, name), assignment(web), manager="modelparams-operator")
        return web


def name_and_uid(subject: Object) -> dict[str, str]:
    return {"name": subject["metadata"]["name"], "uid": subject["metadata"]["uid"]}


def code(call: Callable[[], object]) -> tuple[int, str]:
    try:
        call()
    except ApiError as refusal:
        return refusal.code, refusal.message
    return 200, ""


@contextlib.contextmanager
def guarded_namespace(api: Api, folder: Path) -> Iterator[Guarded]:
    """One of its own, in which the roles and policies of the tree are in force; `folder` is for logins."""
    namespace = f"guarded-{uuid.uuid4().hex[:8]}"
    api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    answer, why = code(lambda: api.post("/api/v1/namespaces", {"metadata": {"name": SYSTEM}}))
    assert answer in (200, 409), why  # another scene's is as good
    for subject in documents("rbac.yaml") + documents("serving-rbac.yaml"):
        apply(api, subject, namespace)
    made = [apply(api, narrowed(subject, namespace), namespace) for subject in documents("policies.yaml")]
    scene = Guarded(api, namespace, folder)
    _wait_until_in_force(scene)
    yield scene
    for path in [*made, f"/api/v1/namespaces/{namespace}"]:
        api.delete(path)


def _wait_until_in_force(scene: Guarded) -> None:
    """All five: the API server takes up policies and their bindings one after another."""
    for role in PEOPLE:
        apply_binding(scene, role)
    probe = scene.path(VERSIONS, "probe-1.0.0", "status")
    scene.admin.post(scene.path(VERSIONS), version(model="probe"))
    order, at = assignment(scene.pod("probe")), scene.path(ASSIGNMENTS, "probe")

    def orders() -> bool:
        return code(lambda: scene.operator.apply(at, order, manager="modelparams-operator"))[0] == 200

    wait_until(orders, "the operator's rights", seconds=30)

    def in_force() -> bool:
        answers = code(lambda: scene.admin.patch(f"{at}/status", {"status": {"observedGeneration": 1}}))[0]
        reports = code(lambda: scene.admin.patch(probe, {"status": {"observedGeneration": 1}}))[0]
        gives = tries_to_add(scene, scene.admin, ASSIGNMENTS, order)
        approves = tries_to_add(scene, scene.admin, ROLLOUTS, _approved_by_nobody())
        withdraws = tries_to_add(scene, scene.login("edit"), VERSIONS, _withdrawn())
        # People's rights are aggregated by the controller manager, one role after another.
        seen = code(lambda: scene.login("view").get(scene.path(VERSIONS)))[0]
        edits = [tries_to_add(scene, scene.login(r), VERSIONS, version(model="dry")) for r in ("edit", "admin")]
        denied = (answers, reports, gives, approves, withdraws)
        return (*denied, seen, *edits) == (403, 403, 403, 403, 403, 200, 200, 200)

    wait_until(in_force, "the policies", seconds=30)
    scene.admin.delete(f"/api/v1/namespaces/{scene.namespace}/pods/probe")


def _approved_by_nobody() -> Object:
    subject = rollout("dry", model="dry")
    subject["spec"]["approvals"] = [objects.approval("1.0.0", "nobody", model="dry")]
    return subject


def _withdrawn() -> Object:
    subject = version(model="dry")
    subject["spec"]["lifecycle"] = "Withdrawn"
    return subject


def tries_to_add(scene: Guarded, who: Api, plural: str, subject: Object) -> int:
    """The answer to who makes an object, without making it."""
    return code(lambda: who.post(scene.path(plural) + "?dryRun=All", subject))[0]


def apply_binding(scene: Guarded, role: str) -> None:
    """A service account of the built-in role's name that holds it."""
    head = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role}}
    apply(scene.admin, head, scene.namespace)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": scene.namespace}],
    }
    apply(scene.admin, binding, scene.namespace)


def login_as(scene: Guarded, who: str) -> Api:
    """The administrator, the operator, or the account of that name."""
    if who == "admin of the cluster":
        return scene.admin
    return scene.operator if who == "operator" else scene.login(who)
