from __future__ import annotations

import itertools
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.vectors import vectors
from modelparams import floe
from modelparams.errors import FormatUnsupported, SealBroken
from modelparams.floe import (
    FLOE_1M,
    FLOE_4M,
    HEADER_SIZE,
    FloeParams,
    Opener,
    Sealer,
    open_into,
    params_of,
    plain_size,
    seal,
    sealed_size,
    segments,
    wipe,
)
from modelparams.secret import Secret32

KEY, CONTEXT = Secret32(bytes(range(32))), b"This is AAD"
SMALL = FloeParams(64)  # 32 bytes of plaintext a segment
SIZES = st.integers(0, 200) | st.sampled_from([n * 32 + d for n in range(1, 6) for d in (-1, 0, 1)])


def sealed(plain: bytes, params: FloeParams = SMALL) -> bytes:
    return b"".join(seal(memoryview(plain), KEY, CONTEXT, params))


def opened(blob: bytes, size: int, params: FloeParams = SMALL) -> bytes:
    into = bytearray(size)
    open_into(memoryview(blob), KEY, CONTEXT, memoryview(into), params)
    return bytes(into)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("cpp_GCM256_IV256_64", 20),
        ("cpp_GCM256_IV256_4K", 20),
        ("cpp_rotation", 2),
        ("java_GCM256_IV256_64", 20),
        ("java_GCM256_IV256_4K", 20),
        ("java_lastSegAligned", 20),
    ],
)
def test_the_public_known_answers_open(name, mask):
    blob = bytes.fromhex(vectors(f"floe/{name}_ct.txt").read_text())
    plain = bytes.fromhex(vectors(f"floe/{name}_pt.txt").read_text())
    params = FloeParams(int.from_bytes(blob[2:6], "big"), mask)
    into = bytearray(len(plain))
    open_into(memoryview(blob), Secret32(bytes(32)), CONTEXT, memoryview(into), params)
    assert into == plain
    assert sealed_size(len(plain), params) == len(blob)


@pytest.mark.parametrize("name", ["cpp_GCM256_IV256_64", "java_lastSegAligned"])
def test_sealing_with_a_known_answers_ivs_gives_its_very_bytes(name):
    blob = bytes.fromhex(vectors(f"floe/{name}_ct.txt").read_text())
    plain = bytes.fromhex(vectors(f"floe/{name}_pt.txt").read_text())
    params = FloeParams(int.from_bytes(blob[2:6], "big"))
    parts = list(segments(len(plain), params))
    ivs = iter([blob[10:42], *(blob[part.sealed_offset + 4 : part.sealed_offset + 16] for part in parts)])
    sealer = Sealer(Secret32(bytes(32)), CONTEXT, params, random=lambda size: next(ivs))
    again = sealer.header + b"".join(
        sealer.seal_segment(plain[p.plain_offset : p.plain_offset + p.plain_size], p.position, p.is_final)
        for p in parts
    )
    assert again == blob


@given(st.data(), SIZES)
def test_any_size_around_segment_borders_comes_back(data, size):
    plain = data.draw(st.binary(min_size=size, max_size=size))
    blob = sealed(plain)
    assert len(blob) == sealed_size(size, SMALL)
    assert plain_size(len(blob), SMALL) == size
    assert opened(blob, size) == plain


@given(SIZES, st.randoms(use_true_random=False))
def test_random_access_gives_what_streaming_gives(size, random):
    plain = random.randbytes(size)
    blob, parts, into = memoryview(sealed(plain)), list(segments(size, SMALL)), bytearray(size)
    random.shuffle(parts)
    opener = Opener(KEY, CONTEXT, blob[:HEADER_SIZE], SMALL)
    for part in parts:
        start, end = part.sealed_offset, part.sealed_offset + part.sealed_size
        target = memoryview(into)[part.plain_offset : part.plain_offset + part.plain_size]
        opener.open_segment_into(blob[start:end], part.position, part.is_final, target)
    assert into == plain


@given(SIZES)
def test_segments_cover_blob_and_plaintext_without_gaps_and_one_is_final(size):
    parts = list(segments(size, SMALL))
    assert parts[0].sealed_offset == HEADER_SIZE
    assert parts[0].plain_offset == 0
    for this, following in itertools.pairwise(parts):
        assert this.sealed_offset + this.sealed_size == following.sealed_offset
        assert this.plain_offset + this.plain_size == following.plain_offset
    assert parts[-1].sealed_offset + parts[-1].sealed_size == sealed_size(size, SMALL)
    assert parts[-1].plain_offset + parts[-1].plain_size == size
    assert [part.is_final for part in parts] == [False] * (len(parts) - 1) + [True]


