"""The key-commitment attack: one AES-GCM ciphertext that opens under two keys ("invisible salamanders",
Dodis, Grubbs, Ristenpart and Woodage, CRYPTO 2018; in a cloud client CVE-2025-14760). Whoever can replace a wrapped
key then chooses what a victim sees, and every tag verifies. FLOE's header tag and the signed commitment refuse it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from builders.sealed import UID
from modelparams.errors import KeyMismatch, SealBroken
from modelparams.floe import (
    HEADER_SIZE,
    FloeParams,
    Opener,
    Sealer,
    _Keys,  # the attacker knows all derivations
)
from modelparams.keys import check_commitment, commit, unwrap_dek, wrap_dek
from modelparams.secret import Secret32

ONE, OTHER = Secret32(b"1" * 32), Secret32(b"2" * 32)
PARAMS, CONTEXT = FloeParams(32 + 64), b"context"


def _times(a: int, b: int) -> int:
    """GF(2^128) as GCM has it: bit 0 is the most significant (SP 800-38D §6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if b >> bit & 1:
            product ^= a
        a = a >> 1 ^ (0xE1 << 120 if a & 1 else 0)
    return product


def _power(a: int, exponent: int) -> int:
    result = 1 << 127
    for bit in f"{exponent:b}":
        result = _times(result, result)
        if bit == "1":
            result = _times(result, a)
    return result


def _block(key: bytes, block: bytes) -> int:
    return int.from_bytes(Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(block), "big")


def _tag(key: bytes, nonce: bytes, aad: bytes, blocks: Sequence[int]) -> int:
    """GHASH and the mask, by hand; `aad` is at most one block."""
    hash_key, total = _block(key, bytes(16)), 0
    lengths = (8 * len(aad)) << 64 | 128 * len(blocks)
    for block in [int.from_bytes(aad.ljust(16, b"\0"), "big"), *blocks, lengths]:
        total = _times(total ^ block, hash_key)
    return total ^ _block(key, nonce + b"\0\0\0\1")


def salamander(keys: Sequence[bytes], nonce: bytes, aad: bytes, blocks: Sequence[int]) -> bytes:
    """Ciphertext and tag that open under both `keys`: solve one free block, the last, for equal tags."""
    differ = _tag(keys[0], nonce, aad, [*blocks, 0]) ^ _tag(keys[1], nonce, aad, [*blocks, 0])
    squares = [_power(_block(key, bytes(16)), 2) for key in keys]
    free = _times(differ, _power(squares[0] ^ squares[1], 2**128 - 2))
    tag = _tag(keys[0], nonce, aad, [*blocks, free])
    return b"".join(block.to_bytes(16, "big") for block in [*blocks, free, tag])


def test_aes_gcm_itself_opens_one_ciphertext_under_two_keys():
    keys, nonce, aad = (ONE.expose(), OTHER.expose()), b"n" * 12, b"aad"
    both = salamander(keys, nonce, aad, [7, 8, 9])
    plain = [AESGCM(key).decrypt(nonce, both, aad) for key in keys]
    assert plain[0] != plain[1]


@pytest.fixture(scope="module")
def file() -> bytes:
    """A blob of one segment whose AES-GCM part opens under the segment keys of two FLOE keys."""
    header = Sealer(ONE, CONTEXT, PARAMS).header
    segment_keys = [_segment_key(key, header) for key in (ONE, OTHER)]
    nonce, aad = b"n" * 12, bytes(8) + b"\1"
    return header + (96).to_bytes(4, "big") + nonce + salamander(segment_keys, nonce, aad, [1, 2, 3])


def _segment_key(key: Secret32, header: bytes) -> bytes:
    keys = _Keys(key, header[10:42], CONTEXT, PARAMS)
    return keys._derive(keys._message_key, b"DEK:" + bytes(8), 32)


def test_the_file_is_a_real_salamander_its_segment_opens_under_both_keys(file):
    segment = file[HEADER_SIZE:]
    plain = [
        AESGCM(_segment_key(key, file[:HEADER_SIZE])).decrypt(segment[4:16], segment[16:], bytes(8) + b"\1")
        for key in (ONE, OTHER)
    ]
    assert plain[0] != plain[1]


def test_the_header_tag_refuses_the_second_key(file):
    into = bytearray(64)
    Opener(ONE, CONTEXT, file[:HEADER_SIZE], PARAMS).open_segment_into(
        memoryview(file)[HEADER_SIZE:], 0, True, memoryview(into)
    )
    assert any(into)
    with pytest.raises(SealBroken, match="header was made with another key"):
        Opener(OTHER, CONTEXT, file[:HEADER_SIZE], PARAMS)


def test_the_second_keys_own_header_tag_refuses_the_first_key(file):
    tag = _Keys(OTHER, file[10:42], CONTEXT, PARAMS).header_tag
    header = file[:42] + tag
    Opener(OTHER, CONTEXT, header, PARAMS)
    with pytest.raises(SealBroken, match="header was made with another key"):
        Opener(ONE, CONTEXT, header, PARAMS)


def test_a_replaced_model_key_is_caught_by_the_signed_commitment():
    """The attacker wraps a model key of their own, and data keys under it; all of it opens."""
    theirs = Secret32.random()
    assert unwrap_dek(theirs, wrap_dek(theirs, OTHER)) == OTHER
    with pytest.raises(KeyMismatch, match="commits to"):
        check_commitment(theirs, UID, "e1", commit(ONE, UID, "e1"))
