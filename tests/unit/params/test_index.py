from __future__ import annotations

import json
import struct

import pytest
from blake3 import blake3

from builders.sealed import TENSORS, bf16, built, plaintexts
from modelparams import index as index_module
from modelparams.errors import IndexInvalid
from modelparams.index import AssetEntry, TensorEntry, TensorIndex, blob_starts, check, schema_digest, tensors_digest
from modelparams.strictjson import dumps
from modelparams.tensors import TensorSpec

INDEX = plaintexts().index


def entry(name: str, blob: int, offset: int, *shape: int, dtype: str = "U8") -> TensorEntry:
    spec = TensorSpec(dtype, shape)
    return TensorEntry(name=name, dtype=dtype, shape=shape, blob=blob, offset=offset, size=spec.size)


def index(*tensors: TensorEntry, sizes: tuple[int, ...], assets: tuple[AssetEntry, ...] = ()) -> TensorIndex:
    return TensorIndex(salt="0" * 64, tensors_digest="0" * 64, blob_sizes=sizes, tensors=tuple(tensors), assets=assets)


def test_an_index_comes_back_from_its_bytes():
    assert TensorIndex.parse(INDEX.to_json()) == INDEX
    assert TensorIndex.parse(memoryview(INDEX.to_json())) == INDEX


def test_objects_of_many_tensors_are_made_some_at_a_time_so_that_other_threads_run(monkeypatch):
    made, validated = [], index_module.validated

    def noting(read, data):
        made.append(data.count(b'"dtype"'))
        return validated(read, data)

    monkeypatch.setattr(index_module, "validated", noting)
    monkeypatch.setattr(index_module, "_AT_ONCE", 3)
    assert len(INDEX.tensors) == 4
    assert TensorIndex.parse(INDEX.to_json()) == INDEX
    assert sorted(made) == [0, 1, 3]
    spoilt = json.loads(INDEX.to_json())
    spoilt["tensors"][3]["offset"] = -1
    with pytest.raises(IndexInvalid, match=r"of the tensors from 3 on, 0\.offset: Input should be"):
        TensorIndex.parse(dumps(spoilt))


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(index(sizes=()), id="nothing-at-all"),
        pytest.param(index(entry("a", 0, 0, 10), entry("b", 0, 64, 5), sizes=(69,)), id="aligned-in-one-blob"),
        pytest.param(index(entry("a", 0, 0, 10), entry("b", 1, 0, 5), sizes=(10, 5)), id="one-in-each-blob"),
        pytest.param(index(entry("a", 0, 0, 8), entry("b", 0, 0, 8), sizes=(8,)), id="tied"),
        pytest.param(index(entry("a", 0, 0, 0), entry("b", 0, 0, 5), sizes=(5,)), id="an-empty-tensor-before-another"),
        pytest.param(
            index(entry("a", 0, 0, 0, 3), entry("b", 0, 0, 3, 0), sizes=(0,)), id="two-empty-ones-of-any-shape"
        ),
        pytest.param(index(entry("a", 0, 0, 5), entry("b", 0, 64, 0), sizes=(64,)), id="an-empty-one-at-the-end"),
        pytest.param(index(entry("s", 0, 0, dtype="F32"), sizes=(4,)), id="a-scalar"),
        pytest.param(index(entry("a", 0, 0, 10_000), sizes=(4096, 4096, 1808)), id="one-over-three-blobs"),
        pytest.param(
            index(entry("a", 0, 0, 5000), entry("b", 1, 960, 10), sizes=(4096, 970)), id="another-behind-its-last-piece"
        ),
    ],
)
def test_a_whole_index_passes(whole):
    check(whole)
    assert TensorIndex.parse(whole.to_json()) == whole


def bad_asset(name: str) -> TensorIndex:
    return index(sizes=(), assets=(AssetEntry.model_construct(name=name, offset=0, size=1),))


