"""The directory of one `modelparams serve`: plaintext lies in it, so what a killed run left there goes at the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from modelparams.errors import UsageError

_PREFIX, _LOCK = "modelparams-", "lock"


@contextlib.contextmanager
def run_directory(memory: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """A directory of this run's own below `memory`; gone afterwards.

    A lock in it lasts as long as the process, however that ends: one that nobody holds is of a run that was killed.

    Raises:
        UsageError: there is no such directory to make it in.
    """
    for left in memory.glob(f"{_PREFIX}*"):
        if _was_left(left):
            shutil.rmtree(left, ignore_errors=True)
            tell(f"{left} of a run that was killed is removed")
    try:
        made = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=memory)
    except OSError as error:
        raise UsageError(
            f"{memory} cannot be used ({error.strerror})", hint="give --memory a directory that is in memory (tmpfs)"
        ) from error
    with made as path, _held(Path(path)):
        yield Path(path)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    with (directory / f".{_LOCK}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (directory / f".{_LOCK}").rename(directory / _LOCK)  # it is never seen unlocked while we live
        yield


def _was_left(directory: Path) -> bool:
    """Whether a run of this user's made it that has ended."""
    try:
        if directory.is_symlink() or directory.stat().st_uid != os.getuid():
            return False
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # without a lock it is another program's, or begins just now
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
