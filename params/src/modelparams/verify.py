"""Check a sealed version without any key: what the operator does before a pod hears of it.

The manifest is fetched by its pinned digest and verified; then every blob is read once, with a fixed buffer for each
worker, and its size and SHA-256 are compared with the signed ones.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from modelparams.digest import Digest
from modelparams.errors import (
    BlobDigestMismatch,
    BlobSizeMismatch,
    ManifestDigestMismatch,
    ManifestInvalid,
    ObjectMissing,
)
from modelparams.manifest import (
    ENVELOPE_PARTS,
    MANIFEST_LIMIT,
    STATEMENT_PARTS,
    BlobEntry,
    Expectation,
    VerifiedManifest,
    verify_manifest,
)
from modelparams.names import ModelName
from modelparams.parallel import Stopped, for_each, never
from modelparams.progress import NoProgress, Progress
from modelparams.store.contract import ObjectStore
from modelparams.strictjson import loads
from modelparams.trust import TrustPolicy

_PIECE = 1 << 20
"""Bytes that are read and then hashed while they are in the cache; each worker has one such buffer."""

_NO_MANIFEST = (
    "compare manifestDigest with what 'modelparams publish' printed, then check bucket and prefix; if all are right, "
    "restore it from the bucket's versions, or publish anew; it is tried again"
)


@dataclass(frozen=True, slots=True)
class CheckedRelease:
    """A version of which every sealed byte is what its signers promised."""

    manifest: VerifiedManifest
    blobs: int
    size_bytes: int
    """Sealed bytes that were read."""


def manifest_key(digest: Digest) -> str:
    """Where a manifest is in the store."""
    return f"manifests/sha256/{digest.hex}"


def fetch_manifest(store: ObjectStore, digest: Digest, *, trust: TrustPolicy, expect: Expectation) -> VerifiedManifest:
    """Read and verify the manifest that `digest` pins.

    Raises:
        StoreError: it cannot be read.
        IntegrityError: as `verify_manifest`.
    """
    return verify_manifest(_envelope(store, digest), pinned=digest, trust=trust, expect=expect)


def claimed_model(store: ObjectStore, digest: Digest) -> ModelName:
    """Which model a manifest says that it is for. What is done with the answer is verify it: it opens no door.

    Raises:
        StoreError: it cannot be read.
        ManifestDigestMismatch, ManifestInvalid: it is another one, or none.
    """
    envelope = _envelope(store, digest)
    if Digest.of(envelope) != digest:  # nothing of it is parsed then
        raise ManifestDigestMismatch(f"the manifest is not the pinned {digest}")
    try:
        payload = base64.b64decode(loads(envelope, limit=MANIFEST_LIMIT, most=ENVELOPE_PARTS)["payload"])
        return ModelName(loads(payload, limit=MANIFEST_LIMIT, most=STATEMENT_PARTS)["predicate"]["model"]["name"])
    except (ValueError, KeyError, TypeError):
        raise ManifestInvalid(f"{manifest_key(digest)} is no manifest: it does not name its model") from None


def _envelope(store: ObjectStore, digest: Digest) -> bytes:
    try:
        return store.get(manifest_key(digest), limit=MANIFEST_LIMIT)
    except ObjectMissing as error:
        is_plain = error.next_step == ObjectMissing.hint  # a bucket that is not there has a hint of its own
        raise ObjectMissing(error.message, hint=_NO_MANIFEST if is_plain else error.next_step) from None
    except BlobSizeMismatch as error:  # whatever is longer than any manifest, or ends early, does not hash to the pin
        raise ManifestDigestMismatch(f"the manifest is not the pinned {digest}: {error.message}") from None


def verify_release(
    store: ObjectStore,
    digest: Digest,
    *,
    trust: TrustPolicy,
    expect: Expectation,
    workers: int = 4,
    progress: Progress | None = None,
    cancelled: Stopped = never,
) -> CheckedRelease:
    """Check the manifest, then the size and SHA-256 of every blob, largest first.

    Memory: `workers` times 1 MiB, whatever the version's size.

    Raises:
        StoreError, IntegrityError: the first that any worker met.
        CancelledError: `cancelled` turned true.
    """
    manifest = fetch_manifest(store, digest, trust=trust, expect=expect)
    distinct = {blob.sha256: blob for blob in manifest.manifest.blobs}
    blobs = sorted(distinct.values(), key=lambda blob: blob.size, reverse=True)
    size, report = sum(blob.size for blob in blobs), progress or NoProgress()
    report.start("verify", size)

    def make_worker(stopped: Stopped) -> Callable[[BlobEntry], None]:
        buffer = memoryview(bytearray(min(_PIECE, blobs[0].size)))
        return lambda blob: _check_blob(store, blob, buffer, stopped, report)

    for_each(blobs, make_worker, workers=min(workers, len(blobs)), cancelled=cancelled)
    return CheckedRelease(manifest, len(blobs), size)


def _check_blob(store: ObjectStore, blob: BlobEntry, buffer: memoryview, stopped: Stopped, report: Progress) -> None:
    hasher = hashlib.sha256()
    with store.reader(blob.object_key, 0, blob.size) as reader:
        for start in range(0, blob.size, len(buffer)):
            if stopped():
                return
            piece = buffer[: min(len(buffer), blob.size - start)]
            reader.fill(piece)
            hasher.update(piece)
            report.advance("verify", len(piece))
    check_size(blob, reader.object_size)
    if not hmac.compare_digest(hasher.hexdigest(), blob.sha256):
        raise BlobDigestMismatch(f"{blob.object_key} hashes to sha256:{hasher.hexdigest()}")


def check_size(blob: BlobEntry, found: int) -> None:
    """Refuse a blob whose object has another size than the signed one.

    Raises:
        BlobSizeMismatch: it has.
    """
    if found != blob.size:
        raise BlobSizeMismatch(f"{blob.object_key} has {found} bytes, {blob.size} are signed")
