"""NodeCluster: a whole cluster with one real node, in a world of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cluster.control_plane import Access
from cluster.node import debian
from cluster.node.images import Containerd, Image, Tree
from cluster.node.settings import ADDRESS, NODE, Files
from cluster.node.world import enter, first_process
from cluster.process import Process
from cluster.state import MARK, State, group_name
from cluster.tools import binary
from cluster.tools.recipes import NODE as PROGRAMS
from cluster.tools.recipes import cache_folder

FOLDER = "MODELPARAMS_NODE"
"""Environment variable: the folder of the node that a process is inside of, or is to use."""

_HERE = Path(__file__).parent
_START_SECONDS = 180.0


class NodeRefused(RuntimeError):
    """The node's supervisor did not do what it was asked; the message says why."""


class Node:
    """A running node, for whoever sees its folder: inside of its world or outside.

    Attributes:
        name: of the Node object.
        address: of the node; a server bound to it is reached from pods.
    """

    name, address = NODE, ADDRESS

    def __init__(self, folder: Path) -> None:
        self.files = Files(folder)

    @classmethod
    def inside(cls) -> Node | None:
        """The one that this process runs in, by `python -m cluster.node exec`."""
        folder = os.environ.get(FOLDER)
        return cls(Path(folder)) if folder else None

    @property
    def access(self) -> Access:
        """To the control plane, as `ControlPlane.access`; its addresses are those of the world."""
        return Access.load(self.files.ready.read_text())

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator; of use inside of the world."""
        return self.access.kubeconfig

    def load(self, archive: Path | bytes | IO[bytes]) -> None:
        """Import an image archive (OCI, or as `docker save` makes it): a file, its bytes, or a stream.

        Raises:
            ImageFailed: containerd refused.
        """
        Containerd(self.files.socket).load(archive)

    def load_layer(self, base: str, name: str, tree: Tree) -> None:
        """Make an image of one that is there and a layer on top, without moving the rest.

        Args:
            base: full name, such as `docker.io/modelparams/serving:1`.
            name: of the new one.
            tree: what the layer holds.

        Raises:
            ImageFailed: there is no such base.
        """
        containerd = Containerd(self.files.socket)
        containerd.load(containerd.image(base).with_layer(tree).archive(name))

    def load_program(self, name: str, tree: Tree, entrypoint: Sequence[str]) -> None:
        """Make an image of nothing but these files."""
        self.load(Image.scratch(entrypoint).with_layer(tree).archive(name))

    def kill(self, program: str) -> None:
        """End kubelet, containerd, kube-proxy or a part of the control plane as a crash would.

        Raises:
            NodeRefused: there is no such program.
        """
        self._order(f"kill {program}")

    def stop(self, program: str) -> None:
        """End one in order."""
        self._order(f"stop {program}")

    def start_program(self, program: str) -> None:
        """Start one again; does not wait until it works."""
        self._order(f"start {program}")

    def reboot(self) -> None:
        """Cut the node's power and start it again; the control plane is elsewhere. Does not wait until it works."""
        self._order("reboot")

    def _order(self, line: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.files.control))
            with client.makefile("rw") as stream:
                stream.write(f"{line}\n")
                stream.flush()
                answer = stream.readline().strip()
        if answer != "ok":
            raise NodeRefused(answer)

    def environment(self) -> dict[str, str]:
        """What a command inside of the world needs in its environment."""
        return {
            MARK: str(self.files.folder),
            FOLDER: str(self.files.folder),
            "TMPDIR": str(self.files.temporary),
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": debian.SEARCH,
        }

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs a command inside, to be given `environment()` too."""
        return enter(int(self.files.init.read_text()), command)

    def run(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> int:
        """Run a command inside with this process's own input and output; its exit code, as a shell has it."""
        environment = {**os.environ, **self.environment(), **(variables or {})}
        child = subprocess.Popen(self.command(command), env=environment)
        while True:
            try:
                code = child.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:  # the terminal has told the child too, and it may have things to put away
                continue


class NodeCluster(Node):
    """Starts one: etcd, API server, controller manager, scheduler, containerd, kubelet, kube-proxy.

    Needs root. Nothing of it outlives it or its owner: see `world.py` and `cluster.state`.

    Args:
        owner: the process after whose end everything is swept; by default this one.
        label: the first half of the folder's name.

    Raises (on start):
        NodeImpossible: not on this machine; the message names what to use instead.
        InstallFailed: Debian's packages could not be installed.
        ToolMissing: a program is not built.
        ProcessFailed: something did not start; the message holds the end of its log.
    """

    def __init__(self, *, owner: int | None = None, label: str = "node") -> None:
        self._owner, self._label = owner, label
        self._state: State | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Bring it up; the node takes pods when this returns."""
        debian.require()
        for name in PROGRAMS:
            binary(name)
        self._state = State(self._label, self._owner)
        super().__init__(self._state.path)
        try:
            self._start_world()
        except BaseException:
            self.close()
            raise

    def _start_world(self) -> None:
        folder = self.files.folder
        self.files.temporary.mkdir()
        environment = {
            **os.environ,
            MARK: str(folder),
            "PATH": debian.SEARCH,
            "PYTHONPATH": str(_HERE.parents[1]),
            "TMPDIR": str(self.files.temporary),
            "XDG_CACHE_HOME": str(cache_folder().parents[1]),
        }
        python = sys.executable
        supervisor = [python, "-m", "cluster.node.supervisor", str(folder)]
        init = [python, "-m", "cluster.node.init", str(folder), *supervisor]
        launcher = [python, "-I", "-S", str(_HERE / "world.py"), "root", group_name(folder), *init]
        self._world = Process("the node", launcher, environment, self.files.log)
        self._world.start()
        self._world.wait_until(self.files.ready.exists, seconds=_START_SECONDS)
        self.files.init.write_text(str(first_process(self._world.pid)))

    def close(self) -> None:
        """End all and delete every trace."""
        if self._state is not None:
            if hasattr(self, "_world"):
                self._world.kill()
            self._state.close()
            self._state = None
