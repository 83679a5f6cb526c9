"""Manifests as a bucket writer, a lone signer or a hostile publisher would make them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.sealed import MODEL, NOW, Built, built, envelope_of, verified
from modelparams.digest import Digest
from modelparams.errors import (
    IntegrityError,
    ManifestDigestMismatch,
    ManifestInvalid,
    SignatureInvalid,
    SignerUnknown,
    TooFewSignatures,
)
from modelparams.manifest import MANIFEST_LIMIT, PAYLOAD_LIMIT, Expectation, verify_manifest
from modelparams.strictjson import dumps
from modelparams.trust import SigningKey

ONE, TWO, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
RELEASE = built(signers=[ONE, TWO], threshold=2)
LONE = built(signers=[ONE])
STATEMENT: dict[str, Any] = json.loads(base64.b64decode(json.loads(LONE.envelope)["payload"]))


def pinned_to_the_good_one(data: bytes) -> None:
    verify_manifest(data, pinned=Digest.of(RELEASE.envelope), trust=RELEASE.trust, expect=Expectation(MODEL, now=NOW))


def edited(release: Built, **changes: Any) -> bytes:
    return dumps(json.loads(release.envelope) | changes)


def signed(document: Any) -> bytes:
    """By the trusted key: only the schema stands between it and a pod."""
    return envelope_of(document if isinstance(document, bytes) else dumps(document), ONE)


@given(st.integers(0, len(RELEASE.envelope) - 1), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(position, bit):
    data = bytearray(RELEASE.envelope)
    data[position] ^= 1 << bit
    with pytest.raises(ManifestDigestMismatch):
        pinned_to_the_good_one(bytes(data))


@given(st.integers(0, len(RELEASE.envelope) - 1))
def test_a_cut_manifest_is_refused(size):
    with pytest.raises(ManifestDigestMismatch):
        pinned_to_the_good_one(RELEASE.envelope[:size])


@given(st.integers(0, len(RELEASE.envelope) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused_even_if_the_pin_was_made_for_it(position, bit):
    """The pin is the operator's word; the pod's own trust policy still stands."""
    data = bytearray(RELEASE.envelope)
    data[position] ^= 1 << bit
    with pytest.raises(IntegrityError):
        verified(RELEASE, bytes(data))


def test_one_signature_of_two_is_refused():
    with pytest.raises(TooFewSignatures, match="1 of the 2"):
        verified(RELEASE, envelope_of(dumps(STATEMENT), ONE))


def test_a_stranger_beside_one_signature_is_refused():
    with pytest.raises(TooFewSignatures):
        verified(RELEASE, envelope_of(dumps(STATEMENT), ONE, STRANGER))


def test_one_key_twice_is_refused():
    with pytest.raises(ManifestInvalid, match="two signatures by one key"):
        verified(RELEASE, envelope_of(dumps(STATEMENT), ONE, ONE))


def test_one_key_under_two_names_is_refused():
    envelope = json.loads(envelope_of(dumps(STATEMENT), ONE, ONE))
    envelope["signatures"][1]["keyid"] = TWO.key_id
    with pytest.raises(SignatureInvalid):
        verified(RELEASE, dumps(envelope))


def test_strangers_alone_are_refused():
    with pytest.raises(SignerUnknown):
        verified(RELEASE, envelope_of(dumps(STATEMENT), STRANGER))


def test_no_signature_is_refused():
    with pytest.raises(SignerUnknown):
        verified(RELEASE, edited(RELEASE, signatures=[]))


def test_signatures_of_another_payload_are_refused():
    other = base64.b64encode(dumps(STATEMENT | {"subject": []})).decode()
    with pytest.raises(SignatureInvalid):
        verified(RELEASE, edited(RELEASE, payload=other))


@pytest.mark.parametrize("payload_type", ["", "application/json", "application/vnd.in-toto+json ", "text/html"])
def test_a_wrong_payload_type_is_refused_though_it_is_signed(payload_type):
    with pytest.raises(ManifestInvalid, match="envelope holds"):
        verified(LONE, envelope_of(dumps(STATEMENT), ONE, payload_type=payload_type))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"extra": 1}, id="unknown-field"),
        pytest.param({"payload": "!!!"}, id="no-base64"),
        pytest.param({"payload": 7}, id="payload-a-number"),
        pytest.param({"payload": None}, id="payload-null"),
        pytest.param({"signatures": {}}, id="signatures-no-list"),
        pytest.param({"signatures": [{"keyid": ONE.key_id, "sig": "!"}]}, id="signature-no-base64"),
        pytest.param({"signatures": [{"keyid": "x", "sig": ""}]}, id="keyid-no-hash"),
        pytest.param({"signatures": [{"keyid": ONE.key_id, "sig": "", "cert": ""}]}, id="signature-with-more"),
        pytest.param({"signatures": [{"keyid": f"{n:064x}", "sig": ""} for n in range(65)]}, id="too-many"),
    ],
)
def test_a_malformed_envelope_is_refused(changes):
    with pytest.raises(ManifestInvalid, match="envelope"):
        verified(LONE, edited(LONE, **changes))


def test_a_signature_in_another_spelling_is_refused():
    """64 bytes leave four bits of base64 unused; set, they give another manifest digest for the same signature."""
    signature = json.loads(LONE.envelope)["signatures"][0]
    assert signature["sig"].endswith(("A==", "Q==", "g==", "w=="))
    respelled = signature | {"sig": signature["sig"][:-3] + chr(ord(signature["sig"][-3]) + 1) + "=="}
    with pytest.raises(ManifestInvalid, match="another spelling"):
        verified(LONE, edited(LONE, signatures=[respelled]))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"[" * 50_000, b"\xff\xfe{}", b'"payload"'])
def test_what_is_no_envelope_is_refused(data):
    with pytest.raises(ManifestInvalid):
        verified(LONE, data)


BOMBS = [
    {"signatures": [1] * 400_000},
    {"signatures": [{"keyid": "", "sig": "", **{str(n): 0 for n in range(100_000)}}]},
    {str(n): 0 for n in range(100_000)},
    {"payloadType": [[]] * 400_000},
]


@pytest.mark.parametrize("changes", BOMBS, ids=["signatures", "fields-of-one", "fields", "lists"])
def test_an_envelope_of_a_million_values_is_refused_before_any_is_made(changes, monkeypatch):
    data = edited(LONE, **changes)
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(ManifestInvalid, match="holds more values than any has"):
        verify_manifest(data, pinned=Digest.of(data), trust=LONE.trust, expect=Expectation(MODEL, now=NOW))


def test_an_envelope_of_as_many_signatures_as_may_be_is_read():
    signers = [SigningKey.generate() for _ in range(64)]
    assert len(verified(built(signers=signers, threshold=64)).signers) == 64


def test_a_duplicate_key_in_the_envelope_is_refused():
    text = LONE.envelope.decode()
    with pytest.raises(ManifestInvalid, match="twice"):
        verified(LONE, text.replace('{"payload":', '{"payload":"","payload":', 1).encode())


def test_a_duplicate_key_in_the_signed_statement_is_refused():
    text = dumps(STATEMENT).decode()
    with pytest.raises(ManifestInvalid, match="twice"):
        verified(LONE, signed(text.replace('"sequence":7', '"sequence":7,"sequence":9', 1).encode()))


def predicate(**changes: Any) -> dict[str, Any]:
    return STATEMENT | {"predicate": STATEMENT["predicate"] | changes}


def without(field: str) -> dict[str, Any]:
    return STATEMENT | {"predicate": {k: v for k, v in STATEMENT["predicate"].items() if k != field}}


def first_blob(**changes: Any) -> dict[str, Any]:
    first, *rest = STATEMENT["predicate"]["blobs"]
    return predicate(blobs=[first | changes, *rest])


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(STATEMENT | {"extra": 1}, id="unknown-field-at-the-top"),
        pytest.param(predicate(provenance={}), id="unknown-field-in-the-predicate"),
        pytest.param(first_blob(url="file:///etc/passwd"), id="unknown-field-in-a-blob"),
        pytest.param(STATEMENT | {"_type": "https://in-toto.io/Statement/v0.1"}, id="another-statement-type"),
        pytest.param(STATEMENT | {"predicateType": "https://slsa.dev/provenance/v1"}, id="another-predicate-type"),
        pytest.param(STATEMENT | {"subject": []}, id="no-subject"),
        pytest.param(STATEMENT | {"subject": STATEMENT["subject"][::-1]}, id="subjects-in-another-order"),
        pytest.param(STATEMENT | {"subject": STATEMENT["subject"] * 2}, id="subjects-twice"),
        pytest.param(without("sequence"), id="no-sequence"),
        pytest.param(without("schemaDigest"), id="no-schema"),
        pytest.param(predicate(sequence="7"), id="sequence-as-text"),
        pytest.param(predicate(sequence=7.0), id="sequence-as-a-float"),
        pytest.param(predicate(sequence=2**53), id="sequence-beyond-exact-integers"),
        pytest.param(predicate(sequence=-1), id="negative-sequence"),
        pytest.param(predicate(version="1.0"), id="no-semantic-version"),
        pytest.param(predicate(version="1.0.0+build"), id="build-metadata"),
        pytest.param(predicate(version=1), id="version-a-number"),
        pytest.param(predicate(model={"uid": "x", "name": "tiny"}), id="no-uid"),
        pytest.param(predicate(model=STATEMENT["predicate"]["model"] | {"name": "Tiny"}), id="no-model-name"),
        pytest.param(predicate(createdAt="yesterday"), id="no-time"),
        pytest.param(predicate(createdAt=0), id="time-a-number"),
        pytest.param(predicate(schemaDigest="md5:00"), id="another-hash"),
        pytest.param(predicate(epochs=[]), id="no-epoch"),
        pytest.param(predicate(blobs=[]), id="no-blob"),
        pytest.param(predicate(index=0), id="index-elsewhere"),
        pytest.param(first_blob(size=1 << 62), id="a-size-beyond-reason"),
        pytest.param(first_blob(size=-1), id="a-negative-size"),
        pytest.param(first_blob(sha256="../../etc/passwd"), id="a-path-for-a-hash"),
        pytest.param(first_blob(sha256=STATEMENT["predicate"]["blobs"][0]["sha256"].upper()), id="upper-case-hash"),
        pytest.param(first_blob(wrappedKey=""), id="no-key"),
        pytest.param(first_blob(pt_size=1), id="a-name-of-python"),
        pytest.param([], id="a-list"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no-utf8"),
        pytest.param(b"[" * 50_000, id="nested-too-deep"),
    ],
)
def test_a_signed_statement_outside_the_schema_is_refused(document):
    with pytest.raises(ManifestInvalid):
        verified(LONE, signed(document))


def test_the_statement_that_the_others_are_made_from_is_good():
    assert verified(LONE, signed(STATEMENT)).manifest == LONE.manifest


def test_an_oversize_statement_is_refused_though_it_is_signed():
    with pytest.raises(ManifestInvalid, match="more than the"):
        verified(LONE, signed(dumps(STATEMENT) + b" " * PAYLOAD_LIMIT))


def test_an_oversize_manifest_is_refused_before_it_is_hashed():
    data = b" " * (MANIFEST_LIMIT + 1)
    with pytest.raises(ManifestInvalid, match="more than the"):
        pinned_to_the_good_one(data)


def test_ten_thousand_and_one_blobs_are_refused():
    blobs = [STATEMENT["predicate"]["blobs"][0]] * 10_001
    with pytest.raises(ManifestInvalid, match="blobs: "):
        verified(LONE, signed(predicate(blobs=blobs)))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), st.lists, max_leaves=5), st.data())
def test_any_value_in_any_field_is_refused_or_is_the_same(value, data):
    field = data.draw(st.sampled_from(sorted(STATEMENT["predicate"])))
    if value == STATEMENT["predicate"][field] or (value is None and field in ("previous", "notAfter")):
        return
    try:
        found = verified(LONE, signed(predicate(**{field: value}))).manifest
    except IntegrityError:
        return
    assert (field, found.sequence >= 7) in [("sequence", True), ("floor", True)]
