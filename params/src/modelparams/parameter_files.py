"""A directory's parameter files, each opened once: the bytes that are hashed are those that are read and sealed."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path

from modelparams.errors import UsageError
from modelparams.regular import require_regular

AGAIN = "run it again once nobody writes to the directory"
"""What to do where a file changed."""
_PIECE = 16 << 20  # bytes that are hashed between two looks at Ctrl-C
# What Git leaves in place of a large file that was not fetched (git-lfs, docs/spec.md).
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class ParameterFile:
    """One file, mapped. What its name leads to later does not matter; that its bytes stay does.

    Writes are seen by the file's times. A writer that maps the file itself, and had written to the same page before,
    changes bytes without a sign: let nobody write to a directory while it is published.
    """

    path: Path
    view: memoryview
    """Its bytes. The mapping ends with its last view; closing it earlier would fail while an error holds one."""
    state: tuple[int, ...]
    """See `_state`; of the moment when it was opened."""

    @cached_property
    def sha256(self) -> str:
        """In hex, of the bytes when this was first asked."""
        return self._hash()

    def require_unchanged(self) -> None:
        """Refuse bytes that are others than when they were hashed. They are read again only if the file looks changed.

        Raises:
            UsageError: somebody wrote to the file.
        """
        if self._looks_changed() and self._hash() != self.sha256:
            raise UsageError(f"{self.path} changed while it was published", hint=AGAIN)

    def _looks_changed(self) -> bool:
        try:
            return _state(self.path.stat()) != self.state
        except OSError:
            return True

    def _hash(self) -> str:
        sha256 = hashlib.sha256()
        for start in range(0, len(self.view), _PIECE):
            sha256.update(self.view[start : start + _PIECE])
        return sha256.hexdigest()


def is_parameter_file(name: str) -> bool:
    """Whether a file of this name, directly in the directory, is hashed and may be read."""
    return name == Path(name).name and name.endswith(".safetensors") and not name.startswith(".")


def parameter_files(directory: Path) -> list[Path]:
    """All of them, in name order; hidden ones are left out, as of all files."""
    return sorted(path for path in directory.glob("*.safetensors") if is_parameter_file(path.name))


def map_files(directory: Path) -> Mapping[str, ParameterFile]:
    """Map all of them, by file name. Raises UsageError as `opened`."""
    return {path.name: map_file(path) for path in parameter_files(directory)}


def map_file(path: Path) -> ParameterFile:
    """Map one. Raises UsageError as `opened`."""
    with opened(path) as file:
        found = os.fstat(file.fileno())
        data = mmap.mmap(file.fileno(), found.st_size, access=mmap.ACCESS_READ) if found.st_size else b""
        return ParameterFile(path, memoryview(data), _state(found))


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A parameter file, at its start.

    Raises:
        UsageError: it is a Git LFS pointer or no regular file, or cannot be read.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise UsageError(f"{path} is a Git LFS pointer, not the parameters", hint="run 'git lfs pull' first")
            file.seek(0)
            yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", hint="restore the file or its rights") from error


def _state(found: os.stat_result) -> tuple[int, ...]:
    """What a write to a file changes, or another file in its place."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
