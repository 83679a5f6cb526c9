"""One at a time, over all processes of the machine."""

from __future__ import annotations

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def alone(path: Path, out: TextIO = sys.stderr) -> Iterator[None]:
    """Hold a lock file, waiting for another that holds it; a process's end lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run that is at the images", file=out, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
