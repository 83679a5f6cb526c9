"""Which versions and sequences a store has: one small text object each, written once.

    versions/<semver>      sha256:<64 hex digits of the manifest digest> <sequence>
    sequences/<sequence>   sha256:<64 hex digits of the manifest digest>

They are not signed. They only say which manifest to look at; that manifest says, signed, what it is. Who publishes
takes a sequence by writing its claim, which only one can, and then writes the version's pointer.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from modelparams.digest import Digest
from modelparams.errors import BlobSizeMismatch, InvalidVersion, ManifestInvalid, ObjectMissing
from modelparams.names import Version
from modelparams.parallel import for_each
from modelparams.store.contract import ObjectStore

_PREFIX, _LIMIT = "versions/", 256
_CLAIMS, _CLAIM = "sequences/", re.compile(rb"(sha256:[0-9a-f]{64})\n?")
_SEQUENCE = re.compile(r"[1-9][0-9]{0,15}")
_FORM = re.compile(rb"(sha256:[0-9a-f]{64}) ([1-9][0-9]{0,15})\n?")
_log = logging.getLogger(__name__)


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
        match = _FORM.fullmatch(_small(store, key))
    except ObjectMissing as error:
        raise ObjectMissing(
            f"{store} has no version {version}", hint="'modelparams inspect' lists what it has"
        ) from error
    if not match:
        raise ManifestInvalid(f"{key} in {store} names no manifest")
    return Pointer(version, Digest(match[1].decode()), int(match[2]))


def list_pointers(store: ObjectStore, *, workers: int = 8) -> list[Pointer]:
    """Every version of the store, oldest publish first by the pointers' word; junk is passed over with a warning."""
    found: list[Pointer] = []

    def look(version: Version) -> None:
        try:
            found.append(read_pointer(store, version))
        except (ManifestInvalid, ObjectMissing) as error:
            _log.warning("%s is passed over: %s", pointer_key(version), error.message)

    for_each(list_versions(store), lambda _: look, workers=workers)
    return sorted(found, key=lambda pointer: (pointer.sequence, pointer.version))


def claim_key(sequence: int) -> str:
    """Where the claim of a sequence is in the store."""
    return f"{_CLAIMS}{sequence}"


def claim_sequence(store: ObjectStore, sequence: int, digest: Digest) -> bool:
    """Take `sequence` for a manifest, which is in the store; False when another has it."""
    key, text = claim_key(sequence), f"{digest}\n".encode()
    # A write whose answer was lost and that was tried again meets its own object.
    return store.put_new(key, text) or _small(store, key) == text


def read_claim(store: ObjectStore, sequence: int) -> Digest:
    """Which manifest has claimed a sequence.

    Raises:
        ObjectMissing: none has.
        ManifestInvalid: the claim is none.
    """
    key = claim_key(sequence)
    if not (match := _CLAIM.fullmatch(_small(store, key))):
        raise ManifestInvalid(f"{key} in {store} names no manifest")
    return Digest(match[1].decode())


def list_claims(store: ObjectStore) -> list[int]:
    """The sequences that were claimed, the newest first; a claim may be junk."""
    names = (key.removeprefix(_CLAIMS) for key in store.list(_CLAIMS))
    return sorted((int(name) for name in names if _SEQUENCE.fullmatch(name)), reverse=True)


def _small(store: ObjectStore, key: str) -> bytes:
    """The object, or nothing if it is too long for what is sought."""
    try:
        return store.get(key, limit=_LIMIT)
    except BlobSizeMismatch:
        return b""


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
