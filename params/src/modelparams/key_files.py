"""A key's file: for its owner alone, whole or not there, and never written twice."""

from __future__ import annotations

import os
from pathlib import Path


def write_key_file(path: Path, data: bytes) -> None:
    """Write it to the disk.

    Raises:
        FileExistsError: there is such a file; it is left as it is.
        OSError: it cannot be written; what was begun is gone.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
