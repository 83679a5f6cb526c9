"""Project Wycheproof's cases for the primitives that the format stands on, through the calls that we make."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature, SSlibKey

from builders.vectors import wycheproof


def test_aes_256_gcm_opens_the_valid_and_refuses_the_others():
    ran = 0
    for group, case in wycheproof("aes_gcm_test"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        key, iv, aad = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad"))
        into = bytearray(len(case["msg"]) // 2)
        try:
            AESGCM(key).decrypt_into(iv, bytes.fromhex(case["ct"] + case["tag"]), aad, into)
            assert case["result"] == "valid", case["tcId"]
            assert into.hex() == case["msg"], case["tcId"]
        except InvalidTag:
            assert case["result"] == "invalid", case["tcId"]
        ran += 1
    assert ran > 50


def test_aes_256_key_wrap_opens_the_valid_and_refuses_the_others():
    ran = 0
    for group, case in wycheproof("aes_wrap_test"):
        if group["keySize"] != 256:
            continue
        key, wrapped = bytes.fromhex(case["key"]), bytes.fromhex(case["ct"])
        try:
            opened = aes_key_unwrap(key, wrapped)
            assert case["result"] == "valid", case["tcId"]
            assert opened.hex() == case["msg"], case["tcId"]
            assert aes_key_wrap(key, opened) == wrapped, case["tcId"]
        except InvalidUnwrap:
            assert case["result"] in ("invalid", "acceptable"), case["tcId"]  # acceptable: 8 bytes, not RFC 3394's 16
        ran += 1
    assert ran > 60


def test_hkdf_sha384_agrees():
    ran = 0
    for _, case in wycheproof("hkdf_sha384_test"):
        if case["result"] != "valid":
            continue
        ikm, salt, info = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info"))
        assert HKDF(SHA384(), case["size"], salt, info).derive(ikm).hex() == case["okm"], case["tcId"]
        ran += 1
    assert ran > 70


def test_ed25519_accepts_the_valid_and_refuses_the_others():
    ran = 0
    for group, case in wycheproof("ed25519_test"):
        key = SSlibKey("k", "ed25519", "ed25519", {"public": group["publicKey"]["pk"]})
        try:
            key.verify_signature(Signature("k", case["sig"]), bytes.fromhex(case["msg"]))
            assert case["result"] == "valid", case["tcId"]
        except UnverifiedSignatureError:
            assert case["result"] == "invalid", case["tcId"]
        ran += 1
    assert ran > 100


@pytest.mark.parametrize("name", ["aes_gcm_test", "aes_wrap_test", "hkdf_sha384_test", "ed25519_test"])
def test_a_file_of_vectors_holds_refusals_too(name):
    assert {case["result"] for _, case in wycheproof(name)} >= {"valid", "invalid"}
