"""The keyless check: every object of a version, tampered with in every way, is told by the right reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from builders.publishing import Publisher, layered, safetensors
from modelparams.digest import Digest
from modelparams.errors import BlobDigestMismatch, BlobSizeMismatch, ManifestDigestMismatch, ObjectMissing
from modelparams.manifest import MANIFEST_LIMIT, BlobEntry, Manifest
from modelparams.publish import Published
from modelparams.tensors import TensorSpec
from modelparams.verify import CheckedRelease, fetch_manifest, manifest_key, verify_release


class Case:
    """A published version whose objects are files that a test may change."""

    def __init__(self, home: Path) -> None:
        self.publisher = Publisher(home)
        self.published: Published = self.publisher.publish("1.0.0", layered(size=128))
        self.objects = home / "store"

    @property
    def manifest(self) -> Manifest:
        found = fetch_manifest(
            self.publisher.store,
            self.published.manifest_digest,
            trust=self.publisher.trust,
            expect=self.publisher.expect(),
        )
        return found.manifest

    def path(self, blob: BlobEntry) -> Path:
        return self.objects / blob.object_key

    def verify(self, **options: object) -> CheckedRelease:
        return verify_release(
            self.publisher.store,
            self.published.manifest_digest,
            trust=self.publisher.trust,
            expect=self.publisher.expect("1.0.0"),
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_sound_version_is_verified_without_any_key(case: Case) -> None:
    for path in case.publisher.keys_directory.iterdir():
        path.unlink()
    checked = case.verify()
    assert checked.size_bytes == case.published.bytes_total
    assert checked.blobs == case.published.blobs_new
    assert checked.manifest.digest == case.published.manifest_digest


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


TAMPERING: dict[str, tuple[Callable[[Path, Path], object], type[Exception]]] = {
    "missing": (lambda path, other: path.unlink(), ObjectMissing),
    "cut by a byte": (lambda path, other: path.write_bytes(path.read_bytes()[:-1]), BlobSizeMismatch),
    "cut to nothing": (lambda path, other: path.write_bytes(b""), BlobSizeMismatch),
    "longer by a byte": (lambda path, other: path.write_bytes(path.read_bytes() + b"x"), BlobSizeMismatch),
    "first bit flipped": (lambda path, other: _flip(path, 0), BlobDigestMismatch),
    "last bit flipped": (lambda path, other: _flip(path, -1), BlobDigestMismatch),
    "swapped with another": (lambda path, other: path.write_bytes(other.read_bytes()), BlobDigestMismatch),
    "replaced by plain safetensors": (lambda path, other: path.write_bytes(safetensors(layered())), BlobSizeMismatch),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_blob_that_is_not_as_signed_is_refused(case: Case, how: str) -> None:
    tamper, kind = TAMPERING[how]
    _, one, other, *_ = case.manifest.tensor_blobs
    assert one.size == other.size
    tamper(case.path(one), case.path(other))
    with pytest.raises(kind, match=one.sha256):
        case.verify()


def test_a_digest_that_no_manifest_has_is_to_be_compared_with_what_was_printed(case: Case) -> None:
    with pytest.raises(ObjectMissing, match="Compare manifestDigest with what 'modelparams publish' printed"):
        fetch_manifest(
            case.publisher.store,
            Digest("sha256:" + "0" * 64),
            trust=case.publisher.trust,
            expect=case.publisher.expect(),
        )


@pytest.mark.parametrize("position", range(6))
def test_every_blob_is_read(case: Case, position: int) -> None:
    blob = case.manifest.blobs[position]
    _flip(case.path(blob), blob.size // 2)
    with pytest.raises(BlobDigestMismatch, match=blob.sha256):
        case.verify(workers=1)


def test_plain_safetensors_padded_to_the_size_are_refused_too(case: Case) -> None:
    blob = case.manifest.blobs[1]
    plain = safetensors(layered(size=128))[: blob.size]
    assert len(plain) == blob.size
    case.path(blob).write_bytes(plain)
    with pytest.raises(BlobDigestMismatch):
        case.verify()


def test_a_changed_manifest_is_not_the_pinned_one(case: Case) -> None:
    path = case.objects / manifest_key(case.published.manifest_digest)
    _flip(path, 10)
    with pytest.raises(ManifestDigestMismatch):
        case.verify()


def test_an_endless_manifest_is_not_read(case: Case) -> None:
    with (case.objects / manifest_key(case.published.manifest_digest)).open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file: reading it whole would take a terabyte
    with pytest.raises(ManifestDigestMismatch, match=f"more than {MANIFEST_LIMIT} bytes"):
        case.verify()


def test_what_is_in_a_manifest_s_place_has_its_own_next_step(case: Case) -> None:
    path = case.objects / manifest_key(case.published.manifest_digest)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ObjectMissing, match=r"is no regular file\. Take it away"):
        case.verify()


def test_cancelling_ends_it(case: Case) -> None:
    with pytest.raises(CancelledError):
        case.verify(cancelled=lambda: True)


class Counting:
    total = done = 0

    def start(self, task: str, total: int) -> None:
        self.total += total

    def advance(self, task: str, n: int) -> None:
        self.done += n


def test_cancelling_does_not_wait_for_the_end_of_a_blob(case: Case, tmp_path: Path) -> None:
    size = 3 << 20
    published = case.publisher.publish("1.1.0", {"weight": (TensorSpec("U8", (size,)), bytes(size))})
    counting = Counting()
    with pytest.raises(CancelledError):
        verify_release(
            case.publisher.store,
            published.manifest_digest,
            trust=case.publisher.trust,
            expect=case.publisher.expect(),
            workers=1,
            progress=counting,
            cancelled=lambda: counting.done > 0,
        )
    assert 0 < counting.done < size


def test_progress_adds_up_to_every_byte(case: Case) -> None:
    counting = Counting()
    case.verify(workers=1, progress=counting)
    assert counting.total == counting.done == case.published.bytes_total
