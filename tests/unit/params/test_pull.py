"""Pulling: what arrives is what was published, whatever fails leaves nothing, unchanged blobs are not fetched."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from builders.publishing import INF, KEY_REF, NAN, Publisher, layered, safetensors
from builders.sealed import bf16, envelope_of
from modelparams.arena import ReadableArena
from modelparams.digest import Digest
from modelparams.errors import (
    ArenaExhausted,
    BlobDigestMismatch,
    BlobSizeMismatch,
    IndexInvalid,
    KeyMismatch,
    KeyUnavailable,
    ModelParamsError,
    NotFinite,
    ObjectMissing,
    SealBroken,
    StoreUnavailable,
    WrongVersion,
)
from modelparams.floe import FLOE_4M, FORMAT_1M, FORMAT_4M, wipe
from modelparams.grouping import plan_blobs
from modelparams.keys import KEY_OBJECT_LIMIT, KeyContext, write_key_object
from modelparams.manifest import BlobEntry
from modelparams.progress import NoProgress
from modelparams.publish import Published
from modelparams.pull import PulledParams, ReusableArena, SealedRelease, pull
from modelparams.sealed import open_blob, segment_buffer
from modelparams.secret import Secret32
from modelparams.store import FileStore
from modelparams.store.contract import Reader
from modelparams.strictjson import dumps
from modelparams.tensors import TensorSpec
from modelparams.verify import manifest_key

BIG = {"model.layers.0.weight": (TensorSpec("U8", (3 << 20,)), os.urandom(3 << 20))}
"""One blob of four segments."""


class Case:
    def __init__(self, home: Path) -> None:
        self.publisher = Publisher(home)
        self.objects = home / "store"

    def blobs(self, published: Published) -> tuple[BlobEntry, ...]:
        return self.publisher.open(published).manifest.manifest.blobs

    def path(self, blob: BlobEntry) -> Path:
        return self.objects / blob.object_key


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def tensors_of(pulled: PulledParams, arena: memoryview) -> dict[str, bytes]:
    readable = ReadableArena(arena, pulled.layout.index)
    return {name: bytes(readable.tensor(name)) for name in readable.specs}


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_what_arrives_is_what_was_published(case: Case, workers: int) -> None:
    tensors = {**layered(5), **BIG}
    published = case.publisher.publish("1.0.0", tensors)
    pulled, arena = case.publisher.pull(published, workers=workers)
    assert tensors_of(pulled, arena) == {name: data for name, (_, data) in tensors.items()}
    assert (pulled.fetched_bytes, pulled.reused_bytes) == (published.bytes_total, 0)


def test_nothing_is_written_beyond_the_layout(case: Case) -> None:
    pulled, arena = case.publisher.pull(case.publisher.publish("1.0.0"))
    assert bytes(arena[pulled.layout.total :]) == b"\xaa" * 100


def test_an_arena_that_is_too_small_is_refused_before_anything_is_written(case: Case) -> None:
    release = case.publisher.open(case.publisher.publish("1.0.0"))
    arena = bytearray(b"\xaa" * (release.layout.total - 1))
    with pytest.raises(ArenaExhausted, match=f"takes {release.layout.total} bytes"):
        pull(release, memoryview(arena))
    assert set(arena) == {0xAA}


def test_only_the_changed_layer_is_fetched_when_the_other_arena_has_the_rest(case: Case) -> None:
    first = case.publisher.publish("1.0.0", layered(30))
    second = case.publisher.publish("1.1.0", layered(30, layer7=0x3E80))
    before, arena = case.publisher.pull(first)
    pulled, other = case.publisher.pull(second, reuse=ReusableArena(before.manifest.manifest, arena))
    assert pulled.fetched_bytes == second.bytes_sent
    assert pulled.reused_bytes > 0.9 * sum(len(data) for _, data in layered(30).values())
    assert tensors_of(pulled, other) == {name: data for name, (_, data) in layered(30, layer7=0x3E80).items()}


def test_resident_bytes_are_taken_only_if_they_have_the_signed_content_id(case: Case) -> None:
    published = case.publisher.publish("1.0.0")
    before, arena = case.publisher.pull(published)
    arena[before.layout.blob_offset(1) + 5] ^= 1
    pulled, other = case.publisher.pull(published, reuse=ReusableArena(before.manifest.manifest, arena))
    assert tensors_of(pulled, other) == {name: data for name, (_, data) in layered().items()}
    assert pulled.fetched_bytes == before.manifest.manifest.blobs[1].size


def test_an_arena_that_was_cut_or_is_of_another_model_gives_nothing(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = case.publisher.publish("1.0.0")
    before, arena = case.publisher.pull(published)
    pulled, _ = case.publisher.pull(published, reuse=ReusableArena(before.manifest.manifest, arena[:10]))
    assert pulled.reused_bytes == 0
    other, strange = Publisher(tmp_path / "other"), ReusableArena(before.manifest.manifest, arena)
    asked = list[BlobEntry]()
    monkeypatch.setattr(strange, "find", asked.append)
    pulled, _ = other.pull(other.publish("1.0.0"), reuse=strange)
    assert (pulled.reused_bytes, asked) == (0, [])


def test_a_resident_blob_of_another_size_is_none_whatever_content_id_is_signed(case: Case) -> None:
    before, arena = case.publisher.pull(case.publisher.publish("1.0.0"))
    reusable, blob = ReusableArena(before.manifest.manifest, arena), before.manifest.manifest.blobs[0]
    assert reusable.find(blob) is not None
    assert reusable.find(blob.model_copy(update={"pt_size": blob.pt_size - 1})) is None


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _exchange_segments(path: Path) -> None:
    data, start, size = path.read_bytes(), 74, 1 << 20
    first, second = data[start : start + size], data[start + size : start + 2 * size]
    path.write_bytes(data[:start] + second + first + data[start + 2 * size :])


Tamper = Callable[[Path, Path], object]
TAMPERING: dict[str, tuple[Tamper, type[ModelParamsError]]] = {
    "missing": (lambda path, other: path.unlink(), ObjectMissing),
    "cut": (lambda path, other: path.write_bytes(path.read_bytes()[:-1]), BlobSizeMismatch),
    "longer": (lambda path, other: path.write_bytes(path.read_bytes() + b"x"), BlobSizeMismatch),
    "flipped in its header": (lambda path, other: _flip(path, 20), BlobDigestMismatch),
    "flipped in its first segment": (lambda path, other: _flip(path, 90), BlobDigestMismatch),
    "flipped in its last byte": (lambda path, other: _flip(path, -1), BlobDigestMismatch),
    "swapped with another": (lambda path, other: path.write_bytes(other.read_bytes()), BlobDigestMismatch),
    "two segments exchanged": (lambda path, other: _exchange_segments(path), BlobDigestMismatch),
    "plain safetensors in its place": (lambda path, other: path.write_bytes(safetensors(BIG)), BlobSizeMismatch),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_blob_that_is_not_as_signed_is_refused_and_the_arena_is_wiped(case: Case, how: str) -> None:
    tamper, kind = TAMPERING[how]
    tensors = {**BIG, "model.layers.1.weight": (TensorSpec("U8", (3 << 20,)), bytes(3 << 20)), **layered(0)}
    published = case.publisher.publish("1.0.0", tensors)
    one, other, *_ = (blob for blob in case.blobs(published) if blob.pt_size == 3 << 20)
    tamper(case.path(one), case.path(other))
    release = case.publisher.open(published)
    arena = bytearray(b"\xaa" * release.layout.total)
    with pytest.raises(kind, match=one.sha256):
        pull(release, memoryview(arena), workers=2)
    assert set(arena) <= {0, 0xAA}


def test_a_forgery_by_a_holder_of_the_keys_opens_and_is_refused_by_its_hash(case: Case, tmp_path: Path) -> None:
    published = case.publisher.publish("1.0.0")
    release = case.publisher.open(published)
    blob = release.manifest.manifest.blobs[1]
    from builders.sealed import sealed_blob
    from modelparams.floe import Sealer
    from modelparams.keys import blob_context, unwrap_dek

    key = unwrap_dek(release.keys.epochs[blob.epoch], bytes.fromhex(blob.wrapped_key))
    context = blob_context(release.keys.uid, bytes.fromhex(blob.content_id))
    case.path(blob).write_bytes(sealed_blob(bytes(blob.pt_size), Sealer(key, context)))
    arena = bytearray(b"\xaa" * release.layout.total)
    with pytest.raises(BlobDigestMismatch, match="opens, but hashes"):
        pull(release, memoryview(arena))
    assert set(arena) <= {0, 0xAA}


def broken_but_signed(case: Case, at: int) -> SealedRelease:
    """A version whose signer promises the very bytes of a blob that nobody can open."""
    published = case.publisher.publish("1.0.0", BIG)
    signed = json.loads((case.objects / manifest_key(published.manifest_digest)).read_bytes())
    statement = json.loads(base64.b64decode(signed["payload"]))
    blob = statement["predicate"]["blobs"][0]
    path = case.objects / "blobs" / "sha256" / blob["sha256"]
    _flip(path, at)
    data = path.read_bytes()
    blob |= {"sha256": hashlib.sha256(data).hexdigest(), "blake3": blake3(data).hexdigest()}
    statement["subject"][0] = {"name": f"blobs/sha256/{blob['sha256']}", "digest": {"sha256": blob["sha256"]}}
    path.rename(path.with_name(blob["sha256"]))
    envelope = envelope_of(dumps(statement), case.publisher.signer)
    case.publisher.store.put_new(manifest_key(Digest.of(envelope)), envelope)
    return case.publisher.open(replace(published, manifest_digest=Digest.of(envelope)))


@pytest.mark.parametrize("at", [20, 90, -1], ids=["header", "first segment", "last byte"])
def test_what_does_not_open_though_it_is_as_signed_has_a_broken_seal(case: Case, at: int) -> None:
    release = broken_but_signed(case, at)
    with pytest.raises(SealBroken, match=release.manifest.manifest.blobs[0].sha256):
        pull(release, memoryview(bytearray(release.layout.total)))


class Faint(FileStore):
    """A store that goes away behind a blob's first MiB."""

    @contextlib.contextmanager
    def reader(self, key: str, start: int, end: int) -> Iterator[Reader]:
        with super().reader(key, start, end) as inner:

            class Cut:
                object_size = property(lambda _: inner.object_size)
                left = 2

                def fill(self, into: memoryview) -> None:
                    self.left -= 1
                    if self.left < 0 and key.startswith("blobs/") and end > 2 << 20:
                        raise StoreUnavailable("gone")
                    inner.fill(into)

            yield Cut()


