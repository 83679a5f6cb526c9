from __future__ import annotations

import base64
import json
from datetime import timedelta, timezone

import pytest
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from builders.sealed import MODEL, NOW, UID, VERSION, Built, built, envelope_of, statement_of, verified
from modelparams.digest import Digest
from modelparams.errors import (
    Expired,
    FormatUnsupported,
    ManifestDigestMismatch,
    ManifestInvalid,
    SequenceTooLow,
    UsageError,
    WrongModel,
    WrongVersion,
)
from modelparams.floe import sealed_size
from modelparams.manifest import (
    BLOB_PLAIN_LIMIT,
    BLOBS_LIMIT,
    MANIFEST_LIMIT,
    Epoch,
    Expectation,
    Manifest,
    ModelId,
    VerifiedManifest,
    sign,
    verify_manifest,
)
from modelparams.names import ModelName, Version
from modelparams.trust import SigningKey


@pytest.fixture(scope="module")
def release() -> Built:
    return built(signers=[SigningKey.generate(), SigningKey.generate()], threshold=2, not_after=NOW + timedelta(days=1))


def test_what_is_signed_is_what_is_verified(release):
    found = verified(release, version=VERSION, min_sequence=7)
    assert found.manifest == release.manifest
    assert found.digest == Digest.of(release.envelope)
    assert found.signers == tuple(sorted(signer.key_id for signer in release.signers))


def test_the_same_manifest_and_keys_always_give_the_same_bytes(release):
    assert release.envelope == sign(release.manifest, release.signers)


def test_only_verification_makes_a_verified_manifest(release):
    with pytest.raises(TypeError, match="only verify_manifest"):
        VerifiedManifest(release.manifest, Digest.of(release.envelope), ("me",))


