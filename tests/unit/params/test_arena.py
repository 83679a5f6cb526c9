from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.sealed import ASSETS, TENSORS, Tensors, bf16, built, plaintexts
from modelparams.arena import ArenaLayout, ReadableArena
from modelparams.errors import IndexInvalid
from modelparams.floe import open_into
from modelparams.index import tensors_digest
from modelparams.keys import blob_context, unwrap_dek
from modelparams.protocol import Region
from modelparams.tensors import TensorSpec


def filled(tensors: Tensors = TENSORS) -> tuple[bytearray, Region]:
    """An arena as an agent leaves it, and the region of its index."""
    parts = plaintexts(tensors).parts
    arena, at, region = bytearray(b"\xee" * 8192), 0, Region(offset=0, size=0)
    for number, (_, plain) in enumerate(parts):
        arena.extend(bytes(max(0, at + len(plain) + 8192 - len(arena))))
        arena[at : at + len(plain)] = plain
        if number == len(parts) - 2:
            region = Region(offset=at, size=len(plain))
        at += -(-len(plain) // 4096) * 4096
    return arena, region


def test_the_layout_puts_each_blob_at_a_page_in_order_and_index_and_assets_last():
    manifest = built().manifest
    layout = ArenaLayout.of(manifest)
    end = 0
    for position, (blob, region) in enumerate(zip(manifest.blobs, layout.regions, strict=True)):
        assert region.offset == end == layout.blob_offset(position)
        assert region.size == blob.pt_size
        end = -(-(end + blob.pt_size) // 4096) * 4096
    assert layout.total == end
    assert (layout.index, layout.assets) == layout.regions[-2:]


def test_a_sealed_version_opened_into_an_arena_is_read_back_by_name():
    release = built()
    layout = ArenaLayout.of(release.manifest)
    arena = memoryview(bytearray(layout.total))
    for blob, sealed, region in zip(release.manifest.blobs, release.sealed, layout.regions, strict=True):
        key = unwrap_dek(release.keys.epochs[blob.epoch], bytes.fromhex(blob.wrapped_key))
        into = arena[region.offset : region.offset + region.size]
        open_into(memoryview(sealed), key, blob_context(release.keys.uid, bytes.fromhex(blob.content_id)), into)
    readable = ReadableArena(arena, layout.index)
    layout.check_index(readable.index)
    assert {name: (readable.specs[name], bytes(readable.tensor(name))) for name in readable.specs} == TENSORS
    assert dict(readable.assets()) == ASSETS


def test_views_are_in_place_and_as_writable_as_the_buffer():
    arena, region = filled()
    view = ReadableArena(memoryview(arena), region).tensor("model.norm.weight")
    view[:4] = b"\x01\x02\x03\x04"
    assert b"\x01\x02\x03\x04" in arena
    assert ReadableArena(memoryview(bytes(arena)), region).tensor("model.norm.weight").readonly


def test_the_tensors_digest_of_the_memory_is_the_one_in_the_index():
    arena, region = filled()
    readable = ReadableArena(memoryview(arena), region)

    def digest() -> str:
        named = ((name, spec, readable.tensor(name)) for name, spec in readable.specs.items())
        return tensors_digest(bytes.fromhex(readable.index.salt), named)

    assert digest() == readable.index.tensors_digest
    readable.tensor("model.norm.weight")[0] ^= 1
    assert digest() != readable.index.tensors_digest


def test_an_unknown_name_is_a_key_error():
    arena, region = filled()
    readable = ReadableArena(memoryview(arena), region)
    for read in (readable.tensor, readable.offset, readable.asset):
        with pytest.raises(KeyError):
            read("nothing")


@given(st.lists(st.integers(0, 9000), max_size=6), st.randoms(use_true_random=False))
def test_tensors_of_any_sizes_come_back(sizes, random):
    tensors = {
        f"model.layers.{n // 2}.w{n}": (TensorSpec("U8", (size,)), random.randbytes(size))
        for n, size in enumerate(sizes)
    }
    arena, region = filled(tensors)
    readable = ReadableArena(memoryview(arena), region)
    assert {name: bytes(readable.tensor(name)) for name in readable.specs} == {
        n: data for n, (_, data) in tensors.items()
    }
    assert all(readable.offset(name) % 64 == 0 for name in tensors)


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda r, n: Region(offset=r.offset + 4096, size=r.size), id="another-page"),
        pytest.param(lambda r, n: Region(offset=r.offset, size=r.size - 1), id="cut"),
        pytest.param(lambda r, n: Region(offset=n, size=r.size), id="behind-the-end"),
        pytest.param(lambda r, n: Region(offset=0, size=n + 1), id="more-than-the-arena"),
        pytest.param(lambda r, n: Region(offset=0, size=65 << 20), id="oversize"),
    ],
)
def test_a_wrong_index_region_is_refused(move):
    arena, region = filled()
    with pytest.raises(IndexInvalid):
        ReadableArena(memoryview(arena), move(region, len(arena)))


def test_an_index_that_was_moved_within_the_arena_is_refused():
    arena, region = filled()
    moved = bytearray(arena) + bytes(4096) + arena[region.offset : region.offset + region.size] + bytes(8192)
    with pytest.raises(IndexInvalid, match="another layout"):
        ReadableArena(memoryview(moved), Region(offset=len(arena) + 4096, size=region.size))


def test_an_arena_that_ends_before_its_assets_is_refused():
    arena, region = filled()
    with pytest.raises(IndexInvalid, match="another layout"):
        ReadableArena(memoryview(arena)[: region.offset + region.size], region)


def test_an_arena_ends_no_earlier_than_the_last_byte_of_its_assets():
    arena, region = filled()
    end = -(-(region.offset + region.size) // 4096) * 4096 + sum(map(len, ASSETS.values()))
    assert dict(ReadableArena(memoryview(arena)[:end], region).assets()) == ASSETS
    with pytest.raises(IndexInvalid, match="another layout"):
        ReadableArena(memoryview(arena)[: end - 1], region)


@pytest.mark.parametrize("position", [0, -1])
def test_an_index_for_blobs_of_other_sizes_than_the_signed_ones_is_refused(position):
    release = built()
    layout = ArenaLayout.of(release.manifest)
    regions = list(layout.regions)
    regions[position] = Region(offset=regions[position].offset, size=regions[position].size + 1)
    with pytest.raises(IndexInvalid, match="signed manifest"):
        ArenaLayout(tuple(regions), layout.total).check_index(release.index)


def test_garbage_in_the_indexs_place_is_refused():
    with pytest.raises(IndexInvalid):
        ReadableArena(memoryview(os.urandom(4096)), Region(offset=0, size=4096))


def test_an_arena_may_be_larger_than_its_version():
    arena, region = filled({"w": bf16(4)})
    assert ReadableArena(memoryview(arena + bytes(1 << 20)), region).tensor("w").nbytes == 8