def asset(name: str, offset: int, size: int) -> AssetEntry:
    return AssetEntry(name=name, offset=offset, size=size)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        pytest.param(index(entry("b", 0, 0, 1), entry("a", 0, 64, 1), sizes=(65,)), "order", id="not-in-name-order"),
        pytest.param(index(entry("a", 0, 0, 1), entry("a", 0, 64, 1), sizes=(65,)), "twice", id="a-name-twice"),
        pytest.param(index(entry("a", 0, 64, 1), sizes=(65,)), "gap", id="a-gap-at-the-start"),
        pytest.param(index(entry("a", 0, 0, 1), entry("b", 0, 128, 1), sizes=(129,)), "gap", id="a-gap-between"),
        pytest.param(index(entry("a", 0, 0, 65), entry("b", 0, 64, 1), sizes=(65,)), "overlap", id="overlap"),
        pytest.param(
            index(entry("a", 0, 0, 64), entry("b", 0, 0, 32), sizes=(64,)), "overlap", id="one-inside-another"
        ),
        pytest.param(index(entry("a", 0, 0, 1), sizes=(2,)), "no tensor covers", id="uncovered-end"),
        pytest.param(index(entry("a", 0, 0, 1), sizes=(1, 7)), "no tensor covers", id="uncovered-blob-at-the-end"),
        pytest.param(index(entry("a", 1, 0, 7), sizes=(1, 7)), "no tensor covers", id="uncovered-blob-before"),
        pytest.param(index(entry("a", 0, 0, 2), sizes=(1,)), "shorter", id="beyond-the-last-blob"),
        pytest.param(index(entry("a", 0, 0, 200), sizes=(100, 100)), "over a gap", id="runs-on-over-a-gap"),
        pytest.param(index(entry("a", 1, 0, 1), sizes=(1,)), "is none", id="a-blob-that-is-none"),
        pytest.param(index(entry("a", 0, 32, 1), sizes=(33,)), "aligned", id="not-aligned"),
        pytest.param(
            index(entry("a", 0, 0, 4), entry("b", 0, 0, 2, 2), sizes=(4,)), "another kind", id="tied-by-shape"
        ),
        pytest.param(
            index(entry("a", 0, 0, 1, dtype="F32"), entry("b", 0, 0, 1, dtype="I32"), sizes=(4,)),
            "another kind",
            id="tied-by-dtype",
        ),
        pytest.param(index(sizes=(), assets=(asset("a", 1, 1),)), "gap", id="an-asset-gap"),
        pytest.param(index(sizes=(), assets=(asset("a", 0, 2), asset("b", 1, 1))), "gap", id="an-asset-overlap"),
        pytest.param(index(sizes=(), assets=(asset("b", 0, 1), asset("a", 1, 1))), "order", id="assets-out-of-order"),
        pytest.param(index(sizes=(), assets=(asset("a", 0, 1 << 31),)), "too large", id="assets-too-large"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused_without_naming_a_tensor(broken, why):
    with pytest.raises(IndexInvalid, match=why):
        TensorIndex.parse(broken.to_json())


def test_a_size_that_is_not_the_shapes_is_refused():
    lie = entry("a", 0, 0, 4).model_copy(update={"size": 5})
    with pytest.raises(IndexInvalid, match="another size than its shape"):
        check(index(lie, sizes=(5,)))


def test_an_unknown_dtype_is_refused():
    with pytest.raises(IndexInvalid, match="unknown dtype"):
        check(index(entry("a", 0, 0, 4).model_copy(update={"dtype": "F4"}), sizes=(4,)))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        ".hidden",
        "a/.git/config",
        "a\\b",
        "a\0",
        "a\n",
        "c:x",
        "x" * 129,
    ],
)
def test_an_asset_name_never_leaves_its_directory(name):
    with pytest.raises(IndexInvalid, match="assets"):
        TensorIndex.parse(bad_asset(name).to_json())


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json", "tokenizer-2_x.model"])
def test_the_names_that_models_have_are_allowed(name):
    assert TensorIndex.parse(bad_asset(name).to_json()).assets[0].name == name


def test_blobs_start_at_pages_and_an_empty_one_takes_no_room():
    assert blob_starts(()) == (0,)
    assert blob_starts((1, 4096, 4097, 0, 5)) == (0, 4096, 8192, 16384, 16384, 20480)


def test_the_tensors_digest_is_keyed_blake3_over_framed_tensors():
    salt, spec = bytes(range(32)), TensorSpec("U8", (2, 1))

    def framed(*parts: bytes) -> bytes:
        return b"".join(struct.pack(">Q", len(part)) + part for part in parts)

    by_hand = blake3(framed(b"a", b"U8", b"[2,1]", b"xy") + framed(b"b", b"U8", b"[2,1]", b"zz"), key=salt)
    assert tensors_digest(salt, [("a", spec, b"xy"), ("b", spec, memoryview(b"zz"))]) == by_hand.hexdigest()


def test_the_tensors_digest_takes_tensors_in_name_order_only():
    spec = TensorSpec("U8", (1,))
    for names in (["b", "a"], ["a", "a"]):
        with pytest.raises(ValueError, match="name order"):
            tensors_digest(bytes(32), [(name, spec, b"x") for name in names])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"w": (TensorSpec("U8", (2,)), b"xz")}, id="another-byte"),
        pytest.param({"v": (TensorSpec("U8", (2,)), b"xy")}, id="another-name"),
        pytest.param({"w": (TensorSpec("I8", (2,)), b"xy")}, id="another-dtype"),
        pytest.param({"w": (TensorSpec("U8", (1, 2)), b"xy")}, id="another-shape"),
        pytest.param({}, id="none"),
    ],
)
def test_the_tensors_digest_tells_all_differences(other):
    one = [("w", TensorSpec("U8", (2,)), b"xy")]
    assert tensors_digest(bytes(32), one) != tensors_digest(bytes(32), [(n, *rest) for n, rest in other.items()])
    assert tensors_digest(bytes(32), one) != tensors_digest(b"s" * 32, one)


def test_the_schema_digest_is_of_names_dtypes_and_shapes_in_any_order():
    specs = {name: spec for name, (spec, _) in TENSORS.items()}
    assert schema_digest(specs) == schema_digest(dict(reversed(specs.items()))) == built().manifest.schema_digest
    for change in ({"x": bf16(1)[0]}, {"model.norm.weight": TensorSpec("F32", (8, 1))}):
        assert schema_digest(specs | change) != schema_digest(specs)
