"""Whether a directory lies in memory: plaintext weights go into no other."""

from __future__ import annotations

import os
from pathlib import Path

from modelparams.errors import UsageError

IN_MEMORY = ("tmpfs", "ramfs")
_MOUNTS = Path("/proc/self/mountinfo")
_HOW = "give a directory of a tmpfs, such as one below /dev/shm; in a pod, an emptyDir with medium: Memory"


def check_in_memory(directory: Path) -> None:
    """Refuse a directory whose files would go to a disk, or to another machine.

    Only Linux says what a directory lies on. Elsewhere nothing is checked: keeping to memory is the caller's to do.

    Raises:
        UsageError: it lies on another file system than a tmpfs or ramfs, or there is no such directory.
    """
    try:
        device = directory.stat().st_dev
    except OSError as error:
        raise UsageError(f"{directory} cannot be used ({error.strerror})", hint=_HOW) from None
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return
    found = file_system(f"{os.major(device)}:{os.minor(device)}", directory.resolve(), mounts)
    if found not in IN_MEMORY:
        raise UsageError(
            f"{directory} is not in memory: it lies on {found}, and plaintext weights go into memory only", hint=_HOW
        )


def file_system(device: str, directory: Path, mounts: str) -> str:
    """The type of the file system that a directory lies on, by the lines of proc_pid_mountinfo(5).

    By its device, `major:minor`, so that neither a link nor a mount over another hides anything. Some file systems
    (btrfs) have directories of a device that no mount has; those are named by the path, and are none in memory.
    """
    above: dict[int, str] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        _, _, on, _, point, *_ = before.split(" ")
        kind = after.partition(" ")[0]
        if on == device:
            return kind
        if directory.is_relative_to(_unescaped(point)):
            above[len(point)] = kind
    nearest = above[max(above)] if above else ""
    return nearest if nearest and nearest not in IN_MEMORY else "an unknown file system"


def _unescaped(point: str) -> str:
    """A blank in a path is written in octal there."""
    return point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
