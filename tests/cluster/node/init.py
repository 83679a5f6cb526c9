"""The first process of a world: its mounts and network, then one command, whose end is the world's end.

    init.py FOLDER COMMAND...

Everything that a node writes outside of its folder is mounted over first, so that nothing of the machine's is changed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.node.settings import ADDRESS, NODE
from cluster.node.world import Hierarchy, mounted_hierarchies, run

_TMPFS = ("mount", "-t", "tmpfs", "-o")


def prepare(folder: Path) -> None:
    """Make the world fit for a node.

    Raises:
        RuntimeError: a mount or an address could not be set.
    """
    own = mounted_hierarchies()
    run(["mount", "--make-rshared", "/"])  # containers see what is mounted for them later
    run(["mount", "-t", "proc", "proc", "/proc"])
    _mount_sys(own)
    run([*_TMPFS, "mode=755", "tmpfs", "/run"])  # sockets, network namespaces, runc's state
    run([*_TMPFS, "mode=1777", "tmpfs", "/dev/shm"])
    _mount_var(folder)
    socket.sethostname(NODE)
    _network()


def _mount_sys(own: Sequence[Hierarchy]) -> None:
    # Not over the old ones: programs look for control groups in the list of mounts, not in the tree.
    run(["umount", "--recursive", "--lazy", "/sys"])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])  # of our network
    if not any(hierarchy.is_alone for hierarchy in own):
        run([*_TMPFS, "mode=755", "tmpfs", "/sys/fs/cgroup"])
    for hierarchy in own:
        hierarchy.path.mkdir(exist_ok=True)
        run(["mount", "-t", hierarchy.kind, "-o", hierarchy.options, hierarchy.kind, hierarchy.path])


def _mount_var(folder: Path) -> None:
    logs, upper, work = (folder / name for name in ("var-log", "var-lib", "var-lib.work"))
    for path in (logs, upper, work):
        path.mkdir()
    run(["mount", "--bind", logs, "/var/log"])
    # CNI keeps results in /var/lib/cni, wherever it is told to keep the rest.
    layers = f"lowerdir=/var/lib,upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "-o", layers, "overlay", "/var/lib"])


def _network() -> None:
    """Loopback and the node's address, on a veth pair whose both ends are ours: there is no way out."""
    for line in (
        "link set lo up",
        "link add node0 type veth peer name node1",
        f"addr add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node1 up",
        "route add default dev node0",  # a Service address needs some route, or nft never sees the packet
    ):
        run(["ip", *line.split()])


def main(folder: Path, command: Sequence[str]) -> int:
    """Prepare, run the command, and reap what others leave behind until it ends; its exit code."""
    prepare(folder)
    child = subprocess.Popen(command)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return abs(child.returncode)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
