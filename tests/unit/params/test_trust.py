from __future__ import annotations

import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from modelparams.errors import SignatureInvalid, SignerUnknown, TooFewSignatures, UsageError
from modelparams.trust import TRUST_LIMIT, SigningKey, TrustPolicy, key_id


def signed(*signers: SigningKey) -> Envelope:
    envelope = Envelope(b"payload", "type", {})
    for signer in signers:
        envelope.sign(signer)
    return envelope


A, B, C = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


@pytest.mark.parametrize(
    ("signers", "threshold"),
    [
        pytest.param((A,), 1, id="one-of-one"),
        pytest.param((A, B), 2, id="two-of-two"),
        pytest.param((A, B, C), 2, id="an-unknown-third-does-no-harm"),
    ],
)
def test_enough_trusted_signatures_pass_and_are_named(signers, threshold):
    accepted = TrustPolicy.of(A, B, threshold=threshold).check(signed(*signers))
    assert accepted == tuple(sorted(s.key_id for s in signers if s is not C))


@pytest.mark.parametrize(
    ("signers", "error"),
    [
        pytest.param((), SignerUnknown, id="none"),
        pytest.param((C,), SignerUnknown, id="unknown-alone"),
        pytest.param((A,), TooFewSignatures, id="one-of-two"),
        pytest.param((A, C), TooFewSignatures, id="an-unknown-one-does-not-count"),
        pytest.param((A, A), TooFewSignatures, id="one-key-twice-counts-once"),
    ],
)
def test_too_little_is_refused(signers, error):
    with pytest.raises(error):
        TrustPolicy.of(A, B, threshold=2).check(signed(*signers))


def test_a_bad_signature_of_a_trusted_key_is_refused_though_others_would_suffice():
    envelope = signed(A, B)
    envelope.signatures[A.key_id].signature = "00" * 64
    with pytest.raises(SignatureInvalid, match=A.key_id[:12]):
        TrustPolicy.of(A, B, threshold=1).check(envelope)


def test_a_signature_under_another_keys_name_is_refused():
    envelope = signed(A)
    envelope.signatures[B.key_id] = envelope.signatures.pop(A.key_id)
    with pytest.raises(SignatureInvalid):
        TrustPolicy.of(A, B).check(envelope)


@pytest.mark.parametrize("failure", [MemoryError(), TimeoutError("of a handler")], ids=repr)
def test_what_befalls_this_process_while_it_verifies_is_no_forged_signature(monkeypatch, failure):
    def fails(*_):
        raise failure

    monkeypatch.setattr(SSlibKey, "_verify", fails)
    with pytest.raises(type(failure)):
        TrustPolicy.of(A).check(signed(A))


@pytest.mark.parametrize("signature", ["00", "no hex", ""])
def test_what_is_no_signature_at_all_is_one_that_does_not_verify(signature):
    envelope = signed(A)
    envelope.signatures[A.key_id].signature = signature
    with pytest.raises(SignatureInvalid):
        TrustPolicy.of(A).check(envelope)


def test_a_key_is_named_by_its_hash():
    assert A.key_id == key_id(A.public) != B.key_id


def test_a_signing_key_is_saved_for_its_owner_alone_and_never_over_a_file(tmp_path):
    path = tmp_path / "key.pem"
    A.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).key_id == A.key_id
    with pytest.raises(UsageError, match="exists"):
        B.save(path)
    assert SigningKey.load(path).key_id == A.key_id


def test_a_signing_key_shows_its_name_only():
    secret = A.private_bytes.decode().splitlines()[1]
    assert repr(A) == f"<signing key {A.key_id[:12]}>"
    assert secret not in repr(A)


def _pem_of_another_kind() -> bytes:
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "cannot be read", id="absent"),
        pytest.param(b"hunter2", "no unencrypted PEM key", id="no-pem"),
        pytest.param(_pem_of_another_kind(), "another kind", id="ecdsa"),
    ],
)
def test_what_is_no_signing_key_is_refused_without_its_content(tmp_path, content, why):
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=why) as caught:
        SigningKey.load(path)
    assert "hunter2" not in str(caught.value)


def test_a_policy_comes_back_from_its_file(tmp_path):
    policy = TrustPolicy.of(A, B, threshold=2)
    (tmp_path / "trust.json").write_bytes(policy.to_json())
    assert TrustPolicy.load(tmp_path / "trust.json") == policy


PUBLIC = {A.key_id: A.public.hex()}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"threshold": 0, "keys": PUBLIC}, id="threshold-zero"),
        pytest.param({"threshold": 2, "keys": PUBLIC}, id="threshold-above-the-keys"),
        pytest.param({"threshold": True, "keys": PUBLIC}, id="threshold-true"),
        pytest.param({"threshold": 1, "keys": {}}, id="no-key"),
        pytest.param({"threshold": 1, "keys": {A.key_id: B.public.hex()}}, id="id-of-another-key"),
        pytest.param({"threshold": 1, "keys": {A.key_id[:12] + "0" * 52: A.public.hex()}}, id="id-that-begins-like-it"),
        pytest.param({"threshold": 1, "keys": {A.key_id: A.public.hex()[:62]}}, id="short-key"),
        pytest.param({"threshold": 1, "keys": {A.key_id.upper(): A.public.hex()}}, id="upper-case"),
        pytest.param({"threshold": 1, "keys": PUBLIC, "extra": 1}, id="unknown-field"),
        pytest.param({"keys": PUBLIC}, id="no-threshold"),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused(document):
    with pytest.raises(UsageError):
        TrustPolicy.parse(json.dumps(document).encode())


def test_one_key_listed_twice_in_a_policy_is_refused():
    twice = f'{{"threshold":2,"keys":{{"{A.key_id}":"{A.public.hex()}","{A.key_id}":"{A.public.hex()}"}}}}'
    with pytest.raises(UsageError, match="twice"):
        TrustPolicy.parse(twice.encode())


def test_a_policy_that_is_absent_or_none_is_told_by_its_file(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path / 'none.json'} cannot be read"):
        TrustPolicy.load(tmp_path / "none.json")
    (tmp_path / "junk.json").write_text("{")
    with pytest.raises(UsageError, match=f"{tmp_path / 'junk.json'} cannot be used"):
        TrustPolicy.load(tmp_path / "junk.json")


def test_a_policy_longer_than_any_is_not_parsed():
    data = TrustPolicy.of(A).to_json()
    assert TrustPolicy.parse(data.ljust(TRUST_LIMIT)) == TrustPolicy.of(A)
    with pytest.raises(UsageError, match=f"more than the {TRUST_LIMIT} allowed"):
        TrustPolicy.parse(data.ljust(TRUST_LIMIT + 1))
