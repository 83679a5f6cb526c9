"""From sealed blobs in a store to checked tensors in a caller's memory: what a pod does.

Each worker reads a blob in ranges into its one buffer. While a segment is in the processor's cache, it is hashed and
opened straight into its place: no temporary copy, no file. What the caller gets was signed, hashed, authenticated,
covers exactly what the index says, and is finite; otherwise nothing of it is left in the memory.
"""

from __future__ import annotations

import hmac
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from modelparams.arena import ArenaLayout
from modelparams.digest import Digest
from modelparams.errors import ArenaExhausted, BlobDigestMismatch, NotFinite
from modelparams.floe import HEADER_SIZE, FloeParams, Opener, Segment, params_of, segments, wipe
from modelparams.index import TensorIndex
from modelparams.keys import (
    KEY_OBJECT_LIMIT,
    ContentKind,
    KeyContext,
    KeyProvider,
    ModelKeys,
    blob_context,
    check_commitment,
    content_hasher,
    open_key_object,
    unwrap_dek,
)
from modelparams.manifest import BlobEntry, Expectation, Manifest, VerifiedManifest
from modelparams.parallel import Stopped, for_each, never
from modelparams.progress import NoProgress, Progress
from modelparams.secret import Secret32
from modelparams.store.contract import ObjectStore
from modelparams.tensors import is_finite
from modelparams.trust import TrustPolicy
from modelparams.verify import READ_SIZE, check_size, fetch_manifest

_COPY_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class SealedRelease:
    """A version whose manifest is verified and whose model keys are open: ready to be pulled.

    `layout.total` is the memory that it takes.
    """

    store: ObjectStore
    manifest: VerifiedManifest
    keys: ModelKeys
    layout: ArenaLayout


class ReusableArena:
    """Memory that holds another version of the model, from which equal blobs are copied instead of fetched.

    Nothing is taken on trust: what is copied must have the signed content id.

    Args:
        manifest: of the version that was pulled into `buffer`.
        buffer: that arena, from its start.
    """

    def __init__(self, manifest: Manifest, buffer: memoryview) -> None:
        self.uid = manifest.model.uid
        regions = zip(manifest.blobs, ArenaLayout.of(manifest).regions, strict=True)
        self._views = {
            blob.content_id: buffer[region.offset : region.offset + region.size]
            for blob, region in regions
            if region.offset + region.size <= len(buffer)
        }

    def find(self, blob: BlobEntry) -> memoryview | None:
        """The plaintext that should have the blob's content id."""
        view = self._views.get(blob.content_id)
        return view if view is not None and len(view) == blob.pt_size else None


_BY_PULL = object()


@dataclass(frozen=True, slots=True)
class PulledParams:
    """A version that lies, checked, in the caller's memory. Only `pull` makes one."""

    manifest: VerifiedManifest
    layout: ArenaLayout
    index: TensorIndex
    fetched_bytes: int
    """Sealed bytes read from the store."""
    reused_bytes: int
    """Plain bytes copied from the reusable arena."""
    _made_by: object = None

    def __post_init__(self) -> None:
        if self._made_by is not _BY_PULL:
            raise TypeError("only pull makes PulledParams")


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


def pull(
    release: SealedRelease,
    into: memoryview,
    *,
    workers: int = 4,
    reuse: ReusableArena | None = None,
    progress: Progress | None = None,
    cancelled: Stopped = never,
) -> PulledParams:
    """Fill `into` with the version's plaintext as `release.layout` says.

    Args:
        release: what `open_release` gave.
        into: writable, at least `release.layout.total` bytes. Whatever fails, what was written is zeroed again.
        workers: threads; each has a buffer of 8 MiB.
        reuse: memory to copy unchanged blobs from.
        progress: told of sealed bytes as they are done, under the task "pull".
        cancelled: asked between reads, from every worker.

    Raises:
        ArenaExhausted: `into` is too small; nothing was written.
        StoreError, IntegrityError: the first that any worker met.
        CancelledError: `cancelled` turned true.
    """
    if len(into) < release.layout.total:
        raise ArenaExhausted(f"the version takes {release.layout.total} bytes, the arena has {len(into)}")
    work = _Pull(release, into, reuse, progress or NoProgress())
    try:
        return work.run(workers, cancelled)
    except BaseException:
        work.wipe()
        raise


