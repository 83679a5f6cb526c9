"""A directory in memory, as a pod's volume is: engine and `modelparams serve` take no other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Its path is short, as a socket's must be. Where there is no /dev/shm (not Linux), nobody checks either."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="mp-", dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)
