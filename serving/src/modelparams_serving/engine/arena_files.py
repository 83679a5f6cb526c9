"""The two arena files: allocated and touched once, grown in place, never truncated, read through a read-only map.

Whoever first touches a page of a tmpfs pays for it in its memory limit, so the engine does that and the agent,
which writes the bytes, stays small. An engine that starts again finds the files and what is in them.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from modelparams import memory_limit
from modelparams.errors import ArenaExhausted
from modelparams.protocol import Slot

_MODE = 0o660
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python's mmap has no name for it
_MIB = 1 << 20


class ArenaFile:
    """One arena, `<runtime_dir>/arena-a` or `-b`.

    Args:
        path: of the file.
        room: says how many bytes this process may still take, beside so many that both arenas have in memory.
    """

    def __init__(self, path: Path, room: Callable[[int], int | None] = memory_limit.room) -> None:
        self.path, self._room = path, room

    @property
    def capacity(self) -> int:
        """Bytes that the file has, 0 when there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def ensure(self, size: int) -> None:
        """Grow the file to `size` bytes at least and touch what is new. Its content stays.

        Raises:
            ArenaExhausted: volume or memory limit have not that much left; the file is as it was.
        """
        have = self.capacity
        if have >= size:
            return
        self._require_room(have, size)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            os.fchmod(descriptor, _MODE)  # the umask of the image must not lock the agent out
            self._allocate(descriptor, have, size)
            _touch(descriptor, size)
        finally:
            os.close(descriptor)

    def _require_room(self, have: int, size: int) -> None:
        room = self._room(sum(_in_memory(self.path.with_name(slot.file_name)) for slot in Slot))
        if room is not None and not memory_limit.fits(size - have, room):
            raise ArenaExhausted(
                f"{self.path.name} needs {_mib(size)} and has {_mib(have)}; the container's memory limit leaves"
                f" {_mib(room)}"
            )

    def _allocate(self, descriptor: int, have: int, size: int) -> None:
        try:
            os.posix_fallocate(descriptor, have, size - have)
        except OSError as error:
            os.ftruncate(descriptor, have)  # a part may have been given: hand it back
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
                raise
            raise ArenaExhausted(
                f"{self.path.name} needs {_mib(size)} and has {_mib(have)}; {_mib(_free(self.path.parent))} are free"
                f" in {self.path.parent}"
            ) from error

    def map(self) -> mmap.mmap:
        """Map the whole file for reading. A stray write faults: nothing in this process may change parameters.

        Raises:
            FileNotFoundError: the file was never allocated.
            ValueError: the file is empty.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)


def _in_memory(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _touch(descriptor: int, size: int) -> None:
    """Fault all pages in, keeping what they hold."""
    with mmap.mmap(descriptor, size) as pages:
        try:
            pages.madvise(_MADV_POPULATE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: a kernel that does not know it; fallocate has given the pages
                raise ArenaExhausted(f"no memory for {size / _MIB:.0f} MiB: {error.strerror}") from error


def _mib(size: int) -> str:
    """For people: `0.2 MiB`, `540 MiB`."""
    return f"{size / _MIB:.{0 if size >= 10 * _MIB or not size else 1}f} MiB"


def _free(directory: Path) -> int:
    volume = os.statvfs(directory)
    return volume.f_bavail * volume.f_frsize
