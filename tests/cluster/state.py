"""Where a run's files live, and how nothing of it outlives its owner, not even after `kill -9`.

    <tmp>/modelparams-<uid>/<owner pid>-<owner start time>/<name>-<n>/     one State
    /dev/shm/modelparams-<uid>/…                                           the same, for what must be memory
    <each control-group hierarchy>/modelparams-<uid>.<owner>.<name>-<n>/   of a state with a node: every process in it

Every process is started with the folder's path in `MODELPARAMS_HARNESS`, so a folder's processes are found in
/proc by their environment: there is no pid file to be late, lost or about a recycled pid. A guard process per
owner waits for the owner's end and sweeps; should the guard be killed too, the next run sweeps.
Pods have an environment of their own: they are found by their control group.

This file is also the guard's program, so it imports the standard library only. Linux only, by /proc.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARK = "MODELPARAMS_HARNESS"
_POLL_SECONDS = 0.1
_GROUP_SECONDS = 20.0
_CGROUPS = Path("/sys/fs/cgroup")


def _root(of: Path) -> Path:
    return of / f"modelparams-{os.getuid()}"


def disk_root() -> Path:
    """The folder of all owners."""
    return _root(Path(tempfile.gettempdir()))


def memory_root() -> Path:
    """The same in memory where the machine has /dev/shm."""
    shm = Path("/dev/shm")
    return _root(shm) if os.access(shm, os.W_OK) else disk_root() / "shm"


def start_time(pid: int) -> str | None:
    """Clock ticks from boot to the process's start; None when it has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command before it may hold blanks; state is field 3 of proc(5)
    return None if fields[0] in "ZX" else fields[19]


class State:
    """A folder for one thing that a test run started; `close` ends its processes and deletes it.

    Args:
        name: what it is for, the first half of the folder's name.
        owner: the process after whose end everything is swept; by default this one.
    """

    def __init__(self, name: str, owner: int | None = None) -> None:
        sweep_abandoned()
        home = home_of(owner or os.getpid())
        self.path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home))
        self.memory = memory_root() / home.name / self.path.name
        self.memory.mkdir(parents=True, mode=0o700)

    @property
    def environment(self) -> dict[str, str]:
        """What every process of this state must have in its environment."""
        return {MARK: str(self.path)}

    def close(self) -> None:
        """End all processes and delete all files."""
        sweep(self.path)


def home_path(owner: int) -> Path:
    """Where the owner's folder is, if it has one.

    Raises:
        ProcessLookupError: no such process runs.
    """
    born = start_time(owner)
    if born is None:
        raise ProcessLookupError(f"process {owner} has ended: it cannot own a test cluster")
    return disk_root() / f"{owner}-{born}"


def home_of(owner: int) -> Path:
    """The owner's folder, made with its guard if it is new.

    Raises:
        ProcessLookupError: no such process runs.
    """
    home = home_path(owner)
    disk_root().mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        home.mkdir(mode=0o700)
        _start_guard(home)
    return home


def _start_guard(home: Path) -> None:
    # A session of its own: a signal to the owner's group must not take the guard along.
    command = [sys.executable, "-I", "-S", __file__, str(home)]
    null = subprocess.DEVNULL
    guard = subprocess.Popen(command, start_new_session=True, stdin=null, stdout=null, stderr=null)
    guard.returncode = 0  # outlives us by design: no warning about it


def is_owned(home: Path) -> bool:
    """True while the process that a home is named for runs."""
    pid, _, born = home.name.partition("-")
    return start_time(int(pid)) == born


def sweep_abandoned() -> None:
    """Clear what runs left whose owner and guard were both killed."""
    if disk_root().is_dir():
        for home in disk_root().iterdir():
            if home.name[0].isdigit() and not is_owned(home):
                sweep(home)


def sweep(folder: Path) -> None:
    """Kill every process whose state is `folder` or lies in it, then delete its files and control groups."""
    while victims := {*processes_of(folder), *_grouped(folder)}:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # also lets a child that was forked but not yet executed show its environment
    _remove_groups(folder)
    for root in (disk_root(), memory_root()):
        shutil.rmtree(root / folder.relative_to(disk_root()), ignore_errors=True)


def group_name(folder: Path) -> str:
    """What a state's control groups are called, or begin with when `folder` is an owner's."""
    return ".".join([_root(Path()).name, *folder.relative_to(disk_root()).parts])


def groups_of(folder: Path) -> list[Path]:
    """The control groups of `folder`, of every hierarchy, each before the one that it is in."""
    alone = (_CGROUPS / "cgroup.controllers").exists()  # version 2 only
    roots = [_CGROUPS] if alone else [path for path in _CGROUPS.glob("*") if not path.is_symlink()]
    name = group_name(folder)
    tops = [top for root in roots for top in root.glob(f"{name}*") if f"{top.name}.".startswith(f"{name}.")]
    return [Path(group) for top in tops for group, _, _ in os.walk(top, topdown=False)]


def _grouped(folder: Path) -> set[int]:
    """The processes in its groups, without ourselves."""
    found: set[int] = set()
    for group in groups_of(folder):
        with contextlib.suppress(OSError):  # gone meanwhile
            found.update(map(int, (group / "cgroup.procs").read_text().split()))
    return found - {0, os.getpid()}


def _remove_groups(folder: Path) -> None:
    """A group can be removed once the kernel has let go of its last process, a moment after the kill."""
    deadline = time.monotonic() + _GROUP_SECONDS
    while (groups := groups_of(folder)) and time.monotonic() < deadline:
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        time.sleep(0.02)


def processes_of(folder: Path) -> list[int]:
    """Processes that were started for a state in `folder`, without ourselves."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_of(folder, entry)]


def _is_of(folder: Path, entry: Path) -> bool:
    if int(entry.name) == os.getpid() or start_time(int(entry.name)) is None:
        return False
    try:
        environment = (entry / "environ").read_bytes()
    except OSError:  # ended, or another user's
        return False
    marks = [v.partition(b"=")[2] for v in environment.split(b"\0") if v.startswith(MARK.encode() + b"=")]
    return any(Path(os.fsdecode(mark)).is_relative_to(folder) for mark in marks)


def _guard(home: Path) -> None:
    while is_owned(home):
        time.sleep(_POLL_SECONDS)
    sweep(home)
    sweep(home)  # the owner may have forked a child just before its end


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
