"""A sealed version with its keys at hand: its blobs can be opened, one by one."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from modelparams.arena import ArenaLayout
from modelparams.digest import Digest
from modelparams.errors import BlobDigestMismatch, IndexInvalid, SealBroken
from modelparams.floe import HEADER_SIZE, FloeParams, Opener, params_of, segments
from modelparams.index import TensorIndex, schema_digest
from modelparams.keys import (
    KEY_OBJECT_LIMIT,
    KeyContext,
    KeyProvider,
    ModelKeys,
    blob_context,
    check_commitment,
    open_key_object,
    unwrap_dek,
)
from modelparams.manifest import BlobEntry, Expectation, Manifest, VerifiedManifest
from modelparams.parallel import Stopped, never
from modelparams.secret import Secret32
from modelparams.store.contract import ObjectStore, Reader
from modelparams.trust import TrustPolicy
from modelparams.verify import check_size, fetch_manifest

Follow = Callable[[memoryview, int, int], None]
"""Told of each opened segment: its plaintext, where that begins in the blob's, and the segment's sealed bytes."""


@dataclass(frozen=True, slots=True)
class SealedRelease:
    """A version whose manifest is verified and whose model keys are open: ready to be pulled.

    `layout.total` is the memory that it takes.
    """

    store: ObjectStore
    manifest: VerifiedManifest
    keys: ModelKeys
    layout: ArenaLayout


def open_release(
    store: ObjectStore,
    digest: Digest,
    *,
    trust: TrustPolicy,
    expect: Expectation,
    keys: KeyProvider,
    key_ref: str,
) -> SealedRelease:
    """Verify the manifest that `digest` pins and unwrap the model's keys; reads a few small objects.

    Raises:
        StoreError: one cannot be read.
        IntegrityError: as `verify_manifest`, or KeyMismatch when a key is not the one that was signed for.
        KeyUnavailable: `keys` does not hold `key_ref`.
    """
    manifest = fetch_manifest(store, digest, trust=trust, expect=expect)
    uid = manifest.manifest.model.uid

    def unwrapped(context: KeyContext) -> Secret32:
        data = store.get(context.object_key, limit=KEY_OBJECT_LIMIT)
        return open_key_object(data, context, keys, key_ref)

    epochs: dict[str, Secret32] = {}
    for epoch in manifest.manifest.epochs:
        epochs[epoch.id] = unwrapped(KeyContext.of_model_key(uid, epoch.id))
        check_commitment(epochs[epoch.id], uid, epoch.id, bytes.fromhex(epoch.commit))
    opened = ModelKeys(uid, unwrapped(KeyContext.of_content_id_key(uid)), epochs)
    return SealedRelease(store, manifest, opened, ArenaLayout.of(manifest.manifest))


def segment_buffer(manifest: Manifest) -> memoryview:
    """Memory for one sealed segment of any of the manifest's blobs: what each worker needs."""
    return memoryview(bytearray(max(params_of(blob.format).segment_size for blob in manifest.blobs)))


def open_blob(
    release: SealedRelease,
    position: int,
    into: memoryview,
    *,
    buffer: memoryview,
    follow: Follow | None = None,
    stopped: Stopped = never,
) -> None:
    """Fetch, hash and open one blob into `into`, of exactly its plaintext's size, a segment at a time.

    When `stopped` turns true it returns with the work undone. On any failure the caller wipes `into`.

    Raises:
        StoreError: it cannot be read; also where that leaves unknown why it does not open, so it is tried again.
        BlobSizeMismatch, BlobDigestMismatch: it is not what was signed, whether it opens or not.
        SealBroken, KeyMismatch: it is, and does not open.
    """
    blob = release.manifest.manifest.blobs[position]
    params = params_of(blob.format)
    with release.store.reader(blob.object_key, 0, blob.size) as reader:
        stream = _Hashed(reader, blob)
        header = stream.take(buffer[:HEADER_SIZE])
        check_size(blob, reader.object_size)
        try:
            opener = _opener(release.keys, blob, header, params)
            for segment in segments(blob.pt_size, params):
                if stopped():
                    return
                sealed, start = stream.take(buffer[: segment.sealed_size]), segment.plain_offset
                part = into[start : start + segment.plain_size]
                opener.open_segment_into(sealed, segment.position, segment.is_final, part)
                if follow:
                    follow(part, start, segment.sealed_size)
        except SealBroken:
            if not stream.read_on(buffer, stopped):
                return
            stream.check("does not open, and")
            raise
    stream.check("opens, but")


class _Hashed:
    """A blob's sealed bytes as they come, once, and their BLAKE3."""

    def __init__(self, reader: Reader, blob: BlobEntry) -> None:
        self._reader, self._blob, self._hasher, self._left = reader, blob, blake3(), blob.size

    def take(self, into: memoryview) -> memoryview:
        """The bytes that follow."""
        self._reader.fill(into)
        self._hasher.update(into)
        self._left -= len(into)
        return into

    def read_on(self, buffer: memoryview, stopped: Stopped) -> bool:
        """To the end: only then is it known whether the store or the signer is to blame. False: it has to stop."""
        while self._left:
            if stopped():
                return False
            self.take(buffer[: min(len(buffer), self._left)])
        return True

    def check(self, what: str) -> None:
        """Refuse all of the bytes that are not the signed ones."""
        if not hmac.compare_digest(self._hasher.hexdigest(), self._blob.blake3):
            raise BlobDigestMismatch(f"{self._blob.object_key} {what} hashes to blake3:{self._hasher.hexdigest()}")


def _opener(keys: ModelKeys, blob: BlobEntry, header: memoryview, params: FloeParams) -> Opener:
    data_key = unwrap_dek(keys.epochs[blob.epoch], bytes.fromhex(blob.wrapped_key))
    context = blob_context(keys.uid, bytes.fromhex(blob.content_id))
    return Opener(data_key, context, header, params, name=blob.object_key)


def read_index(release: SealedRelease) -> TensorIndex:
    """The tensor index alone: names, dtypes, shapes and places, without fetching a tensor.

    Raises:
        StoreError, IntegrityError.
    """
    manifest = release.manifest.manifest
    plain = memoryview(bytearray(manifest.blobs[manifest.index].pt_size))
    open_blob(release, manifest.index, plain, buffer=segment_buffer(manifest))
    return checked_index(release, plain)


def checked_index(release: SealedRelease, plain: memoryview) -> TensorIndex:
    """Parse an opened index and hold it to the signed manifest.

    Raises:
        IndexInvalid: it contradicts itself or the manifest.
    """
    index = TensorIndex.parse(plain)
    release.layout.check_index(index)
    if not schema_digest(index.specs).matches(release.manifest.manifest.schema_digest):
        raise IndexInvalid("the tensor index is for other names, dtypes or shapes than the signed manifest")
    return index