def test_the_statement_is_one_for_generic_in_toto_tools(release):
    payload = base64.b64decode(json.loads(release.envelope)["payload"])
    statement = json_format.Parse(payload, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    assert {subject.digest["sha256"] for subject in statement.subject} == {b.sha256 for b in release.manifest.blobs}
    assert all(subject.name == f"blobs/sha256/{subject.digest['sha256']}" for subject in statement.subject)


def test_no_tensor_name_is_in_the_manifest(release):
    payload = base64.b64decode(json.loads(release.envelope)["payload"]).decode()
    for tensor in release.index.tensors:
        assert tensor.name not in payload
        assert tensor.name.rpartition(".")[0] not in payload


def test_other_bytes_than_the_pinned_ones_are_refused_before_anything_else(release):
    with pytest.raises(ManifestDigestMismatch, match="pinned"):
        verify_manifest(
            b"not even JSON",
            pinned=Digest.of(release.envelope),
            trust=release.trust,
            expect=Expectation(MODEL, now=NOW),
        )


@pytest.mark.parametrize(
    ("expect", "error"),
    [
        pytest.param({"model": ModelName("other")}, WrongModel, id="another-model"),
        pytest.param({"version": Version("1.0.1")}, WrongVersion, id="an-older-version"),
        pytest.param({"version": Version("0.9.9")}, WrongVersion, id="a-newer-version"),
        pytest.param({"min_sequence": 8}, SequenceTooLow, id="below-the-floor"),
        pytest.param({"now": NOW + timedelta(days=1, seconds=1)}, Expired, id="expired"),
    ],
)
def test_a_good_manifest_that_is_not_what_was_asked_for_is_refused_by_its_model_s_name(release, expect, error):
    with pytest.raises(error, match=str(MODEL)):
        verified(release, **expect)


@pytest.mark.parametrize(
    "expect",
    [
        pytest.param({"version": None}, id="any-version"),
        pytest.param({"min_sequence": 7}, id="exactly-the-floor"),
        pytest.param({"now": NOW + timedelta(days=1)}, id="the-last-second"),
    ],
)
def test_what_is_just_allowed_passes(release, expect):
    assert verified(release, **expect).manifest.sequence == 7


def test_as_many_blobs_as_a_manifest_may_list_have_room_in_a_statement():
    """Else a publish would send them all, and fail when it signs."""
    release = built()
    first, *last = release.manifest.blobs[-3:]
    largest = first.model_copy(update={"pt_size": BLOB_PLAIN_LIMIT, "size": sealed_size(BLOB_PLAIN_LIMIT)})
    many = (*[largest] * (BLOBS_LIMIT - 2), *last)
    full = release.with_manifest(blobs=many, index=BLOBS_LIMIT - 2, assets=BLOBS_LIMIT - 1)
    assert len(sign(full.manifest, full.signers)) < MANIFEST_LIMIT


def test_a_blob_may_be_listed_twice_if_all_is_equal():
    release = built()
    first, *rest = release.manifest.blobs
    twice = release.with_manifest(blobs=(first, first, *rest), index=len(rest), assets=len(rest) + 1)
    assert len(verified(twice).manifest.tensor_blobs) == len(release.manifest.tensor_blobs) + 1


@pytest.mark.parametrize("other", [{"content_id": "ab" * 32}, {"wrapped_key": "ab" * 40}])
def test_one_blob_has_one_content_and_one_key(other):
    release = built()
    first, *rest = release.manifest.blobs
    blobs = (first, first.model_copy(update=other), *rest)
    with pytest.raises(ManifestInvalid, match="listed before with other facts"):
        _ = release.with_manifest(blobs=blobs, index=len(rest), assets=len(rest) + 1).envelope


CONTRADICTIONS = [
    pytest.param(lambda r: r.with_manifest(index=0), "last two blobs", id="index-elsewhere"),
    pytest.param(lambda r: r.with_manifest(assets=r.manifest.index), "last two blobs", id="index-is-assets"),
    pytest.param(lambda r: r.with_manifest(assets=99), "last two blobs", id="assets-beyond-the-end"),
    pytest.param(lambda r: r.with_blob(-2, pt_size=0, size=sealed_size(0)), "its index is empty", id="no-index"),
    pytest.param(lambda r: r.with_manifest(floor=8), "floor", id="floor-above-the-sequence"),
    pytest.param(lambda r: r.with_manifest(epochs=r.manifest.epochs * 2), "twice", id="epoch-twice"),
    pytest.param(lambda r: r.with_blob(0, epoch="e2"), "not listed", id="blob-of-an-unknown-epoch"),
    pytest.param(lambda r: r.with_blob(0, size=1), "cannot be", id="size-of-no-blob"),
    pytest.param(lambda r: r.with_blob(0, pt_size=0), "cannot be", id="sizes-that-do-not-fit"),
    pytest.param(lambda r: r.with_blob(0, sha256=r.manifest.blobs[1].sha256), "before", id="two-facts-of-one-blob"),
]


@pytest.mark.parametrize(("change", "why"), CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself_is_neither_signed_nor_accepted(change, why):
    bad = change(built())
    with pytest.raises(ManifestInvalid, match=why):
        _ = bad.envelope
    with pytest.raises(ManifestInvalid, match=why):
        verified(bad, envelope_of(statement_of(bad.manifest), *bad.signers))


def test_an_epoch_named_id_would_hide_the_content_id_key():
    release = built()
    epochs = (Epoch(id="id", commit=release.manifest.epochs[0].commit),)
    blobs = tuple(blob.model_copy(update={"epoch": "id"}) for blob in release.manifest.blobs)
    with pytest.raises(ManifestInvalid, match="named id"):
        _ = release.with_manifest(epochs=epochs, blobs=blobs).envelope


def test_an_unknown_format_is_told_apart_from_a_broken_manifest():
    with pytest.raises(FormatUnsupported, match="floe/gcm256-iv256/2MiB"):
        _ = built().with_blob(0, format="floe/gcm256-iv256/2MiB").envelope


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("sequence", 0, id="sequence-zero"),
        pytest.param("sequence", 2**53, id="sequence-beyond-exact-integers"),
        pytest.param("floor", -1, id="negative-floor"),
        pytest.param("epochs", (), id="no-epoch"),
        pytest.param("epochs", tuple(Epoch(id=f"e{n}", commit="0" * 64) for n in range(17)), id="seventeen-epochs"),
        pytest.param("blobs", (), id="no-blob"),
        pytest.param("created_at", NOW.replace(tzinfo=None), id="a-time-without-zone"),
    ],
)
def test_a_value_out_of_range_makes_no_manifest(field, value):
    values = {name: getattr(built().manifest, name) for name in Manifest.model_fields}
    with pytest.raises(ValueError, match=field):
        Manifest(**(values | {field: value}))


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-02t03:04:05z",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T05:04:05+02:00",
        "2026-01-02T03:04:05.5Z",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05Z\n",
        "2026-13-02T03:04:05Z",
        "٢٠٢٦-01-02T03:04:05Z",
        "1767322800",
        1767322800,
    ],
)
@pytest.mark.parametrize("field", ["createdAt", "notAfter"])
def test_a_time_has_one_spelling(field, time):
    release = built(not_after=NOW + timedelta(days=1))
    statement = json.loads(statement_of(release.manifest))
    statement["predicate"][field] = time
    with pytest.raises(ManifestInvalid, match=field):
        verified(release, envelope_of(json.dumps(statement).encode(), *release.signers))


