"""Sealed blobs as an attacker would leave them. The taxonomy is that of Wycheproof's C2SP chunked-encryption file,
carried over to FLOE, whose own public vectors are all positive."""

from __future__ import annotations

import pytest

from builders.vectors import wycheproof
from modelparams.errors import SealBroken
from modelparams.floe import HEADER_SIZE, FloeParams, Opener, Sealer, open_into, seal, sealed_size, segments
from modelparams.secret import Secret32

PARAMS = FloeParams(64)  # 32 bytes of plaintext a segment
KEY, OTHER_KEY, CONTEXT = Secret32(b"k" * 32), Secret32(b"o" * 32), b"context"
PLAIN = bytes(range(100))  # three full segments and 4 bytes
BLOB = b"".join(seal(memoryview(PLAIN), KEY, CONTEXT, PARAMS))
HEADER, SEGMENTS = BLOB[:HEADER_SIZE], [BLOB[start : start + 64] for start in range(HEADER_SIZE, len(BLOB), 64)]


def refused(
    blob: bytes, *, key: Secret32 = KEY, context: bytes = CONTEXT, params: FloeParams = PARAMS, size: int = 100
) -> str:
    """Open `blob` as one of `size` bytes, its signed size; it must not, and must leave nothing behind."""
    into = bytearray(b"\xaa" * size)
    with pytest.raises(SealBroken) as caught:
        open_into(memoryview(blob), key, context, memoryview(into), params)
    assert set(into) <= {0xAA} or not any(into), "unauthenticated plaintext was left in the buffer"
    return str(caught.value)


def test_the_untouched_blob_opens():
    into = bytearray(100)
    open_into(memoryview(BLOB), KEY, CONTEXT, memoryview(into), PARAMS)
    assert into == PLAIN


@pytest.mark.parametrize("position", range(len(BLOB)))
def test_a_flipped_bit_at_any_byte_is_refused(position):
    blob = bytearray(BLOB)
    blob[position] ^= 1 << position % 8
    refused(bytes(blob))


@pytest.mark.parametrize("size", range(len(BLOB)))
def test_truncation_at_any_byte_is_refused(size):
    refused(BLOB[:size])


def test_truncation_at_a_segment_border_is_refused_even_if_the_size_is_adjusted():
    message = refused(HEADER + b"".join(SEGMENTS[:3]), size=96)
    assert "segment 2 has a wrong length" in message


def test_a_cut_blob_with_a_forged_final_length_is_refused():
    forged = (64).to_bytes(4, "big") + SEGMENTS[2][4:]
    assert "segment 2 does not authenticate" in refused(HEADER + b"".join(SEGMENTS[:2]) + forged, size=96)


def test_a_final_segment_marked_as_inner_is_refused():
    full = b"".join(seal(memoryview(PLAIN[:96]), KEY, CONTEXT, PARAMS))
    last = b"\xff\xff\xff\xff" + full[-60:]
    opener, into = Opener(KEY, CONTEXT, full[:HEADER_SIZE], PARAMS), bytearray(32)
    with pytest.raises(SealBroken, match="does not authenticate"):
        opener.open_segment_into(memoryview(last), 2, False, memoryview(into))


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (0, 2)])
def test_swapped_segments_are_refused(one, other):
    parts = list(SEGMENTS)
    parts[one], parts[other] = parts[other], parts[one]
    assert "does not authenticate" in refused(HEADER + b"".join(parts))


def test_the_last_segment_moved_to_the_front_is_refused():
    refused(HEADER + SEGMENTS[3] + b"".join(SEGMENTS[:3]))


@pytest.mark.parametrize("dropped", range(4))
def test_a_dropped_segment_is_refused_at_both_sizes(dropped):
    blob = HEADER + b"".join(part for number, part in enumerate(SEGMENTS) if number != dropped)
    refused(blob)
    refused(blob, size=68 if dropped < 3 else 96)


@pytest.mark.parametrize("twice", range(3))
def test_a_duplicated_segment_is_refused_at_both_sizes(twice):
    blob = HEADER + b"".join([*SEGMENTS[: twice + 1], *SEGMENTS[twice:]])
    refused(blob)
    refused(blob, size=132)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\0", id="one-byte"),
        pytest.param(SEGMENTS[3], id="the-last-segment-again"),
        pytest.param(SEGMENTS[0], id="a-full-segment"),
        pytest.param(BLOB, id="the-blob-again"),
    ],
)
def test_trailing_data_is_refused(tail):
    refused(BLOB + tail)


@pytest.mark.parametrize(("copied", "onto"), [(0, 1), (1, 0), (2, 1)])
def test_a_segment_copied_onto_another_is_refused(copied, onto):
    parts = list(SEGMENTS)
    parts[onto] = parts[copied]
    assert f"segment {onto} does not authenticate" in refused(HEADER + b"".join(parts))


def test_an_appended_segment_is_refused_even_if_the_size_is_adjusted():
    refused(HEADER + b"".join(SEGMENTS[:3]) + SEGMENTS[0] + SEGMENTS[3], size=132)


def test_an_empty_final_segment_after_a_full_one_is_not_the_signed_blob():
    sealer = Sealer(KEY, CONTEXT, PARAMS)
    blob = sealer.header + sealer.seal_segment(bytes(32), 0, False) + sealer.seal_segment(b"", 1, True)
    refused(blob, size=32)


