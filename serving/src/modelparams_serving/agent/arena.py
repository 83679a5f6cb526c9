"""Open an arena file that the engine made, without trusting that it made one.

The engine is the process that strangers talk to, and it may write this directory. A link in the arena's place would
have the agent, which holds keys, write plaintext over a file of the link's choice; a pipe would have it wait for ever.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modelparams import errors

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_A_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)
"""What `open` says of a link, a directory and a socket."""


def inode_of(path: Path) -> int:
    """The file's inode number, a link's own; 0 when there is no file."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def mapped(path: Path, *, writable: bool) -> Iterator[memoryview]:
    """An arena file as memory, all of it.

    Raises:
        EngineUnavailable: the engine did not make the file that it named.
        SwapError: something else lies there than a file of that directory's volume with one name.
    """
    descriptor = _opened(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        _check(path, os.fstat(descriptor))
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    except ValueError as error:
        raise errors.EngineUnavailable(f"arena {path.name} is empty") from error
    finally:
        os.close(descriptor)
    view = memoryview(memory)
    try:
        yield view
    finally:
        # Slices may be alive in a traceback; then the map goes with the last of them.
        with contextlib.suppress(BufferError):
            view.release()
            memory.close()


def _opened(path: Path, access: int) -> int:
    try:
        return os.open(path, access | _FLAGS)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise _strange(path, "it is no file") from error
        raise errors.EngineUnavailable(f"arena {path.name} cannot be opened ({error.strerror})") from error


def _check(path: Path, found: os.stat_result) -> None:
    """Owner and group are not looked at: the engine's user is whatever its pod says."""
    if not stat.S_ISREG(found.st_mode):
        raise _strange(path, "it is no file")
    if found.st_dev != path.parent.stat().st_dev:
        raise _strange(path, "it lies on another volume")
    if found.st_nlink != 1:
        raise _strange(path, f"it has {found.st_nlink} names")


def _strange(path: Path, why: str) -> errors.SwapError:
    return errors.SwapError(
        f"arena {path.name} is not one that an engine makes: {why}; nothing was written",
        hint="look at who else writes the pod's memory volume; replace the pod",
    )
