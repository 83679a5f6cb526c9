"""What runs in a world: the control plane and the node's programs, and a socket by which tests end and start them.

python -m cluster.node.supervisor FOLDER
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.api import Api, ApiError
from cluster.control_plane import Access, ControlPlane
from cluster.node import debian, settings
from cluster.node.images import Containerd, Image
from cluster.node.reboot import power_cut
from cluster.node.settings import ADDRESS, NODE, PAUSE, Files
from cluster.process import Process, ProcessFailed, answers_http, wait_until
from cluster.state import MARK
from cluster.tools import binary

_SECONDS = 60.0
_KUBELET_HEALTH = "http://127.0.0.1:10248/healthz"
VERBS = ("start", "stop", "kill")


class Supervisor:
    """Brings one node up, in an order in which what can wait for another does."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._containerd = Containerd(files.socket)
        self._plane = ControlPlane(crds=(), node_address=ADDRESS)  # the chart brings the kinds
        self._node: dict[str, Process] = {}

    def start(self) -> None:
        """Bring all up; the node takes pods when this returns.

        Raises:
            ToolMissing: a program is not there.
            ProcessFailed: one did not start; the message holds the end of its log.
        """
        cni = debian.cni_folder()
        assert cni, "the caller has installed the CNI plugins"
        settings.write_runtime(self._files, cni)
        containerd = self._start("containerd", ["containerd", f"--config={self._files.folder / 'containerd.toml'}"])
        self._plane.start()
        settings.write_node(self._files, self._plane.access)
        containerd.wait_until(self._containerd.answers, seconds=_SECONDS)
        self._containerd.load(Image.scratch(["/bin/pod"]).with_layer({"bin/pod": binary("pod")}).archive(PAUSE))
        kubelet = self._start("kubelet", _kubelet(self._files, self._plane.access))
        self._keep_starting(kubelet)
        proxy = self._start("kube-proxy", _proxy(self._files))
        api = Api(self._plane.kubeconfig)
        kubelet.wait_until(lambda: _takes_pods(api), seconds=_SECONDS)
        proxy.wait_until(lambda: answers_http("http://127.0.0.1:10256/healthz"), seconds=_SECONDS)

    @property
    def access(self) -> Access:
        """To the control plane."""
        return self._plane.access

    def order(self, line: str) -> str:
        """Do what a line of the socket says, such as `kill kubelet` or `reboot`; "ok", or why not."""
        if line == "reboot":
            self._reboot()
            return "ok"
        verb, _, name = line.partition(" ")
        processes = self._node | self._plane.processes
        if verb not in VERBS or name not in processes:
            return f"cannot {line!r}: one of {', '.join(VERBS)}, then one of {', '.join(processes)}"
        process = processes[name]
        if verb == "start" and process.is_running:
            return f"{name} runs already"
        getattr(process, verb)()
        return "ok"

    def _reboot(self) -> None:
        for process in self._node.values():
            process.kill()
        power_cut(self._files.kubelet)
        for name, process in self._node.items():
            process.start()
            if name == "containerd":
                process.wait_until(self._containerd.answers, seconds=_SECONDS)
        self._keep_starting(self._node["kubelet"])

    def _keep_starting(self, kubelet: Process) -> None:
        """Start it until it stays, as a service manager does: it ends when containerd cannot serve its pods yet.

        On a busy machine containerd answers some seconds before its part for kubelet (CRI) does.
        """

        def stays() -> bool:
            if not kubelet.is_running:
                kubelet.start()
            return answers_http(_KUBELET_HEALTH)

        try:
            wait_until(stays, "kubelet to stay up", seconds=_SECONDS, every=0.1)
        except TimeoutError as late:
            raise ProcessFailed(f"{late}\n{kubelet.log_tail()}") from late

    def _start(self, name: str, command: Sequence[str | Path]) -> Process:
        environment = {
            "PATH": debian.SEARCH,
            "HOME": str(self._files.folder),
            MARK: os.environ[MARK],
        }
        self._node[name] = process = Process(name, command, environment, self._files.folder / f"{name}.log")
        process.start()
        return process


def _kubelet(files: Files, access: Access) -> list[str | Path]:
    login = access.kubeconfig_for(f"system:node:{NODE}", ["system:nodes"])
    return [
        binary("kubelet"),
        f"--config={files.folder / 'kubelet.yaml'}",
        f"--kubeconfig={login}",
        f"--root-dir={files.kubelet}",
        f"--cert-dir={files.folder / 'kubelet-certificates'}",
        f"--hostname-override={NODE}",
        f"--node-ip={ADDRESS}",
    ]


def _proxy(files: Files) -> list[str | Path]:
    return [binary("kube-proxy"), f"--config={files.folder / 'kube-proxy.yaml'}"]


def _takes_pods(api: Api) -> bool:
    try:
        node = api.find(f"/api/v1/nodes/{NODE}")
    except (ConnectionError, ApiError):
        return False
    if node is None or node["spec"].get("taints"):
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))


def _serve(supervisor: Supervisor, files: Files) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(files.control))
        server.listen()
        draft = files.ready.with_suffix(".draft")
        draft.write_text(supervisor.access.dump())
        draft.rename(files.ready)
        while True:
            client, _ = server.accept()
            with client, client.makefile("rw") as stream:
                stream.write(supervisor.order(stream.readline().strip()) + "\n")


def main(folder: Path) -> None:
    """Bring the node up, then obey the socket until the world ends."""
    files = Files(folder)
    supervisor = Supervisor(files)
    supervisor.start()
    _serve(supervisor, files)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
