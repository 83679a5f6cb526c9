"""The private world of one node: the namespaces in which all of it lives, so that the end of one process ends it all.

    world.py FOLDER COMMAND...        runs COMMAND as the first process of a new world

The world has its own processes, mounts, network, host name, IPC and control groups. Its first process dies with the
one that this file becomes, and the kernel then ends every other process of it; with the last one go its mounts, veths,
nft tables and network namespaces. What is left is a folder and a control group, which `cluster.state` finds by name.

Run as a program this file is a chain of `exec`s, so it imports the standard library and its own folder only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_LEAF = "world"
"""Below the world's root group: cgroup v2 wants no process in a group that hands controllers on."""
_NAMESPACES = ("--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy of control groups: many with version 1, one with version 2.

    Attributes:
        kind: the file system's type, `cgroup` or `cgroup2`.
        options: of the mount, such as `rw,memory`.
    """

    path: Path
    kind: str
    options: str

    @property
    def is_alone(self) -> bool:
        """True for version 2 without version 1 beside it."""
        return self.path == _CGROUPS


def hierarchies(mountinfo: str) -> Iterator[Hierarchy]:
    """Those under /sys/fs/cgroup.

    >>> [h.path.name for h in hierarchies("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu")]
    ['cpu']
    """
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        path, (kind, _, options) = Path(before.split()[4]), after.split(maxsplit=2)
        if kind in ("cgroup", "cgroup2") and path.is_relative_to(_CGROUPS):
            yield Hierarchy(path, kind, options)


def mounted_hierarchies() -> list[Hierarchy]:
    """Of this process's mount namespace."""
    return list(hierarchies(Path("/proc/self/mountinfo").read_text()))


def _join(hierarchy: Hierarchy, group: Path) -> None:
    """Make a group and move this process into it."""
    group.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):  # version 1 makes them empty, and an empty one takes no process
        if hierarchy.kind == "cgroup" and (file := group / name).exists():
            file.write_text((group.parent / name).read_text())
    (group / "cgroup.procs").write_text(str(os.getpid()))
    if hierarchy.is_alone:
        _hand_on(group.parent)  # not sooner: it may have no process in it


def _hand_on(group: Path) -> None:
    """Let the children of a version 2 group have its controllers."""
    wanted = (group / "cgroup.controllers").read_text().split()
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))


def refusal() -> str:
    """Why the kernel lets this process make no world: a line, or nothing when it does."""
    if not (own := mounted_hierarchies()):
        return f"no control groups are mounted under {_CGROUPS}"
    try:
        for hierarchy in own:
            if hierarchy.is_alone:
                _hand_on(hierarchy.path)
            probe = hierarchy.path / f"modelparams-probe-{os.getpid()}"
            probe.mkdir()
            probe.rmdir()
        run(["unshare", *_NAMESPACES, "--propagation=private", "--fork", "mount", "-t", "proc", "proc", "/proc"])
    except (OSError, RuntimeError) as error:
        return str(error)
    return ""


def enter(init: int, command: Sequence[str]) -> list[str]:
    """The command that runs a command in a world.

    Args:
        init: the world's first process, by its number outside.
        command: what to run.
    """
    return ["nsenter", f"--target={init}", *_NAMESPACES, f"--wdns={Path.cwd()}", "--", *command]


def first_process(launcher: int) -> int | None:
    """The world's init by its number outside, once it is there.

    Args:
        launcher: the process that runs this file.
    """
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def main(arguments: Sequence[str]) -> None:
    """One link of the chain: join the world's root group; unshare the view of it, join its leaf; unshare the rest."""
    step, group, *command = arguments
    groups = [(h, h.path / group) for h in mounted_hierarchies()]
    if step == "root":
        for hierarchy, folder in groups:
            _join(hierarchy, folder)
        _exec(["unshare", "--cgroup", "--", sys.executable, "-I", "-S", __file__, "leaf", group, *command])
    for hierarchy, folder in groups:
        _join(hierarchy, folder / _LEAF)
    # A private copy of the mounts: none that is made in the world ever shows outside of it.
    rest = ["--pid", "--mount", "--propagation=private", "--net", "--uts", "--ipc"]
    _exec(["unshare", *rest, "--fork", "--kill-child=SIGKILL", "--", *command])


def _exec(command: Sequence[str]) -> None:
    os.execvp(command[0], list(command))


def run(command: Sequence[str | Path]) -> None:
    """Run a command of the setup.

    Raises:
        RuntimeError: it failed; the message holds what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
