"""A store in a directory: for tests, for one machine, and for a mounted share."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import BinaryIO

from modelparams.errors import BlobSizeMismatch, ObjectMissing, StoreDenied, StoreUnavailable
from modelparams.store.contract import Reader, checked_key, parts_of

# Unfinished files are kept apart and named as no key may be, so that listing never meets one.
_UNFINISHED = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ALL = "the list of keys"


class FileStore:
    """Objects are plain files below `directory`; writing is a temporary file and one link or rename."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return f"file://{self._directory.absolute()}"

    @property
    def is_new(self) -> bool:
        """Whether its directory is still to be made, as the first object written does."""
        with self._errors("its directory"):
            return not _is(stat.S_ISDIR, self._directory)

    def get(self, key: str, *, limit: int) -> bytes:
        """See `ObjectStore`."""
        with self._opened(key) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise BlobSizeMismatch(f"{key} in {self} holds more than {limit} bytes")
        return data

    @contextmanager
    def reader(self, key: str, start: int, end: int) -> Iterator[Reader]:
        """See `ObjectStore`."""
        with self._opened(key) as file:
            size = os.fstat(file.fileno()).st_size
            if size < end:
                raise BlobSizeMismatch(f"{key} in {self} has {size} bytes, at least {end} are expected")
            file.seek(start)
            yield _FileReader(file, size, f"{key} in {self}")

    def read_into(self, key: str, offset: int, into: memoryview) -> int:
        """See `ObjectStore`."""
        with self.reader(key, offset, offset + len(into)) as reader:
            reader.fill(into)
            return reader.object_size

    def size(self, key: str) -> int:
        """See `ObjectStore`."""
        with self._opened(key) as file:
            return os.fstat(file.fileno()).st_size

    def exists(self, key: str) -> bool:
        """See `ObjectStore`."""
        with self._errors(key):
            return _is(stat.S_ISREG, self._path(key))

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore`."""
        with self._errors(prefix or _ALL):
            walk = os.walk(self._directory / parts_of(prefix), onerror=_raise_unless_absent)
            paths = (Path(folder, name) for folder, _, names in walk for name in names)
            found = [path for path in paths if _is(stat.S_ISREG, path)]
        keys = (path.relative_to(self._directory).as_posix() for path in found)
        return iter(sorted(key for key in keys if not key.startswith(_UNFINISHED)))

    def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
        """See `ObjectStore`. A hard link is made only if the name is free, which is what makes it one act."""
        return self._write(key, data, _link)

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore`."""
        self._write(key, data, _replace)

    def _write(self, key: str, data: bytes | BinaryIO, settle: Callable[[Path, Path], bool]) -> bool:
        """Give what `settle` gives, which alone may say that the object is there already."""
        path, unfinished = self._path(key), self._directory / _UNFINISHED
        source = BytesIO(data) if isinstance(data, bytes) else data
        source.seek(0)
        with self._errors(key), self._way(key, path, unfinished):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=unfinished, delete=False) as file:
                try:
                    shutil.copyfileobj(source, file, 1 << 20)
                    file.flush()
                    os.fchmod(file.fileno(), 0o644)
                    os.fsync(file.fileno())
                    return settle(Path(file.name), path)
                finally:
                    Path(file.name).unlink(missing_ok=True)

    @contextmanager
    def _way(self, key: str, path: Path, unfinished: Path) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            folders = (path.parent, *path.parent.parents, unfinished)
            found = next((one for one in folders if os.path.lexists(one) and not one.is_dir()), path)
            raise StoreUnavailable(f"{key} in {self}: {found} is in its way", hint="move that away") from error

    def _path(self, key: str) -> Path:
        return self._directory / checked_key(key)

    @contextmanager
    def _opened(self, key: str) -> Iterator[FileIO]:
        with self._errors(key), FileIO(self._path(key), opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ObjectMissing(f"{key} in {self} is no regular file", hint="take it away")
            yield file

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(f"{key} is not in {self}") from error
        except PermissionError as error:
            raise StoreDenied(f"{key} in {self} may not be opened", hint="check the directory's owner") from error
        except OSError as error:
            full = "make room there, then run it again: nothing is sent twice" if error.errno in _FULL else None
            raise StoreUnavailable(f"{key} in {self}: {error.strerror or type(error).__name__}", hint=full) from error


def _link(written: Path, path: Path) -> bool:
    try:
        os.link(written, path)
    except FileExistsError:
        if _is(stat.S_ISREG, path):
            return False
        raise
    return True


def _replace(written: Path, path: Path) -> bool:
    written.replace(path)
    return True


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe waits, for ever if nobody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows has not, nor such pipes


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    """As `Path.is_file`, which of what may not be looked at says different things in different Pythons."""
    try:
        return kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _raise_unless_absent(error: OSError) -> None:
    """What may not be listed is not empty; what is not there is, also when it went while we looked."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@dataclass(frozen=True, slots=True)
class _FileReader:
    file: FileIO
    object_size: int
    name: str

    def fill(self, into: memoryview) -> None:
        """See `Reader`."""
        done = 0
        while done < len(into):
            if not (n := self.file.readinto(into[done:])):
                raise BlobSizeMismatch(f"{self.name} was cut while it was read")
            done += n