def changed_and_cut(case: Case) -> tuple[SealedRelease, BlobEntry]:
    """A version of which a blob is changed in the store, which goes away behind the change."""
    published = case.publisher.publish("1.0.0", BIG)
    (largest,) = (blob for blob in case.blobs(published) if blob.pt_size > 2 << 20)
    _flip(case.path(largest), 90)
    return replace(case.publisher.open(published), store=Faint(case.objects)), largest


def test_what_does_not_open_is_called_nothing_final_when_the_rest_cannot_be_read(case: Case) -> None:
    """Whether it is as signed is known from all of its bytes alone. The store's error is known, and is tried again."""
    release, _ = changed_and_cut(case)
    with pytest.raises(StoreUnavailable, match="gone"):
        pull(release, memoryview(bytearray(release.layout.total)), workers=1)


def test_once_it_is_to_stop_it_reads_no_further_to_find_out_whose_fault_it_is(case: Case) -> None:
    release, largest = changed_and_cut(case)
    position, asked = release.manifest.manifest.blobs.index(largest), iter([False])
    into = memoryview(bytearray(largest.pt_size))
    buffer = segment_buffer(release.manifest.manifest)
    open_blob(release, position, into, buffer=buffer, stopped=lambda: next(asked, True))
    assert next(asked, None) is None