def test_a_segment_of_another_blob_under_the_same_key_is_refused():
    other = b"".join(seal(memoryview(PLAIN), KEY, CONTEXT, PARAMS))
    mixed = BLOB[: HEADER_SIZE + 64] + other[HEADER_SIZE + 64 : HEADER_SIZE + 128] + BLOB[HEADER_SIZE + 128 :]
    assert "segment 1 does not authenticate" in refused(mixed)


def test_the_header_of_another_blob_is_refused():
    other = b"".join(seal(memoryview(PLAIN), KEY, CONTEXT, PARAMS))
    assert "segment 0 does not authenticate" in refused(other[:HEADER_SIZE] + BLOB[HEADER_SIZE:])


def test_a_wrong_key_fails_at_the_header():
    assert "header was made with another key" in refused(BLOB, key=OTHER_KEY)


@pytest.mark.parametrize("context", [b"", b"contex", b"context\0", b"Context"])
def test_a_wrong_context_fails_at_the_header(context):
    assert "header was made with another key or for another place" in refused(BLOB, context=context)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(0, b"\x01", id="another-aead"),
        pytest.param(1, b"\x01", id="another-kdf"),
        pytest.param(2, (128).to_bytes(4, "big"), id="another-segment-size"),
        pytest.param(6, (16).to_bytes(4, "big"), id="another-iv-size"),
    ],
)
def test_a_header_cannot_choose_its_parameters(offset, value):
    blob = BLOB[:offset] + value + BLOB[offset + len(value) :]
    assert "none of the signed format" in refused(blob)


def test_a_blob_of_other_parameters_is_refused_although_it_is_whole():
    other = b"".join(seal(memoryview(PLAIN), KEY, CONTEXT, FloeParams(128)))
    refused(other)
    assert "none of the signed format" in refused(other + bytes(sealed_size(100, PARAMS) - len(other)))


@pytest.mark.parametrize("size", [0, 1, 73, 75])
def test_a_header_of_another_length_is_refused(size):
    with pytest.raises(SealBroken, match="header"):
        Opener(KEY, CONTEXT, (HEADER + b"\0")[:size], PARAMS)


def test_plain_bytes_in_a_blobs_place_are_refused():
    plain = (b"\x08\0\0\0\0\0\0\0{}      " * 40)[: len(BLOB)]
    assert "none of the signed format" in refused(plain)


@pytest.mark.parametrize("size", [0, 3, 4, 31, 65])
@pytest.mark.parametrize("is_final", [False, True])
def test_a_segment_of_an_impossible_length_is_refused(size, is_final):
    opener = Opener(KEY, CONTEXT, HEADER, PARAMS)
    with pytest.raises(SealBroken, match="wrong length"):
        opener.open_segment_into(memoryview(bytes(size)), 0, is_final, memoryview(bytearray(max(0, size - 32))))


def test_after_a_broken_segment_the_buffer_is_zero():
    into = bytearray(b"\xaa" * 32)
    broken = bytearray(SEGMENTS[0])
    broken[-1] ^= 1
    with pytest.raises(SealBroken):
        Opener(KEY, CONTEXT, HEADER, PARAMS).open_segment_into(memoryview(broken), 0, False, memoryview(into))
    assert into == bytes(32)


def test_after_a_broken_last_segment_the_whole_blob_is_zero():
    into, blob = bytearray(b"\xaa" * 100), bytearray(BLOB)
    blob[-1] ^= 1
    with pytest.raises(SealBroken):
        open_into(memoryview(blob), KEY, CONTEXT, memoryview(into), PARAMS)
    assert into == bytes(100)


def test_segments_are_told_by_the_signed_size_alone():
    assert [part.is_final for part in segments(100, PARAMS)] == [False, False, False, True]


@pytest.mark.parametrize("segment_count", [255, 256, 257])
def test_positions_do_not_roll_over_at_a_byte(segment_count):
    plain = bytes(32 * segment_count)
    blob = b"".join(seal(memoryview(plain), KEY, CONTEXT, PARAMS))
    into = bytearray(b"\xaa" * len(plain))
    open_into(memoryview(blob), KEY, CONTEXT, memoryview(into), PARAMS)
    assert into == plain
    swapped = blob[:-64] + blob[HEADER_SIZE : HEADER_SIZE + 64]
    refused(swapped, size=len(plain))


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_size_is_refused_before_anything_is_derived(size):
    with pytest.raises(ValueError, match="a key has 32 bytes"):
        Secret32(bytes(size))


CARRIED_OVER = {
    "ModifiedCiphertext": test_a_flipped_bit_at_any_byte_is_refused,
    "PartialPlaintext": test_after_a_broken_last_segment_the_whole_blob_is_zero,
    "ValidFinalChunk": test_a_flipped_bit_at_any_byte_is_refused,
    "Truncation": test_truncation_at_any_byte_is_refused,
    "TrailingData": test_trailing_data_is_refused,
    "ChunkReordering": test_swapped_segments_are_refused,
    "CounterRollover": test_positions_do_not_roll_over_at_a_byte,
    "HeaderFailure": test_a_header_cannot_choose_its_parameters,
    "InvalidKeySize": test_a_key_of_another_size_is_refused_before_anything_is_derived,
    "WrongKey": test_a_wrong_key_fails_at_the_header,
    "WrongContext": test_a_wrong_context_fails_at_the_header,
}


def test_every_kind_of_attack_of_the_chunked_encryption_file_is_carried_over():
    """If Wycheproof learns a new kind, this fails and names it."""
    cases = wycheproof("c2sp_chunked_encryption_aes_256_gcm_test")
    assert {flag for _, case in cases for flag in case["flags"]} <= CARRIED_OVER.keys()
