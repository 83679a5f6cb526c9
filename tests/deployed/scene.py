"""A cluster with our chart, an S3 server, a publisher, and a Deployment that serves: what a platform team has."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.api import Api
from cluster.kubectl import Kubectl
from deployed.publisher import Publisher
from deployed.release import Release
from deployed.serving import Serving, deployment
from deployed.store import SECRET, Store, store
from deployed.target import Target

BUCKET = "weights"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_COMPONENT = Path(__file__).parents[2] / "serving" / "kustomize" / "agent"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be brought up.

    Attributes:
        namespace: a fresh one, in which the model is served; it is deleted at the end.
        model, replicas, memory: of the Deployment; memory is the volume's size.
        operator, serving: images, which the cluster has.
        engine: variables of the engine.
        limit: the engine's memory limit, if any.
    """

    namespace: str
    model: str
    replicas: int
    memory: str
    operator: str
    serving: str
    engine: dict[str, str]
    limit: str = ""

    def deployment(self) -> dict[str, Any]:
        """As the model's owner writes it."""
        return deployment(
            self.model,
            self.replicas,
            image=self.serving,
            memory=self.memory,
            limit=self.limit,
            **self.engine,
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """All of it, running."""

    target: Target
    plan: Plan
    store: Store
    publisher: Publisher
    release: Release
    serving: Serving
    kubectl: Kubectl


def _nothing(publisher: Publisher) -> None:
    """Publish no version yet."""


@contextlib.contextmanager
def scene(
    target: Target,
    plan: Plan,
    work: Path,
    say: Callable[[str], None],
    *,
    meanwhile: Callable[[Publisher], None] = _nothing,
    stays: bool = False,
) -> Iterator[Scene]:
    """Bring it up, the serving pods started and without a version; take it down, but for the kinds.

    Args:
        target: the cluster; it has the images of the plan.
        plan: what to bring up.
        work: an empty folder for the publisher.
        say: told what is done next.
        meanwhile: done, in a thread of its own, while chart and pods start: what needs the store alone.
        stays: take nothing down: the cluster itself goes.
    """
    with contextlib.ExitStack() as stack:
        kubectl = stack.enter_context(_namespace(target, plan.namespace, stays=stays))
        keys = Publisher(work, plan.model, store="", login={})
        keys.make_keys()
        say("the chart is installed: helm upgrade --install; beside it an S3 server starts in the cluster")
        release = Release(target, plan.operator, plan.serving, keys.trust, plan.namespace)
        if not stays:
            stack.callback(release.uninstall)
        beside = stack.enter_context(ThreadPoolExecutor(2))
        installed = beside.submit(release.install)
        s3 = stack.enter_context(store(target, plan.namespace))
        publisher = _publisher(keys, plan, s3)
        kubectl.apply(s3.secret(), publisher("keys", "kek", plan.model, "--secret", "--namespace", plan.namespace))
        published = beside.submit(meanwhile, publisher)
        installed.result()
        say(f"a Deployment of {plan.replicas} pods with the label modelparams.dev/model: {plan.model} is applied")
        apply_deployment(kubectl, plan.deployment(), work)
        serving = Serving(target, plan.namespace, plan.model)
        stack.callback(serving.close)
        serving.wait_running(plan.replicas, seconds=120)
        published.result()
        yield Scene(target, plan, s3, publisher, release, serving, kubectl)


@contextlib.contextmanager
def _namespace(target: Target, name: str, *, stays: bool) -> Iterator[Kubectl]:
    """Make it; delete it with all that is in it, unless it stays."""
    admin = Kubectl(target.kubeconfig)
    admin("create", "namespace", name)
    try:
        yield Kubectl(target.kubeconfig, name)
    finally:
        if not stays:
            admin("delete", "namespace", name, timeout=180)


def apply_deployment(kubectl: Kubectl, deployment: dict[str, Any], work: Path) -> None:
    """As the API server can add the agent by itself, or, before 1.36, with the component that does the same."""
    api = Api(kubectl.kubeconfig)
    if any(kind["name"] == "mutatingadmissionpolicies" for kind in (api.find(_ADMISSION) or {}).get("resources", ())):
        kubectl.apply(deployment)
        return
    folder = Path(tempfile.mkdtemp(dir=work))
    (folder / "deployment.yaml").write_text(json.dumps(deployment))
    component = os.path.relpath(_COMPONENT, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        json.dumps({"resources": ["deployment.yaml"], "components": [component]})
    )
    kubectl("apply", "-k", str(folder))


def _publisher(keys: Publisher, plan: Plan, s3: Store) -> Publisher:
    """The one with those keys, now that there is a store to publish to."""
    s3.bucket(BUCKET)
    options = ("--namespace", plan.namespace, "--credentials-secret", SECRET, "--cluster-endpoint", s3.inside)
    address = f"s3://{BUCKET}/{plan.model}?endpoint={s3.outside}"
    return replace(keys, store=address, login=s3.login.environment, options=options)
