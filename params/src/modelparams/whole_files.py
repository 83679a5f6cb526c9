"""Small files that are whole or not there, whatever happens to the disk or the process meanwhile."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_key_file(path: Path, data: bytes) -> None:
    """Write a key for its owner alone, once.

    Raises:
        FileExistsError: there is such a file; it is left as it is.
        OSError: it cannot be written; what was begun is gone.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _fill(descriptor, data)
    except OSError:
        path.unlink()
        raise


def replace_file(path: Path, text: str) -> None:
    """Write a file, or write it anew with the mode that it had. What is no plain file, such as a pipe, is written to.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    target = path.resolve()  # a link stays one
    descriptor, unfinished = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        os.fchmod(descriptor, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        _fill(descriptor, text.encode())
        Path(unfinished).replace(target)
    except OSError:
        Path(unfinished).unlink()
        raise


def _fill(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask
