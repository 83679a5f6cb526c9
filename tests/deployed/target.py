"""A cluster that takes our images, and how to reach what runs in it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.api import Api
from cluster.images import Images, load_into
from cluster.kubectl import Kubectl
from cluster.node import Node
from cluster.process import Process, free_port
from cluster.tools import binary

LOAD, REBOOT = "MODELPARAMS_LOAD_IMAGE", "MODELPARAMS_REBOOT_NODE"
"""Environment variables: the command that takes an image archive, `{}` being its file; the one that restarts a node."""


class NoTarget(RuntimeError):
    """There is no cluster to use; the message says how to name one."""


class Target(Protocol):
    """A cluster."""

    @property
    def kubeconfig(self) -> Path:
        """Its administrator's."""

    @property
    def name(self) -> str:
        """For people."""

    def load(self, archive: Path) -> None:
        """Let its nodes have an image."""

    def take(self, images: Images) -> None:
        """Let its nodes have the product's images."""

    def reach(self, namespace: str, target: str, port: int) -> contextlib.AbstractContextManager[str]:
        """The base URL of a port of `pod/NAME` or `service/NAME`, from here, while the context lasts."""

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """End a container's first process: at once where that can be done, else by asking it to."""

    def reboot(self) -> None:
        """Restart a node; does not wait until it is back.

        Raises:
            NoTarget: nobody said how.
        """


@dataclass(frozen=True)
class RealNode:
    """The node that this process runs inside of: its pod and Service addresses are ours too."""

    node: Node
    name: str = "a real node of this machine"

    @property
    def kubeconfig(self) -> Path:
        """Its administrator's."""
        return self.node.kubeconfig

    def load(self, archive: Path) -> None:
        """By containerd's import."""
        self.node.load(archive)

    def take(self, images: Images) -> None:
        """Their layers are linked; none is copied."""
        load_into(self.node, images)

    @contextlib.contextmanager
    def reach(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """By its own address."""
        kind, _, name = target.partition("/")
        found = Api(self.kubeconfig).get(f"/api/v1/namespaces/{namespace}/{kind}s/{name}")
        address = found["spec"]["clusterIP"] if kind == "service" else found["status"]["podIP"]
        yield f"http://{address}:{port}"

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """By SIGKILL, from outside of the container, as the kernel would."""
        status = Api(self.kubeconfig).get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["status"]
        every = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        (known,) = [c["containerID"].partition("://")[2] for c in every if c["name"] == container]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if known in (process / "cgroup").read_text():
                    os.kill(int(process.name), signal.SIGKILL)

    def reboot(self) -> None:
        """A power cut."""
        self.node.reboot()


@dataclass(frozen=True)
class Elsewhere:
    """A cluster of which only the kubeconfig is known: what runs in it is reached through the API server."""

    kubeconfig: Path
    loading: Sequence[str]
    rebooting: Sequence[str] = ()
    name: str = "the cluster of KUBECONFIG"

    def load(self, archive: Path) -> None:
        """By the command that the environment names."""
        subprocess.run([word.replace("{}", str(archive)) for word in self.loading], check=True)

    def take(self, images: Images) -> None:
        """As archives; not where the command takes none, since the nodes pull the images."""
        if not any("{}" in word for word in self.loading):
            return
        for archive in images.archives:
            self.load(archive)

    @contextlib.contextmanager
    def reach(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """By `kubectl port-forward`, which ends with the pod that it found."""
        local = free_port()
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            scope = [f"--kubeconfig={self.kubeconfig}", f"--namespace={namespace}"]
            command: list[str | Path] = [binary("kubectl"), *scope, "port-forward", target, f"{local}:{port}"]
            process = Process("port-forward", command, dict(os.environ), log)
            process.start()
            try:
                process.wait_until(lambda: "Forwarding from" in log.read_text(), seconds=30)
                yield f"http://127.0.0.1:{local}"
            finally:
                process.kill()

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """By SIGTERM, from inside: no process can kill the first one of its own container."""
        ask = "import os, signal; os.kill(1, signal.SIGTERM)"
        Kubectl(self.kubeconfig, namespace)("exec", pod, "-c", container, "--", "python", "-c", ask)

    def reboot(self) -> None:
        """By the command that the environment names."""
        if not self.rebooting:
            raise NoTarget(f"nobody said how to restart a node: set {REBOOT}, such as `docker restart kind-worker`")
        subprocess.run(self.rebooting, check=True)


def target() -> Target:
    """The node that this process is inside of, or the cluster that the environment names.

    Raises:
        NoTarget: neither.
    """
    if node := Node.inside():
        return RealNode(node)
    kubeconfig, load = os.environ.get("KUBECONFIG"), os.environ.get(LOAD)
    if not kubeconfig:
        raise NoTarget(
            "no cluster: set KUBECONFIG, or, on Linux as root, run inside a real node: python -m cluster.node exec --"
        )
    if not load:
        raise NoTarget(
            f"KUBECONFIG is set, and nobody said how its nodes get an image: set {LOAD}, "
            "such as `kind load image-archive {}`, or to `true` where they pull it"
        )
    if not Path(kubeconfig).is_file():
        raise NoTarget(f"KUBECONFIG names no file: {kubeconfig}")
    return Elsewhere(Path(kubeconfig), shlex.split(load), shlex.split(os.environ.get(REBOOT, "")))
