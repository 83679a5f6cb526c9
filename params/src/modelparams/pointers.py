"""Which versions a store has: one small text object a version, `versions/<semver>`, written once.

    sha256:<64 hex digits of the manifest digest> <sequence>

It is not signed. It only says which manifest to look at; that manifest says, signed, what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from modelparams.digest import Digest
from modelparams.errors import InvalidVersion, ManifestInvalid, ObjectMissing
from modelparams.names import Version
from modelparams.parallel import Stopped, for_each
from modelparams.store.contract import ObjectStore

_PREFIX, _LIMIT = "versions/", 256
_FORM = re.compile(rb"(sha256:[0-9a-f]{64}) ([1-9][0-9]{0,15})\n?")


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `versions/<semver>` says; `sequence` is a hint until the manifest is verified."""

    version: Version
    digest: Digest
    sequence: int

    @property
    def text(self) -> bytes:
        """The object's content."""
        return f"{self.digest} {self.sequence}\n".encode()


def pointer_key(version: Version) -> str:
    """Where a version's pointer is in the store."""
    return f"{_PREFIX}{version}"


def read_pointer(store: ObjectStore, version: Version) -> Pointer:
    """Which manifest a version has.

    Raises:
        ObjectMissing: the store has no such version.
        ManifestInvalid: its pointer is none.
    """
    key = pointer_key(version)
    try:
        match = _FORM.fullmatch(store.get(key, limit=_LIMIT))
    except ObjectMissing as error:
        raise ObjectMissing(
            f"{store} has no version {version}", hint="'modelparams inspect' lists what it has"
        ) from error
    if not match:
        raise ManifestInvalid(f"{key} in {store} names no manifest")
    return Pointer(version, Digest(match[1].decode()), int(match[2]))


def list_pointers(store: ObjectStore, *, workers: int = 8) -> list[Pointer]:
    """Every version of the store, oldest publish first."""
    found: list[Pointer] = []

    def make_worker(_: Stopped) -> Callable[[Version], None]:
        return lambda version: found.append(read_pointer(store, version))

    for_each(list_versions(store), make_worker, workers=workers)
    return sorted(found, key=lambda pointer: (pointer.sequence, pointer.version))


def list_versions(store: ObjectStore) -> list[Version]:
    """The versions that the store has a pointer of, which may be junk."""
    names = (key.removeprefix(_PREFIX) for key in store.list(_PREFIX))
    found = []
    for name in names:
        try:
            found.append(Version(name))
        except InvalidVersion:
            continue  # somebody else's file
    return found


def resolve(store: ObjectStore, release: str) -> Digest:
    """The manifest digest of `release`: itself, `sha256:…`, or that of a version, `1.2.0` or `v1.2.0`.

    Raises:
        InvalidVersion: it is neither.
        ObjectMissing: the store has no such version.
    """
    if release.startswith("sha256:"):
        try:
            return Digest(release)
        except ValueError as error:
            raise InvalidVersion(str(error), hint="give the digest whole, or a version such as 1.2.0") from None
    return read_pointer(store, Version.from_directory(release)).digest
