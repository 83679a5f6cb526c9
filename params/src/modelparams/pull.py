"""From sealed blobs in a store to checked tensors in a caller's memory: what a pod does.

Each worker reads a blob as one stream, a segment at a time into its one buffer. While the segment is in the cache, it
is hashed, opened straight into its place, and looked at for NaN: no temporary copy, no file. What the caller gets was
signed, hashed, authenticated, covers exactly what the index says, and is finite; otherwise nothing of it is left there.
"""

from __future__ import annotations

import hmac
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from modelparams.arena import ArenaLayout
from modelparams.errors import ArenaExhausted, IndexInvalid, NotFinite
from modelparams.floe import HEADER_SIZE, wipe
from modelparams.index import TensorIndex
from modelparams.keys import ContentKind, content_hasher
from modelparams.manifest import BlobEntry, Manifest, VerifiedManifest
from modelparams.parallel import Stopped, for_each, never
from modelparams.progress import NoProgress, Progress
from modelparams.sealed import SealedRelease, checked_index, open_blob, open_release, segment_buffer
from modelparams.tensors import is_finite
from modelparams.uninterrupted import uninterrupted

__all__ = ["PulledParams", "ReusableArena", "SealedRelease", "open_release", "pull"]

_COPY_PIECE = 1 << 20


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
    small_hash: str
    """What `arena.small_hash` is of it, and has to be later on where others can write to the memory too."""
    _made_by: object = None

    def __post_init__(self) -> None:
        if self._made_by is not _BY_PULL:
            raise TypeError("only pull makes PulledParams")


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
        workers: threads; each has a buffer of one segment, 1 MiB.
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
        uninterrupted(work.wipe, lambda: None)
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
        index = checked_index(self._release, self._view(manifest.index))
        others = [n for n in range(len(manifest.blobs)) if n != manifest.index]
        others.sort(key=lambda n: manifest.blobs[n].size, reverse=True)
        for_each(others, self._worker(_spans(index)), workers=min(workers, len(others)), cancelled=cancelled)
        small_hash, verified = self._small_hash(), self._release.manifest
        return PulledParams(verified, layout, index, self._fetched, self._reused, small_hash, _BY_PULL)

    def _small_hash(self) -> str:
        """Hash index and small files as they lie there in the end, and only if they are the signed ones still.

        Raises:
            IndexInvalid: they were written to since they were opened.
        """
        hasher = blake3()
        for position in (self._manifest.index, self._manifest.assets):
            signed, view = content_hasher(self._release.keys.content_id_key, self._kind(position)), self._view(position)
            for start in range(0, len(view), _COPY_PIECE):
                piece = bytes(view[start : start + _COPY_PIECE])  # a copy, since both must see the same
                signed.update(piece)
                hasher.update(piece)
            if not hmac.compare_digest(signed.digest(), bytes.fromhex(self._manifest.blobs[position].content_id)):
                raise IndexInvalid("the index or a small file was changed in memory after it was verified")
        return hasher.hexdigest()

    def wipe(self) -> None:
        """Zero every region that was begun."""
        for position in self._started:
            wipe(self._view(position))

    def _view(self, position: int) -> memoryview:
        region = self._release.layout.regions[position]
        return self._into[region.offset : region.offset + region.size]

    def _worker(self, spans: Mapping[int, Sequence[_Span]]) -> Callable[[Stopped], Callable[[int], None]]:
        def make(stopped: Stopped) -> Callable[[int], None]:
            buffer = segment_buffer(self._manifest)
            return lambda position: self._fill(position, spans.get(position, ()), buffer, stopped)

        return make

    def _fill(self, position: int, spans: Sequence[_Span], buffer: memoryview, stopped: Stopped) -> None:
        blob, target, finite = self._manifest.blobs[position], self._view(position), _FiniteCheck(spans)
        self._started.add(position)
        resident = self._reuse.find(blob) if self._reuse else None
        if resident is not None and self._copy(resident, target, blob, self._kind(position)):
            finite.follow(target, 0)
            self._count(reused=blob.pt_size)
            self._progress.advance("pull", blob.size)
            return

        def follow(part: memoryview, start: int, sealed_size: int) -> None:
            finite.follow(part, start)
            self._progress.advance("pull", sealed_size)

        open_blob(self._release, position, target, buffer=buffer, follow=follow, stopped=stopped)
        self._progress.advance("pull", HEADER_SIZE)  # which is of no segment
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


class _FiniteCheck:
    """Looks at a blob's plaintext as it comes, in order.

    Pieces may cut a tensor, never an element: segments hold a multiple of 32 bytes, and tensors begin at one of 64.
    """

    def __init__(self, spans: Sequence[_Span]) -> None:
        self._spans, self._next = sorted(spans, key=lambda span: span.start), 0

    def follow(self, view: memoryview, start: int) -> None:
        """Check the bytes from `start` of the blob on.

        Raises:
            NotFinite: a float in them is none that can be computed with.
        """
        end = start + len(view)
        while self._next < len(self._spans) and (span := self._spans[self._next]).start < end:
            first, last = max(span.start, start), min(span.end, end)
            if not is_finite(view[first - start : last - start], span.dtype):
                # Names are confidential, and people without keys read this text: a number must do.
                raise NotFinite(f"tensor {span.tensor} of the index (by name, from 0) holds NaN or infinite values")
            if span.end > end:
                return
            self._next += 1
