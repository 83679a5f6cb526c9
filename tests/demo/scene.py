"""Everything that the story plays on: real servers, the real operator, and pods as processes; all gone at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from cluster.pods import PodRunner
from cluster.process import Process, free_port
from cluster.s3 import Versitygw

ROOT = Path(__file__).parents[2]
NAMESPACE, OPERATOR_NAMESPACE, MODEL, BUCKET = "demo", "modelparams-system", "smollm2", "weights"
ROLLOUT = f"{MODEL}-default"  # the operator makes it when a first version has none
_OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:modelparams-operator"
_ENGINE_READY_SECONDS = 120.0


class NotReached(RuntimeError):
    """Something did not happen in its time."""


@dataclass
class Scene:
    """What the chapters use."""

    work: Path
    control_plane: ControlPlane
    s3: Versitygw
    kubectl: Kubectl
    pods: PodRunner

    @property
    def store(self) -> str:
        """The model's store as the command line takes it."""
        return f"s3://{BUCKET}/{MODEL}?endpoint={self.s3.endpoint}"

    def modelparams(self, *arguments: str) -> str:
        """Run the command line as a user would and give its standard output; its progress goes to the terminal."""
        command = [Path(sys.executable).with_name("modelparams"), *arguments]
        environment = dict(os.environ) | self.s3.environment
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=self.work, check=False)
        if done.returncode:
            raise NotReached(f"modelparams {arguments[0]} exited with {done.returncode}")
        return done.stdout

    def lay_out(self, version: str, source: Path) -> Path:
        """Make `params/<model>/v<version>/` of what `save_pretrained` wrote; the weights are linked."""
        target = self.work / "params" / MODEL / f"v{version}"
        shutil.copytree(source, target, copy_function=_link_weights)
        return target.relative_to(self.work)

    def publish(self, version: str, source: Path) -> Path:
        """Hash and publish one version and keep the object to apply."""
        directory = self.lay_out(version, source)
        self.modelparams("hash", str(directory))
        text = self.modelparams(
            "publish", str(directory), "--store", self.store, "--sign", "release.pem", "--namespace", NAMESPACE
        )
        file = self.work / f"{MODEL}-{version}.yaml"
        file.write_text(text)
        return file


@contextlib.contextmanager
def scene(work: Path, pods: int, say: Callable[[str], None]) -> Iterator[Scene]:
    """Bring all up; on the way out, or on any error, end it all."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        say("starting etcd, kube-apiserver, kube-controller-manager and the S3 server")
        control_plane = stack.enter_context(ControlPlane())
        s3 = stack.enter_context(Versitygw())
        s3.bucket(BUCKET)
        kubectl = Kubectl(control_plane.kubeconfig, NAMESPACE)
        _install(Kubectl(control_plane.kubeconfig))
        runner = PodRunner(control_plane.access, NAMESPACE)
        play = Scene(work, control_plane, s3, kubectl, runner)
        _make_keys(play)
        say("starting the operator and the pods (each an agent and an engine, with the pod's own token)")
        stack.enter_context(_operator(play))
        stack.enter_context(runner)
        _start_pods(play, pods)
        yield play


def eventually(what: str, holds: Callable[[], bool], *, seconds: float, every: float = 0.1) -> float:
    """Wait until `holds` and give the seconds that it took.

    Raises:
        NotReached: it did not hold in time.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise NotReached(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - start


def _link_weights(source: str, target: str) -> None:
    """Weights are large and never written again; config.json is, by `modelparams hash`."""
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):  # another file system: copy
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _install(kubectl: Kubectl) -> None:
    """Apply what the chart will hold: namespaces, roles, policies."""
    for name in (NAMESPACE, OPERATOR_NAMESPACE):
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    deploy = ROOT / "operator" / "deploy"
    for file in ("rbac.yaml", "policies.yaml"):
        kubectl("apply", "-f", str(deploy / file))
    kubectl("apply", "-f", str(deploy / "serving-rbac.yaml"), "--namespace", NAMESPACE)


def _make_keys(play: Scene) -> None:
    play.modelparams("keys", "kek", MODEL)
    play.modelparams("keys", "signer", "release.pem")
    play.modelparams("keys", "trust", "release.pem", "--out", "trust.json")


@contextlib.contextmanager
def _operator(play: Scene) -> Iterator[Process]:
    """The operator as its service account, with the rights of operator/deploy alone and no key."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{OPERATOR_NAMESPACE}"]
    environment = {
        **os.environ,
        **play.s3.environment,
        "KUBECONFIG": str(play.control_plane.kubeconfig_for(_OPERATOR, groups)),
        "MODELPARAMS_TRUST": str(play.work / "trust.json"),
        "MODELPARAMS_LEASE_NAMESPACE": OPERATOR_NAMESPACE,
        "MODELPARAMS_METRICS_HOST": "127.0.0.1",
        "MODELPARAMS_METRICS_PORT": str(free_port()),
    }
    process = Process(
        "operator",
        [sys.executable, "-m", "modelparams_operator", "run"],
        environment,
        play.work / "operator.log",
    )
    process.start()
    try:
        yield process
    finally:
        process.kill()


def _start_pods(play: Scene, count: int) -> None:
    for number in range(count):
        play.pods.create(
            f"{MODEL}-{number}",
            model=MODEL,
            environment={
                **play.s3.environment,
                "MODELPARAMS_TRUST": str(play.work / "trust.json"),
                "MODELPARAMS_KEYS": str(play.work / "keys"),
                "MODELPARAMS_THREADS": "1",
            },
        )


def load_yaml(file: Path) -> dict[str, object]:
    """One object of a file."""
    return dict(yaml.safe_load(file.read_text()))