def test_a_time_is_written_in_that_spelling_whatever_its_zone():
    there = timezone(timedelta(hours=2))
    manifest = built(created_at=NOW.astimezone(there), not_after=NOW + timedelta(microseconds=7)).manifest
    written = json.loads(manifest.to_json())
    assert written["createdAt"] == written["notAfter"] == f"{NOW:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("pt_size", BLOB_PLAIN_LIMIT + 1, id="more-than-1-GiB"),
        pytest.param("sha256", "A" * 64, id="upper-case"),
        pytest.param("sha256", "a" * 64 + "\n", id="newline"),
        pytest.param("wrapped_key", "00" * 39, id="short-wrap"),
        pytest.param("epoch", "../e1", id="epoch-as-a-path"),
        pytest.param("epoch", "", id="no-epoch-name"),
    ],
)
def test_a_value_out_of_range_makes_no_blob(field, value):
    entry = built().manifest.blobs[0]
    with pytest.raises(ValueError, match=rf"BlobEntry\s+{field}"):
        type(entry)(**(entry.model_dump() | {field: value}))


def test_the_largest_blob_is_allowed():
    release = built().with_blob(0, pt_size=BLOB_PLAIN_LIMIT, size=sealed_size(BLOB_PLAIN_LIMIT))
    assert verified(release).manifest.blobs[0].pt_size == 1 << 30


@pytest.mark.parametrize("uid", ["", "x", UID.upper(), UID + "0", UID.replace("-", "")])
def test_a_model_uid_is_a_lower_case_uuid(uid):
    with pytest.raises(ValueError, match="uid"):
        ModelId(uid=uid, name=MODEL)


def test_what_is_too_long_for_every_reader_is_not_signed(monkeypatch):
    release = built()
    size = len(base64.b64decode(json.loads(release.envelope)["payload"]))
    monkeypatch.setattr("modelparams.manifest.PAYLOAD_LIMIT", size)
    assert verified(release)
    monkeypatch.setattr("modelparams.manifest.PAYLOAD_LIMIT", size - 1)
    with pytest.raises(ManifestInvalid, match=f"a statement of {size} bytes is more than the {size - 1} allowed"):
        sign(release.manifest, release.signers)


def test_nobody_or_one_key_twice_signs_nothing():
    release, key = built(), SigningKey.generate()
    for signers in ([], [key, key]):
        with pytest.raises(UsageError, match="different keys"):
            sign(release.manifest, signers)


def test_sizes_and_places_are_told(release):
    manifest = release.manifest
    assert manifest.size_bytes == sum(len(blob) for blob in release.sealed)
    assert [blob.digest for blob in manifest.blobs] == [Digest.of(blob) for blob in release.sealed]
    assert manifest.blobs[0].object_key == f"blobs/sha256/{manifest.blobs[0].sha256}"
    assert len(manifest.tensor_blobs) == len(manifest.blobs) - 2