@pytest.mark.parametrize("pattern", [NAN, INF])
def test_a_signed_version_with_nan_or_infinity_is_refused_without_naming_the_tensor(case: Case, pattern: int) -> None:
    published = case.publisher.publish("1.0.0", layered(layer1=pattern), check_finite=False)
    with pytest.raises(NotFinite) as caught:
        case.publisher.pull(published)
    assert "layers" not in str(caught.value)
    assert sorted(layered())[int(str(caught.value).split()[1])] == "model.layers.1.mlp.weight"


def test_a_single_nan_beyond_the_first_segment_is_found(case: Case) -> None:
    spec, data = bf16(1 << 20)
    data = data[:-2] + NAN.to_bytes(2, "little")
    with pytest.raises(NotFinite):
        case.publisher.pull(case.publisher.publish("1.0.0", {"weight": (spec, data)}, check_finite=False))


def test_a_resident_version_with_nan_is_not_let_in_by_reuse(case: Case) -> None:
    good = case.publisher.publish("1.0.0")
    bad = case.publisher.publish("1.1.0", layered(layer1=NAN), check_finite=False)
    before, arena = case.publisher.pull(good)
    with pytest.raises(NotFinite):
        case.publisher.pull(bad, reuse=ReusableArena(before.manifest.manifest, arena))


def test_nan_that_lies_in_the_resident_bytes_is_found_when_they_are_copied(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = case.publisher.publish("1.0.0", layered(layer1=NAN), check_finite=False)
    second = case.publisher.publish("1.1.0", layered(layer0=0x3E80, layer1=NAN), check_finite=False)
    with monkeypatch.context() as unchecked:
        unchecked.setattr("modelparams.pull.is_finite", lambda *_: True)
        before, arena = case.publisher.pull(first)
    release = case.publisher.open(second)
    other = bytearray(b"\xaa" * release.layout.total)
    with pytest.raises(NotFinite):
        pull(release, memoryview(other), reuse=ReusableArena(before.manifest.manifest, arena))
    assert set(other) <= {0, 0xAA}, "and what was copied is wiped"


def test_nan_behind_the_first_blob_of_a_tensor_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelparams.plaintext.plan_blobs", lambda sizes: plan_blobs(sizes, limit=4096))
    spec, data = bf16(64, 64)
    tensors = {"head.weight": (spec, data[:-2] + NAN.to_bytes(2, "little"))}
    with pytest.raises(NotFinite):
        case.publisher.pull(case.publisher.publish("1.0.0", tensors, check_finite=False))


def test_nan_is_found_where_tensors_lie_in_another_order_than_their_names(case: Case) -> None:
    """Expert 2 lies before expert 10, whose name comes first; a segment ends inside each."""
    spec, data = bf16(3 << 18)
    tensors = {
        "model.layers.0.experts.2.weight": (spec, NAN.to_bytes(2, "little") + data[2:]),
        "model.layers.0.experts.10.weight": (spec, data),
    }
    with pytest.raises(NotFinite, match="tensor 1 of the index"):
        case.publisher.pull(case.publisher.publish("1.0.0", tensors, check_finite=False))


def test_blobs_of_both_segment_sizes_lie_beside_each_other(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other_writer:
        other_writer.setattr("modelparams.sealing.FLOE_1M", FLOE_4M)
        other_writer.setattr("modelparams.sealing.FORMAT_1M", FORMAT_4M)
        case.publisher.publish("1.0.0", BIG)
    tensors = {**BIG, **layered(0)}
    published = case.publisher.publish("1.1.0", tensors)
    assert {blob.format for blob in case.blobs(published)} == {FORMAT_1M, FORMAT_4M}
    pulled, arena = case.publisher.pull(published)
    assert tensors_of(pulled, arena) == {name: data for name, (_, data) in tensors.items()}


def test_progress_adds_up_to_every_byte_fetched_or_copied(case: Case) -> None:
    class Counting:
        total = done = 0

        def start(self, task: str, total: int) -> None:
            self.total += total

        def advance(self, task: str, n: int) -> None:
            self.done += n

    first = case.publisher.publish("1.0.0", {**layered(), **BIG})
    second = case.publisher.publish("1.1.0", {**layered(layer1=0x3E80), **BIG})
    fetching, copying = Counting(), Counting()
    before, arena = case.publisher.pull(first, workers=1, progress=fetching)
    reuse = ReusableArena(before.manifest.manifest, arena)
    pulled, _ = case.publisher.pull(second, workers=1, reuse=reuse, progress=copying)
    assert fetching.total == fetching.done == first.bytes_total
    assert pulled.reused_bytes
    assert copying.total == copying.done == second.bytes_total


@pytest.mark.parametrize("part", ["index", "assets"])
def test_an_index_or_small_file_that_others_change_in_memory_meanwhile_is_refused(case: Case, part: str) -> None:
    release = case.publisher.open(case.publisher.publish("1.0.0", BIG))
    arena, region = memoryview(bytearray(release.layout.total)), getattr(release.layout, part)

    class Writing(NoProgress):
        def advance(self, task: str, n: int) -> None:
            arena[region.offset + region.size - 2] = 0x7E

    with pytest.raises(IndexInvalid):
        pull(release, arena, progress=Writing(), workers=1)
    assert set(arena) == {0}


def test_an_interrupt_wipes_too(case: Case) -> None:
    release = case.publisher.open(case.publisher.publish("1.0.0", BIG))
    arena, calls = bytearray(b"\xaa" * release.layout.total), iter(range(100))

    def interrupted() -> bool:
        if next(calls) > 6:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        pull(release, memoryview(arena), cancelled=interrupted, workers=1)
    assert set(arena) <= {0, 0xAA}


def test_another_interrupt_while_it_wipes_tears_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch, interrupting: Callable[[], None]
) -> None:
    release = case.publisher.open(case.publisher.publish("1.0.0", BIG))
    arena, calls, again = bytearray(b"\xaa" * release.layout.total), iter(range(100)), [interrupting]

    def interrupted() -> bool:
        if next(calls) > 6:
            raise KeyboardInterrupt
        return False

    def wiping(view: memoryview) -> None:
        if again:
            again.pop()()
        wipe(view)

    monkeypatch.setattr("modelparams.pull.wipe", wiping)
    with pytest.raises(KeyboardInterrupt):
        pull(release, memoryview(arena), cancelled=interrupted, workers=1)
    assert not again
    assert set(arena) <= {0, 0xAA}


@pytest.mark.parametrize("key", ["keys/id.json", "keys/e1.json"])
def test_an_endless_key_object_is_not_read(case: Case, key: str) -> None:
    published = case.publisher.publish("1.0.0")
    os.truncate(case.objects / key, 1 << 40)  # a sparse file: reading it whole would take a terabyte
    with pytest.raises(BlobSizeMismatch, match=f"{key} in .* more than {KEY_OBJECT_LIMIT} bytes"):
        case.publisher.open(published)


def test_cancelling_wipes_and_ends(case: Case) -> None:
    release = case.publisher.open(case.publisher.publish("1.0.0", BIG))
    arena, calls = bytearray(b"\xaa" * release.layout.total), iter(range(100))
    with pytest.raises(CancelledError):
        pull(release, memoryview(arena), cancelled=lambda: next(calls) > 6)
    assert set(arena) <= {0, 0xAA}


def test_the_wrong_version_is_refused_before_a_key_is_opened(case: Case) -> None:
    published = case.publisher.publish("1.0.0")
    with pytest.raises(WrongVersion):
        case.publisher.open(published, expect=case.publisher.expect("1.0.1"), key_ref="absent")


def test_without_the_key_a_pod_is_told_which_one_is_missing(case: Case) -> None:
    published = case.publisher.publish("1.0.0")
    with pytest.raises(KeyUnavailable, match="absent"):
        case.publisher.open(published, key_ref="absent")


def test_a_model_key_that_was_replaced_in_the_store_is_refused(case: Case, tmp_path: Path) -> None:
    published = case.publisher.publish("1.0.0")
    other = Publisher(tmp_path / "other")
    (other.keys_directory / KEY_REF).write_bytes((case.publisher.keys_directory / KEY_REF).read_bytes())
    other.publish("1.0.0")
    (case.objects / "keys" / "e1.json").write_bytes((tmp_path / "other" / "store" / "keys" / "e1.json").read_bytes())
    with pytest.raises(KeyMismatch):
        case.publisher.open(published)


def test_only_pull_makes_pulled_parameters(case: Case) -> None:
    pulled, _ = case.publisher.pull(case.publisher.publish("1.0.0"))
    with pytest.raises(TypeError, match="only pull"):
        PulledParams(pulled.manifest, pulled.layout, pulled.index, 0, 0, "")


def test_another_model_key_wrapped_for_the_same_model_and_epoch_is_refused(case: Case) -> None:
    published = case.publisher.publish("1.0.0")
    stored = case.objects / "keys" / "e1.json"
    context = KeyContext.of_model_key(json.loads(stored.read_bytes())["modelUid"], "e1")
    stored.write_bytes(write_key_object(Secret32.random(), context, case.publisher.keys, [KEY_REF]))
    with pytest.raises(KeyMismatch, match="e1"):
        case.publisher.open(published)
