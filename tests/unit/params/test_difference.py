"""How much two versions differ, in numbers that were worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from builders.publishing import Publisher, layered
from builders.sealed import bf16
from modelparams.difference import Difference, Directory, Sealed, compare, differences
from modelparams.grouping import plan_blobs
from modelparams.plaintext import read_plain
from modelparams.tensors import ITEM_SIZE, TensorSpec


def of(dtype: str, numpy_dtype: str, before: list[float], after: list[float]) -> Difference:
    spec = TensorSpec(dtype, (len(before),))
    old, new = (memoryview(np.array(values, numpy_dtype).tobytes()) for values in (before, after))
    return compare("w", spec, old, new)


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"),
    [("F32", "<f4"), ("F64", "<f8"), ("F16", "<f2"), ("I32", "<i4"), ("I8", "i1"), ("U16", "<u2")],
)
def test_numbers_are_compared_as_numbers(dtype: str, numpy_dtype: str) -> None:
    found = of(dtype, numpy_dtype, [3, 4, 0], [3, 1, 4])
    assert (found.elements, found.max_abs, found.relative_l2) == (2, 4.0, 1.0)  # norms 5 and 5


def test_unsigned_numbers_do_not_wrap() -> None:
    assert of("U8", "u1", [1], [255]).max_abs == 254.0
    assert of("U8", "u1", [255], [1]).max_abs == 254.0


def test_bf16_is_the_upper_half_of_float32() -> None:
    before, after = memoryview(b"\x80\x3f\x00\x40"), memoryview(b"\x80\x3f\x40\x40")  # 1, 2 and 1, 3
    found = compare("w", TensorSpec("BF16", (2,)), before, after)
    assert (found.elements, found.max_abs) == (1, 1.0)
    assert found.relative_l2 == pytest.approx(1 / math.sqrt(5))


def test_what_numpy_has_no_numbers_for_is_counted_only() -> None:
    found = compare("w", TensorSpec("F8_E4M3", (4,)), memoryview(b"abcd"), memoryview(b"abxy"))
    assert (found.elements, found.max_abs, found.relative_l2) == (2, None, None)


def test_a_change_from_nothing_is_infinitely_large() -> None:
    assert of("F32", "<f4", [0, 0], [0, 1]).relative_l2 == math.inf


def test_a_change_to_what_is_no_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelparams.difference._PIECE", 1)
    found = of("F32", "<f4", [1, 2, 3], [math.nan, 2, 4])
    assert math.isnan(found.max_abs or 0)
    assert math.isnan(found.relative_l2 or 0)


def test_what_is_no_number_on_both_sides_hides_no_change() -> None:
    assert of("F32", "<f4", [math.nan, 2], [math.nan, 5]).max_abs == 3


@pytest.mark.parametrize("dtype", ITEM_SIZE)
def test_equal_tensors_do_not_differ_whatever_their_dtype(dtype: str) -> None:
    spec = TensorSpec(dtype, (3, 5))
    data = memoryview(bytes(range(1, spec.size + 1)))
    assert compare("w", spec, data, data).elements == 0


def test_pieces_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = list(range(1, 100)), list(range(2, 101))
    whole = of("F32", "<f4", before, after)
    monkeypatch.setattr("modelparams.difference._PIECE", 7)
    pieces = of("F32", "<f4", before, after)
    assert (pieces.elements, pieces.max_abs) == (whole.elements, whole.max_abs)
    assert pieces.relative_l2 == pytest.approx(whole.relative_l2)


def test_added_removed_reshaped_and_changed_tensors_are_told_apart(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    before, after = layered(2), layered(3, layer0=0x3E80)
    spec, data = after["model.norm.weight"]
    after["model.norm.weight"] = (TensorSpec(spec.dtype, (8, 8)), data)
    del after["model.layers.1.norm.weight"]
    old, new = read_plain(publisher.directory("1.0.0", before)), read_plain(publisher.directory("1.1.0", after))
    found = {one.name: one.what for one in differences(Directory(old), Directory(new))}
    assert found == {
        "model.layers.0.mlp.weight": "changed",
        "model.layers.1.norm.weight": "removed",
        "model.norm.weight": "reshaped",
        "model.layers.2.mlp.weight": "added",
        "model.layers.2.norm.weight": "added",
    }
    assert list(found)[-2:] == ["model.layers.2.mlp.weight", "model.layers.2.norm.weight"], "what is new comes last"


def test_of_sealed_versions_only_the_blobs_that_differ_are_fetched(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    first = publisher.publish("1.0.0", layered(9))
    second = publisher.publish("1.1.0", layered(9, layer4=0x3E80))
    old, new = Sealed(publisher.open(first)), Sealed(publisher.open(second))
    (found,) = differences(old, new)
    assert (found.name, found.elements) == ("model.layers.4.mlp.weight", 64 * 64)
    sizes = [blob.size for blob in publisher.open(second).manifest.manifest.tensor_blobs]
    assert old.fetched_bytes == new.fetched_bytes == sizes[5]


def test_each_blob_that_differs_is_fetched_once(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    after = layered(layer0=0x3E80, layer1=0x3E81, layer2=0x3E82)
    after |= {
        name: bf16(*after[name][0].shape, fill=0x4000) for name in ("model.embed_tokens.weight", "model.norm.weight")
    }
    first, second = publisher.publish("1.0.0"), publisher.publish("1.1.0", after)
    old, new = Sealed(publisher.open(first)), Sealed(publisher.open(second))
    assert len(list(differences(old, new))) == 5
    tensors = publisher.manifest("1.0.0").tensor_blobs
    assert old.fetched_bytes == new.fetched_bytes == sum(blob.size for blob in tensors)


def test_a_tensor_that_took_another_s_name_is_told_though_their_blob_is_the_same(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    one, two = bf16(8, 8), bf16(8, 8, fill=0x4000)
    first = publisher.publish("1.0.0", {"layers.0.b": one, "layers.0.c": two})
    second = publisher.publish("1.1.0", {"layers.0.a": one, "layers.0.b": two})
    assert second.blobs_reused == 1
    found = differences(Sealed(publisher.open(first)), Sealed(publisher.open(second)))
    assert {each.name: each.what for each in found} == {
        "layers.0.a": "added",
        "layers.0.b": "changed",
        "layers.0.c": "removed",
    }


def test_a_blob_is_wiped_when_another_is_opened(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    side = Sealed(publisher.open(publisher.publish("1.0.0")))
    read = side.read("model.layers.0.mlp.weight")
    assert any(read)
    side.read("model.layers.1.mlp.weight")
    assert not any(read)


def test_a_change_beyond_the_largest_number_is_infinite() -> None:
    assert of("F64", "<f8", [-1.7e308], [1.7e308]).max_abs == math.inf


def test_a_tensor_that_is_larger_than_a_blob_is_compared_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelparams.plaintext.plan_blobs", lambda sizes: plan_blobs(sizes, limit=4096))
    publisher = Publisher(tmp_path)
    data = bytes(10_000)
    first = publisher.publish("1.0.0", {"w": (TensorSpec("U8", (10_000,)), data)})
    second = publisher.publish("1.1.0", {"w": (TensorSpec("U8", (10_000,)), data[:-1] + b"\x07")})
    (found,) = differences(Sealed(publisher.open(first)), Sealed(publisher.open(second)))
    assert (found.elements, found.max_abs) == (1, 7.0)
    assert second.blobs_reused == 1  # its first two blobs are equal, and so one
