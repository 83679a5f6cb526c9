"""Small files that are whole or not there, whatever happens to the disk or the process meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_key_file(path: Path, data: bytes) -> None:
    """Write a key for its owner alone, once.

    Raises:
        FileExistsError: there is such a file; it is left as it is.
        OSError: it cannot be written, or the file system has no second names; what was begun is gone.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _written_beside(path, data, mode=0o600) as unfinished:
        os.link(unfinished, path)  # unlike a rename, it replaces nothing that came meanwhile


def replace_file(path: Path, text: str) -> None:
    """Write a file, or write it anew with the mode that it had. What is no plain file, such as a pipe, is written to.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    target = path.resolve()  # a link stays one
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    with _written_beside(target, text.encode(), mode=mode) as unfinished:
        unfinished.replace(target)


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes, *, mode: int) -> Iterator[Path]:
    """A whole file in the same directory, under a name of its own that is gone afterwards."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask
