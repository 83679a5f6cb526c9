"""From plaintext blobs to sealed ones in the store: each one is reused, resumed, or sealed and sent."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from blake3 import blake3

from modelparams.digest import Digest
from modelparams.errors import KeyMismatch, ObjectMissing, UsageError
from modelparams.floe import FLOE_1M, FORMAT_1M, Sealer, sealed_size, segments
from modelparams.grouping import BlobPlan
from modelparams.journal import Journal
from modelparams.keys import ContentKind, blob_context, content_hasher
from modelparams.manifest import BlobEntry
from modelparams.model_keys import PublisherKeys
from modelparams.parallel import for_each
from modelparams.parameter_files import AGAIN
from modelparams.plaintext import PlainVersion
from modelparams.progress import Progress
from modelparams.secret import Secret32
from modelparams.store.contract import ObjectStore

_IN_MEMORY = 32 << 20
"""A sealed blob up to this size waits in memory for its hash, which is its name; a larger one in an unnamed file."""


_LOOKERS = 16
"""Threads that ask the store whether it has a blob: requests of a few bytes, which only wait."""


@dataclass(frozen=True, slots=True)
class PlainBlob:
    """One blob to be: `pieces` gives its plaintext in order, as often as it is asked."""

    kind: ContentKind
    content_id: str
    size: int
    pieces: Callable[[], Iterable[memoryview]]
    group: str = ""
    """The layer or module whose tensors it holds, for who has to be told of it."""


@dataclass(frozen=True, slots=True)
class NamedVersion:
    """A version whose blobs have their content ids, in the manifest's order: tensors, index, assets."""

    blobs: tuple[PlainBlob, ...]
    schema_digest: Digest


def named(
    plain: PlainVersion, keys: PublisherKeys, *, workers: int, report: Progress, check_finite: bool
) -> NamedVersion:
    """Read every tensor twice: in parallel for the content ids, and in name order for the digest in the index.

    Raises:
        NotFinite, UsageError: the version is not fit to be published.
    """
    report.start("read", plain.size)
    ids: dict[int, str] = {}
    index: list[bytes] = []

    def name(position: int) -> None:
        if position < 0:
            index.append(plain.index(os.urandom(32)).to_json())
            return
        plan = plain.plans[position]
        ids[position] = _content_id(keys, ContentKind.TENSORS, plain.pieces(plan))
        if check_finite:
            plain.check_finite(plan)
        report.advance("read", plan.size)

    positions = range(-1, len(plain.plans))
    for_each(positions, lambda _: name, workers=min(workers, len(positions)))

    def small(kind: ContentKind, data: bytes) -> PlainBlob:
        view = memoryview(data)
        return PlainBlob(kind, _content_id(keys, kind, (view,)), len(data), lambda: (view,))

    def large(position: int, plan: BlobPlan) -> PlainBlob:
        return PlainBlob(ContentKind.TENSORS, ids[position], plan.size, lambda: plain.pieces(plan), plan.group)

    tensors = (large(position, plan) for position, plan in enumerate(plain.plans))
    ends = small(ContentKind.INDEX, index[0]), small(ContentKind.ASSETS, plain.asset_bytes)
    return NamedVersion((*tensors, *ends), plain.schema_digest)


def _content_id(keys: PublisherKeys, kind: ContentKind, pieces: Iterable[memoryview]) -> str:
    hasher = content_hasher(keys.content_id_key, kind)
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


class Sending:
    """One publish's blobs on their way. `counts` has `new`, `reused` and `resumed` blobs and bytes `sent`."""

    def __init__(
        self,
        store: ObjectStore,
        keys: PublisherKeys,
        journal: Journal,
        known: Mapping[str, BlobEntry],
        report: Progress,
    ) -> None:
        self._store, self._keys, self._journal, self._report = store, keys, journal, report
        self._known, self._sent = known, journal.read()  # both believed as far as `_confirmed`
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def run(self, blobs: tuple[PlainBlob, ...], *, workers: int) -> tuple[BlobEntry, ...]:
        """Bring every blob into the store, largest first; equal ones once. Gives their entries in order.

        Raises:
            UsageError: a file changed since its blobs were named.
            StoreError: what was sent until then is in the journal.
        """
        entries: dict[str, BlobEntry] = {}
        distinct = sorted({blob.content_id: blob for blob in blobs}.values(), key=lambda b: b.size, reverse=True)
        self._known = self._still_there(blob.content_id for blob in distinct)
        missing = [blob for blob in distinct if blob.content_id not in self._known]
        self._report.start("send", sum(sealed_size(blob.size) for blob in missing))

        def bring(blob: PlainBlob) -> None:
            entries[blob.content_id] = self._bring(blob)

        for_each(distinct, lambda _: bring, workers=min(workers, len(distinct)))
        return tuple(entries[blob.content_id] for blob in blobs)

    def _still_there(self, content_ids: Iterable[str]) -> Mapping[str, BlobEntry]:
        """Of the last publish's blobs, those that can be listed again: a version never fails for a blob lost before."""
        found: dict[str, BlobEntry] = {}

        def look(entry: BlobEntry) -> None:
            if self._confirmed(entry, may_be_older=True):
                found[entry.content_id] = entry

        asked = [self._known[content_id] for content_id in content_ids if content_id in self._known]
        for_each(asked, lambda _: look, workers=min(_LOOKERS, len(asked)))
        return found

    def _bring(self, blob: PlainBlob) -> BlobEntry:
        if entry := self._known.get(blob.content_id):
            self._count("reused")
            return entry
        entry = self._sent.get(blob.content_id)
        if entry and self._confirmed(entry):
            self._count("resumed")
        else:
            entry = self._seal_and_send(blob)
            self._journal.add(entry)
            self._count("new", sent=entry.size)
        self._report.advance("send", entry.size)
        return entry

    def _count(self, what: str, *, sent: int = 0) -> None:
        with self._lock:
            self.counts.update({what: 1, "sent": sent})

    def _confirmed(self, entry: BlobEntry, *, may_be_older: bool = False) -> bool:
        """Whether a blob is in the store and opens with the present model key, or is of an older epoch's."""
        if entry.epoch != self._keys.epoch:
            return may_be_older and in_store(self._store, entry)
        try:
            self._keys.check(entry)
        except KeyMismatch:
            return False
        return in_store(self._store, entry)

    def _seal_and_send(self, blob: PlainBlob) -> BlobEntry:
        with _sealed(blob, self._keys) as (entry, file):
            self._store.put_new(entry.object_key, file)
        return entry


def in_store(store: ObjectStore, entry: BlobEntry) -> bool:
    """Whether the store has a blob, and all of it; its bytes are not read."""
    try:
        return store.size(entry.object_key) == entry.size
    except ObjectMissing:
        return False


def lost_blobs(store: ObjectStore, entries: Iterable[BlobEntry]) -> list[BlobEntry]:
    """Those that the store has no more, or not all of."""
    lost: list[BlobEntry] = []
    distinct = {entry.sha256: entry for entry in entries}.values()

    def look(entry: BlobEntry) -> None:
        if not in_store(store, entry):
            lost.append(entry)

    for_each(distinct, lambda _: look, workers=min(_LOOKERS, len(distinct)))
    return sorted(lost, key=lambda entry: entry.sha256)


@contextmanager
def _sealed(blob: PlainBlob, keys: PublisherKeys) -> Iterator[tuple[BlobEntry, BinaryIO]]:
    """A blob's entry and its sealed bytes, under a key of its own.

    The content id is computed again over what is sealed: later versions take the blob over by it, unread.
    """
    data_key = Secret32.random()
    sealer = Sealer(data_key, blob_context(keys.uid, bytes.fromhex(blob.content_id)), FLOE_1M)
    sha256, fast, source = hashlib.sha256(), blake3(), _Source(blob.pieces())
    plain = content_hasher(keys.content_id_key, blob.kind)
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:

        def write(piece: bytes) -> None:
            sha256.update(piece)
            fast.update(piece)
            file.write(piece)

        write(sealer.header)
        for segment in segments(blob.size, FLOE_1M):
            taken = source.take(segment.plain_size)
            plain.update(taken)
            write(sealer.seal_segment(taken, segment.position, segment.is_final))
        if plain.hexdigest() != blob.content_id:
            raise UsageError(f"the tensors of {blob.group} changed while they were published", hint=AGAIN)
        entry = BlobEntry(
            sha256=sha256.hexdigest(),
            blake3=fast.hexdigest(),
            size=file.tell(),
            pt_size=blob.size,
            format=FORMAT_1M,
            epoch=keys.epoch,
            wrapped_key=keys.wrap(data_key),
            content_id=blob.content_id,
        )
        yield entry, cast("BinaryIO", file)


class _Source:
    """Pieces of any sizes, taken in segments; a segment is assembled in one buffer that is used again."""

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")
        self._buffer = memoryview(bytearray(FLOE_1M.plain_segment_size))

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, valid until the next call."""
        done = 0
        while done < size:
            if not self._left:
                self._left = next(self._pieces)
                continue
            part = self._left[: size - done]
            self._buffer[done : done + len(part)] = part
            self._left = self._left[len(part) :]
            done += len(part)
        return self._buffer[:size]