@given(st.integers(-10, 2000))
def test_only_sizes_that_sealing_gives_have_a_plain_size(size):
    possible = {sealed_size(n, SMALL): n for n in range(2000)}
    if size in possible:
        assert plain_size(size, SMALL) == possible[size]
    else:
        with pytest.raises(SealBroken, match="bytes long"):
            plain_size(size, SMALL)


def test_two_seals_of_one_plaintext_share_no_segment():
    one, other = sealed(bytes(64)), sealed(bytes(64))
    assert one[:10] == other[:10]
    assert not {one[i : i + 16] for i in range(10, len(one) - 16)} & {
        other[i : i + 16] for i in range(10, len(other) - 16)
    }


@pytest.mark.parametrize(
    ("size", "is_final"),
    [
        pytest.param(31, False, id="short-inner"),
        pytest.param(33, False, id="long-inner"),
        pytest.param(33, True, id="long-last"),
    ],
)
def test_a_segment_of_a_wrong_size_is_not_sealed(size, is_final):
    with pytest.raises(ValueError, match=f"has {size} bytes; 32 are"):
        Sealer(KEY, CONTEXT, SMALL).seal_segment(bytes(size), 0, is_final)


@pytest.mark.parametrize("position", [-1, 1 << 40])
def test_a_position_outside_the_specification_is_refused(position):
    with pytest.raises(ValueError, match="position"):
        Sealer(KEY, CONTEXT, SMALL).seal_segment(b"", position, True)


def test_a_new_key_is_derived_once_every_rotation_and_no_oftener(monkeypatch):
    made: list[bytes] = []
    real = floe.AESGCM
    monkeypatch.setattr(floe, "AESGCM", lambda key: made.append(key) or real(key))
    params = FloeParams(64, rotation_mask=2)
    blob = b"".join(seal(memoryview(bytes(32 * 10)), KEY, CONTEXT, params))
    assert len(made) == len(set(made)) == 3  # positions 0-3, 4-7, 8-9
    assert opened(blob, 320, params) == bytes(320)
    assert len(made) == 6


def test_many_threads_open_segments_of_one_blob_at_once():
    plain = os.urandom(6 * FLOE_1M.plain_segment_size + 17)
    blob, into = memoryview(sealed(plain, FLOE_1M)), memoryview(bytearray(len(plain)))
    opener = Opener(KEY, CONTEXT, blob[:HEADER_SIZE])

    def run(part: floe.Segment) -> None:
        piece = blob[part.sealed_offset : part.sealed_offset + part.sealed_size]
        target = into[part.plain_offset : part.plain_offset + part.plain_size]
        opener.open_segment_into(piece, part.position, part.is_final, target)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, list(segments(len(plain))) * 4))
    assert into == plain


def test_opening_makes_no_temporary_copy():
    plain = os.urandom(2 * FLOE_1M.plain_segment_size)
    blob, into = memoryview(sealed(plain, FLOE_1M)), memoryview(bytearray(len(plain)))
    tracemalloc.start()
    open_into(blob, KEY, CONTEXT, into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert into == plain
    assert peak < 64 << 10


@settings(deadline=None)
@given(st.sampled_from([FLOE_1M, FLOE_4M]), st.integers(-1, 1))
def test_the_two_real_segment_sizes_work_at_their_borders(params, delta):
    plain = bytes(params.plain_segment_size + delta)
    assert opened(sealed(plain, params), len(plain), params) == plain


def test_the_formats_are_an_allow_list():
    assert params_of("floe/gcm256-iv256/1MiB") is FLOE_1M
    assert params_of("floe/gcm256-iv256/4MiB") is FLOE_4M
    with pytest.raises(FormatUnsupported, match="16MiB"):
        params_of("floe/gcm256-iv256/16MiB")


@given(st.integers(0, 70))
def test_wipe_zeroes_a_view_and_nothing_beside_it(size):
    buffer = bytearray(b"\xff" * (size + 2))
    wipe(memoryview(buffer)[1 : 1 + size])
    assert buffer == b"\xff" + bytes(size) + b"\xff"


def test_wipe_zeroes_more_than_one_of_its_pieces():
    buffer = bytearray(b"\xff" * ((1 << 20) + 5))
    wipe(memoryview(buffer))
    assert not any(buffer)