class _Pull:
    """One pull: what its workers share."""

    def __init__(
        self, release: SealedRelease, into: memoryview, reuse: ReusableArena | None, progress: Progress
    ) -> None:
        self._release, self._into, self._progress = release, into, progress
        self._manifest = release.manifest.manifest
        self._reuse = reuse if reuse and reuse.uid == self._manifest.model.uid else None
        self._started: set[int] = set()
        self._lock, self._fetched, self._reused = threading.Lock(), 0, 0

    def run(self, workers: int, cancelled: Stopped) -> PulledParams:
        """The index first, so that each blob of tensors is checked while it is in the cache."""
        manifest, layout = self._manifest, self._release.layout
        self._progress.start("pull", manifest.size_bytes)
        for_each([manifest.index], self._worker({}), workers=1, cancelled=cancelled)
        index = TensorIndex.parse(self._view(manifest.index))
        layout.check_index(index)
        others = [n for n in range(len(manifest.blobs)) if n != manifest.index]
        others.sort(key=lambda n: manifest.blobs[n].size, reverse=True)
        for_each(others, self._worker(_spans(index)), workers=min(workers, len(others)), cancelled=cancelled)
        return PulledParams(self._release.manifest, layout, index, self._fetched, self._reused, _BY_PULL)

    def wipe(self) -> None:
        """Zero every region that was begun."""
        for position in self._started:
            wipe(self._view(position))

    def _view(self, position: int) -> memoryview:
        region = self._release.layout.regions[position]
        return self._into[region.offset : region.offset + region.size]

    def _worker(self, spans: Mapping[int, Sequence[_Span]]) -> Callable[[Stopped], Callable[[int], None]]:
        def make(stopped: Stopped) -> Callable[[int], None]:
            buffer = memoryview(bytearray(HEADER_SIZE + READ_SIZE))

            def fill(position: int) -> None:
                self._fill(position, buffer, stopped)
                if not stopped():
                    _check_finite(self._view(position), spans.get(position, ()))

            return fill

        return make

    def _fill(self, position: int, buffer: memoryview, stopped: Stopped) -> None:
        blob, target = self._manifest.blobs[position], self._view(position)
        self._started.add(position)
        resident = self._reuse.find(blob) if self._reuse else None
        if resident is not None and self._copy(resident, target, blob, self._kind(position)):
            self._count(reused=blob.pt_size)
            self._progress.advance("pull", blob.size)
            return
        self._fetch(blob, target, buffer, stopped)
        self._count(fetched=blob.size)

    def _count(self, *, fetched: int = 0, reused: int = 0) -> None:
        with self._lock:
            self._fetched, self._reused = self._fetched + fetched, self._reused + reused

    def _kind(self, position: int) -> ContentKind:
        special = {self._manifest.index: ContentKind.INDEX, self._manifest.assets: ContentKind.ASSETS}
        return special.get(position, ContentKind.TENSORS)

    def _copy(self, resident: memoryview, target: memoryview, blob: BlobEntry, kind: ContentKind) -> bool:
        """Copy and then hash the copy, which nobody else writes; False if it is not what the signed content id says."""
        hasher = content_hasher(self._release.keys.content_id_key, kind)
        source, copy = np.frombuffer(resident, np.uint8), np.frombuffer(target, np.uint8)
        for start in range(0, len(target), _COPY_PIECE):
            end = start + _COPY_PIECE
            np.copyto(copy[start:end], source[start:end])  # releases the GIL, as slices of memoryview do not
            hasher.update(target[start:end])
        return hmac.compare_digest(hasher.digest(), bytes.fromhex(blob.content_id))

    def _fetch(self, blob: BlobEntry, target: memoryview, buffer: memoryview, stopped: Stopped) -> None:
        params, hasher, opener = params_of(blob.format), blake3(), None
        for batch in _batches(blob.pt_size, params):
            if stopped():
                return
            start = batch[0].sealed_offset if opener else 0
            sealed = buffer[: batch[-1].sealed_offset + batch[-1].sealed_size - start]
            check_size(blob, self._release.store.read_into(blob.object_key, start, sealed))
            if opener is None:
                hasher.update(sealed[:HEADER_SIZE])
                opener = self._opener(blob, sealed[:HEADER_SIZE], params)
            for segment in batch:
                at = segment.sealed_offset - start
                piece, place = sealed[at : at + segment.sealed_size], segment.plain_offset
                hasher.update(piece)
                part = target[place : place + segment.plain_size]
                opener.open_segment_into(piece, segment.position, segment.is_final, part)
            self._progress.advance("pull", len(sealed))
        if not hmac.compare_digest(hasher.hexdigest(), blob.blake3):
            raise BlobDigestMismatch(f"{blob.object_key} opens but hashes to blake3:{hasher.hexdigest()}")

    def _opener(self, blob: BlobEntry, header: memoryview, params: FloeParams) -> Opener:
        keys = self._release.keys
        data_key = unwrap_dek(keys.epochs[blob.epoch], bytes.fromhex(blob.wrapped_key))
        context = blob_context(keys.uid, bytes.fromhex(blob.content_id))
        return Opener(data_key, context, header, params, name=blob.object_key)


def _batches(plain_size: int, params: FloeParams) -> Iterator[list[Segment]]:
    """The segments of a blob in groups of one read each, at most READ_SIZE."""
    batch: list[Segment] = []
    for segment in segments(plain_size, params):
        batch.append(segment)
        if segment.is_final or len(batch) * params.segment_size >= READ_SIZE:
            yield batch
            batch = []


@dataclass(frozen=True, slots=True)
class _Span:
    """The part of tensor number `tensor` (in name order) that is in one blob; bytes."""

    tensor: int
    dtype: str
    start: int
    end: int


def _spans(index: TensorIndex) -> dict[int, list[_Span]]:
    """Blob → what is in it; a place that has several names once."""
    spans: dict[int, list[_Span]] = defaultdict(list)
    seen: set[tuple[int, int, int]] = set()
    for number, tensor in enumerate(index.tensors):
        if (place := (tensor.blob, tensor.offset, tensor.size)) in seen:
            continue
        seen.add(place)
        blob, start, left = place
        while left > 0:
            end = min(start + left, index.blob_sizes[blob])
            spans[blob].append(_Span(number, tensor.dtype, start, end))
            blob, start, left = blob + 1, 0, left - (end - start)
    return spans


def _check_finite(view: memoryview, spans: Sequence[_Span]) -> None:
    for span in spans:
        if not is_finite(view[span.start : span.end], span.dtype):
            # Names are confidential and this text is shown to people without keys: a number must do.
            raise NotFinite(f"tensor {span.tensor} of the index (in name order, from 0) holds NaN or infinite values")
