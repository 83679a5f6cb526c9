"""The story's scene without a node: a real control plane and S3 server, the operator and the pods as processes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.api import Api
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from cluster.pods import PodRunner
from cluster.process import Process, free_port
from cluster.s3 import Versitygw
from demo.scene import BUCKET, MODEL, NAMESPACE, ROOT, Cast, publish
from deployed.publisher import Publisher
from deployed.serving import Start, starts

_OPERATOR_NAMESPACE = "modelparams-system"
_OPERATOR = f"system:serviceaccount:{_OPERATOR_NAMESPACE}:modelparams-operator"


@dataclass
class Processes:
    """A `Scene` of tier 2."""

    publisher: Publisher
    control_plane: ControlPlane
    s3: Versitygw
    kubectl: Kubectl
    pods: PodRunner
    tier: int = 2

    def object_file(self, version: str) -> Path:
        """In the publisher's folder."""
        return self.publisher.object_file(version)

    def tamper(self) -> None:
        """In the server's folder."""
        blobs = self.s3.object_path(BUCKET, f"{MODEL}/blobs/sha256").iterdir()
        newest = max((blob for blob in blobs if blob.is_file()), key=lambda blob: blob.stat().st_mtime_ns)
        with newest.open("r+b") as file:
            file.seek(newest.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))

    def ready(self) -> Sequence[tuple[str, str]]:
        """As their readiness probes have it."""
        return self.pods.ready()

    def starts(self) -> Mapping[str, Start]:
        """As the Pod objects have it."""
        return starts(Api(self.control_plane.kubeconfig).get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"])

    def log(self, pod: str, container: str) -> str:
        """Over its restarts."""
        return self.pods.logs(pod, container)


@contextlib.contextmanager
def processes(cast: Cast, say: Callable[[str], None]) -> Iterator[Processes]:
    """Bring all up; on the way out, or on any error, end it all."""
    with contextlib.ExitStack() as stack:
        say("starting etcd, kube-apiserver, kube-controller-manager and the S3 server")
        control_plane = stack.enter_context(ControlPlane())
        s3 = stack.enter_context(Versitygw())
        s3.bucket(BUCKET)
        _install(Kubectl(control_plane.kubeconfig))
        store = f"s3://{BUCKET}/{MODEL}?endpoint={s3.endpoint}"
        publisher = Publisher(cast.work, MODEL, store, s3.environment, ("--namespace", NAMESPACE))
        publisher.make_keys()
        runner = PodRunner(control_plane.access, NAMESPACE)
        play = Processes(publisher, control_plane, s3, Kubectl(control_plane.kubeconfig, NAMESPACE), runner)
        say("starting the operator and the pods (each an agent and an engine, with the pod's own token)")
        stack.enter_context(_operator(play))
        stack.enter_context(runner)
        _start_pods(play, cast.pods)
        publish(publisher, cast, say)
        yield play


def _install(kubectl: Kubectl) -> None:
    """Apply what the chart holds: namespaces, roles, policies."""
    for name in (NAMESPACE, _OPERATOR_NAMESPACE):
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    deploy = ROOT / "operator" / "deploy"
    for file in ("rbac.yaml", "policies.yaml"):
        kubectl("apply", "-f", str(deploy / file))
    kubectl("apply", "-f", str(deploy / "serving-rbac.yaml"), "--namespace", NAMESPACE)


@contextlib.contextmanager
def _operator(play: Processes) -> Iterator[Process]:
    """The operator as its service account, with the rights of operator/deploy alone and no key."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{_OPERATOR_NAMESPACE}"]
    environment = {
        **os.environ,
        **play.s3.environment,
        "KUBECONFIG": str(play.control_plane.kubeconfig_for(_OPERATOR, groups)),
        "MODELPARAMS_TRUST": str(play.publisher.trust),
        "MODELPARAMS_LEASE_NAMESPACE": _OPERATOR_NAMESPACE,
        "MODELPARAMS_METRICS_HOST": "127.0.0.1",
        "MODELPARAMS_METRICS_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "modelparams_operator", "run"]
    process = Process("operator", command, environment, play.publisher.work / "operator.log")
    process.start()
    try:
        yield process
    finally:
        process.kill()


def _start_pods(play: Processes, count: int) -> None:
    environment = {
        **play.s3.environment,
        "MODELPARAMS_TRUST": str(play.publisher.trust),
        "MODELPARAMS_KEYS": str(play.publisher.work / "keys"),
        "MODELPARAMS_THREADS": "1",
    }
    for number in range(count):
        play.pods.create(f"{MODEL}-{number}", model=MODEL, environment=environment)
