"""One serving pod on a real control plane, and a test that plays its operator.

The agent is the real one, with the pod's own token; the engine is the fake one, in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from builders.fake_engine_process import FAULTS
from builders.releases import Releases
from cluster.api import Api
from cluster.control_plane import Access
from cluster.pods import PodRunner
from cluster.process import wait_until
from modelparams.api import API_VERSION, GROUP
from modelparams.api.version import VersionSpec
from modelparams.reasons import Reason

ROOT = Path(__file__).parents[2]
ENGINE = (sys.executable, str(ROOT / "tests" / "builders" / "fake_engine_process.py"))
OPERATOR = "system:serviceaccount:modelparams-system:modelparams-operator"
SAMPLES = {"1.0.0": "v1.0.0", "1.1.0": "v1.1.0", "1.2.0": "v1.0.0"}
LIMIT = 30
Object = dict[str, Any]


def grant(api: Api, namespace: str) -> str:
    """Give the agents of a namespace what operator/deploy gives them, and say what their account is called."""
    account = ""
    for document in yaml.safe_load_all((ROOT / "operator" / "deploy" / "serving-rbac.yaml").read_text()):
        kind, name = document["kind"], document["metadata"]["name"]
        if kind == "ServiceAccount":
            account, path = name, f"/api/v1/namespaces/{namespace}/serviceaccounts"
        else:
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{kind.lower()}s"
        for subject in document.get("subjects", []):
            subject.setdefault("namespace", namespace)
        api.apply(f"{path}/{name}", document)
    return account


@dataclass
class Scene:
    """One pod, and a test that plays its operator."""

    api: Api
    operator: Api
    namespace: str
    pods: PodRunner
    releases: Releases
    folder: Path
    endpoint: str | None = None
    term: int = 1
    url: str = "http://127.0.0.1:9"
    samples: dict[str, str] = field(default_factory=lambda: dict(SAMPLES))
    """By version: the directory that is published as it."""
    _releases: dict[str, Object] = field(default_factory=dict)

    name = "web-0"

    def start(self, **environment: str) -> None:
        """Create the pod."""
        given = self.releases.server.environment | {
            "MODELPARAMS_KEYS": str(self.folder / "keys"),
            "MODELPARAMS_TRUST": str(self.releases.trust),
        }
        self.pods.create(self.name, model=self.releases.model, environment=given | environment)

    def path(self, plural: str = "modelparamassignments", name: str = "web-0") -> str:
        return f"/apis/{GROUP}/{API_VERSION}/namespaces/{self.namespace}/{plural}/{name}"

    def release(self, version: str) -> Object:
        """As an order names it."""
        if version not in self._releases:
            self.releases.publish(version, sample=self.samples[version])
            source = self.releases.source(endpoint=self.endpoint, secret=None)
            made = self.releases.version(version, source=source)
            self._releases[version] = VersionSpec.parse(made["spec"]).release().wire()
        return self._releases[version]

    def order(self, *versions: str, activate: str | None = None, attempt: str = "", **changes: Any) -> None:
        """Write the pod's assignment as the operator does."""
        pod = self.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{self.name}")
        spec: Object = {
            "rolloutName": "tiny-llama",
            "podUID": pod["metadata"]["uid"],
            "releases": [self.release(version) | changes for version in versions],
            "term": self.term,
            "attempt": attempt,
        }
        if activate:
            spec["activate"] = self.release(activate)["manifestDigest"]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": pod["metadata"]["uid"]}
        body = {
            "apiVersion": f"{GROUP}/{API_VERSION}",
            "kind": "ModelParamAssignment",
            "metadata": {"name": self.name, "namespace": self.namespace, "ownerReferences": [owner]},
            "spec": spec,
        }
        self.operator.apply(self.path(), body, manager="modelparams-operator")

    def status(self) -> Object:
        """What the pod says."""
        found = self.api.find(self.path()) or {}
        return dict(found.get("status", {}))

    def serves(self) -> str | None:
        """What the engine answers with, computed from the bytes in its arena, also while its agent is down."""
        self.url = next((url for _, url in self.pods.ready()), self.url)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/live", timeout=5) as answer:
            found: str | None = json.loads(answer.read()).get("version")
            return found
        return None

    def wait(self, holds: Callable[[], bool], seconds: float = LIMIT) -> None:
        """Wait until it holds; else tell what the pod said."""
        try:
            wait_until(holds, "it", seconds=seconds)
        except TimeoutError as late:
            raise AssertionError(f"{late}: {self.told()}") from late

    def wait_live(self, version: str) -> None:
        def is_live() -> bool:
            return self.status().get("live", {}).get("version") == version and self.serves() == version

        self.wait(is_live)

    def wait_failure(self, reason: Reason, *, final: bool) -> Object:
        """Wait until the pod says why."""

        def found() -> bool:
            failure = self.status().get("lastFailure", {})
            return (failure.get("reason"), failure.get("final", True)) == (str(reason), final)

        self.wait(found)
        return dict(self.status()["lastFailure"])

    def told(self) -> str:
        """For a failed test."""
        return f"{json.dumps(self.status(), indent=1)}\n{self.pods.logs(self.name, 'agent')[-4000:]}"

    def faults(self, **faults: Any) -> None:
        """Of the engine."""
        (self.pods.runtime_dir(self.name) / FAULTS).write_text(json.dumps(faults))


@contextlib.contextmanager
def staged(
    plane: Access,
    api: Api,
    namespace: str,
    releases: Releases,
    folder: Path,
    engine: Sequence[str] = ENGINE,
) -> Iterator[Scene]:
    operator = Api(plane.kubeconfig_for(OPERATOR, ["system:masters"]))
    account = grant(api, namespace)
    with PodRunner(plane, namespace, engine=engine, service_account=account) as pods:
        yield Scene(api, operator, namespace, pods, releases, folder)
