"""What the sealed format needs of an object store: few calls, exact lengths, errors of three kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from modelparams.errors import UsageError
from modelparams.names import KEY_PATTERN

# What keeps a file store inside its directory: no segment begins with a dot.
_KEY = re.compile(KEY_PATTERN)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens an S3 store. Never shown."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class Reader(Protocol):
    """A part of one object, read from its start to its end into the caller's memory."""

    @property
    def object_size(self) -> int:
        """Bytes of the whole object; known after the first `fill`."""

    def fill(self, into: memoryview) -> None:
        """Fill `into` exactly with the bytes that follow.

        Raises:
            BlobSizeMismatch: the object ends before the part does.
        """


class ObjectStore(Protocol):
    """A place of immutable objects. Safe to use from several threads; `str()` of it is for people.

    Every call may raise:
        StoreUnavailable: network, 5xx, throttling, too slow, a stream cut short; tried a few times before.
        StoreDenied: the credentials are refused or lack the right.
        ObjectMissing: the key, or the bucket, is not there.
    """

    def get(self, key: str, *, limit: int) -> bytes:
        """The whole object; BlobSizeMismatch when it holds more than `limit` bytes."""

    def reader(self, key: str, start: int, end: int) -> AbstractContextManager[Reader]:
        """Read the bytes from `start` up to `end`, of which there must be some.

        One stream that is read in pieces of 1 MiB or less, each used before the next is asked for, costs half of the
        CPU time that ranges of 8 MiB cost: a piece is still in the cache, and there is one request.
        """

    def read_into(self, key: str, offset: int, into: memoryview) -> int:
        """Fill `into` exactly with the bytes from `offset` on, and return the whole object's size.

        Raises:
            BlobSizeMismatch: the object ends before.
        """

    def size(self, key: str) -> int:
        """Bytes of the object."""

    def exists(self, key: str) -> bool:
        """Whether the key is there."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below `prefix`, which ends with a slash or is empty, in order."""

    def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
        """Write an object that must not be there yet, as one act; False when it is, and then nothing changed.

        A file is read from its start and must be seekable.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, over another one if need be."""


def checked_key(key: str) -> str:
    """`key` itself.

    Raises:
        UsageError: it is none, such as one that would leave the store's directory.
    """
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key[:120]!r} is no object key")
    return key


def parts_of(prefix: str) -> str:
    """A prefix without slashes around it, checked; empty for none."""
    stripped = prefix.strip("/")
    return checked_key(stripped) if stripped else ""
