from __future__ import annotations

import json
import math

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelparams.errors import UsageError
from modelparams.parameter_files import map_file
from modelparams.tensors import ITEM_SIZE, TensorSpec, is_finite, parse_header, read_directory, read_file

DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
            lambda n: n != "__metadata__"
        ),
        hnp.arrays(
            st.sampled_from(list(DTYPES.values())), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
        ),
        max_size=4,
    )
)
def test_what_the_library_writes_is_found_byte_for_byte(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("st") / "x.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    found = read_file(map_file(path))
    assert found.keys() == arrays.keys()
    data = path.read_bytes()
    for name, tensor in found.items():
        assert DTYPES[tensor.spec.dtype] == arrays[name].dtype
        assert tensor.spec.shape == arrays[name].shape
        assert data[tensor.offset : tensor.offset + tensor.spec.size] == arrays[name].tobytes()
        assert tensor.view == arrays[name].tobytes()


def shards(directory, **files):
    weight_map = {}
    for file, names in files.items():
        arrays = {name: np.arange(3, dtype=np.float32) for name in names}
        (directory / f"{file}.safetensors").write_bytes(safetensors.numpy.save(arrays))
        weight_map |= dict.fromkeys(names, f"{file}.safetensors")
    return weight_map


def write_index(directory, weight_map):
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_a_single_file_and_shards_read_alike_in_name_order(tmp_path):
    write_index(tmp_path, shards(tmp_path, one=["b", "d"], two=["a", "c"]))
    single = tmp_path / "single"
    single.mkdir()
    shards(single, model=["d", "c", "b", "a"])
    assert list(read_directory(tmp_path)) == list(read_directory(single)) == ["a", "b", "c", "d"]
    assert {tensor.file.path.name for tensor in read_directory(tmp_path).values()} == {
        "one.safetensors",
        "two.safetensors",
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda m: m | {"z": "one.safetensors"}, "other tensors", id="one-too-many"),
        pytest.param(lambda m: {"a": m["a"]}, "other tensors", id="one-too-few"),
        pytest.param(lambda m: m | {"c": "a.safetensors"}, "cannot be read", id="an-absent-shard"),
        pytest.param(
            lambda m: m | {"a": "../x.safetensors"}, r"no visible \*\.safetensors file beside it", id="a-path"
        ),
        pytest.param(lambda m: m | {"a": 1}, r"no visible \*\.safetensors file beside it", id="a-number"),
        pytest.param(lambda m: [], "no weight_map", id="a-list"),
    ],
)
def test_an_index_of_shards_that_lies_is_refused(tmp_path, change, why):
    write_index(tmp_path, change(shards(tmp_path, one=["a", "b"])))
    with pytest.raises(UsageError, match=why):
        read_directory(tmp_path)


def test_parameters_that_nothing_reads_are_named_and_not_left_out(tmp_path):
    shards(tmp_path, model=["a"], adapter_model=["b"])
    with pytest.raises(
        UsageError, match=r"adapter_model\.safetensors would be left out: only model\.safetensors is read"
    ):
        read_directory(tmp_path)


def test_of_a_whole_file_beside_shards_neither_is_chosen(tmp_path):
    write_index(tmp_path, shards(tmp_path, one=["a"]))
    shards(tmp_path, model=["a"])
    with pytest.raises(
        UsageError, match=r"model\.safetensors would be left out.*Delete it, or model\.safetensors\.index"
    ):
        read_directory(tmp_path)


def test_the_only_shard_may_have_the_whole_file_s_name(tmp_path):
    write_index(tmp_path, shards(tmp_path, model=["a"]))
    assert list(read_directory(tmp_path)) == ["a"]


@pytest.mark.parametrize("name", [".weights", "weights", "weights.bin", ".x.safetensors", "x.SAFETENSORS"])
def test_a_shard_whose_bytes_no_hash_covers_is_refused(tmp_path, name):
    shards(tmp_path, one=["a"])
    (tmp_path / "one.safetensors").rename(tmp_path / name)
    write_index(tmp_path, {"a": name})
    with pytest.raises(UsageError, match=r"a shard is no visible \*\.safetensors file beside it"):
        read_directory(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": {}, "weight_map": {}}', "{}"])
def test_what_is_no_index_of_shards_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UsageError, match=r"model\.safetensors\.index\.json"):
        read_directory(tmp_path)


def test_a_directory_without_safetensors_says_what_it_looked_for(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        read_directory(tmp_path)


def test_a_file_of_no_bytes_is_no_safetensors_file(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match=r"model\.safetensors is no safetensors file: it has no header"):
        read_directory(tmp_path)


def test_a_directory_or_pipe_in_a_files_place_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        read_directory(tmp_path)


def test_a_spec_knows_its_size():
    assert TensorSpec("BF16", (3, 5)).size == 30
    assert TensorSpec("F64", ()).size == 8
    assert TensorSpec("U8", (0, 7)).size == 0


@pytest.mark.parametrize(("dtype", "numpy_type"), [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8")])
@given(data=st.data())
def test_finite_is_what_numpy_says(dtype, numpy_type, data):
    bits = hnp.arrays(numpy_type.replace("f", "u"), st.integers(0, 9))
    array = data.draw(bits).view(numpy_type)
    assert is_finite(memoryview(array.tobytes()), dtype) == bool(np.isfinite(array).all())


def widened(pattern: int) -> float:
    """The value of a bf16: the upper half of a float32."""
    return float(np.array([pattern << 16], "<u4").view("<f4")[0])


def test_finite_is_right_for_every_bf16():
    for pattern in range(1 << 16):
        finite = is_finite(memoryview(pattern.to_bytes(2, "little")), "BF16")
        assert finite == math.isfinite(widened(pattern)), hex(pattern)


@pytest.mark.parametrize(
    ("dtype", "not_finite"),
    [
        ("F8_E4M3", {0x7F, 0xFF}),
        ("F8_E5M2", {*range(0x7C, 0x80), *range(0xFC, 0x100)}),
        ("F8_E8M0", {0xFF}),
        ("F8_E4M3FNUZ", {0x80}),
        ("F8_E5M2FNUZ", {0x80}),
        ("U8", set()),
        ("I8", set()),
        ("BOOL", set()),
    ],
)
def test_finite_is_right_for_every_byte(dtype, not_finite):
    assert {byte for byte in range(256) if not is_finite(memoryview(bytes([byte])), dtype)} == not_finite


@pytest.mark.parametrize("dtype", sorted(set(ITEM_SIZE) - {"C64"}))
def test_nothing_and_zeros_are_finite(dtype):
    assert is_finite(memoryview(b""), dtype)
    assert is_finite(memoryview(bytes(64)), dtype)


@pytest.mark.parametrize("at", [0, (1 << 20) // 4 - 1, (1 << 20) // 4, 700_000])
def test_one_nan_among_many_is_found_wherever_it_is(at):
    array = np.zeros(700_001, "<f4")
    array[at] = np.nan
    assert not is_finite(memoryview(array.tobytes()), "F32")


def test_both_parts_of_a_complex_number_count():
    assert is_finite(memoryview(np.array([1 + 1j], "<c8").tobytes()), "C64")
    assert not is_finite(memoryview(np.array([1 + 1j * np.inf], "<c8").tobytes()), "C64")


@pytest.mark.parametrize("names", [["full", "empty"], ["empty", "full"]])
def test_an_empty_tensor_takes_no_room_wherever_the_header_lists_it(names):
    entries = {
        "full": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        "empty": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]},
    }
    header = json.dumps({name: entries[name] for name in names}).encode()
    specs, _ = parse_header(len(header).to_bytes(8, "little") + header, 8 + len(header) + 4)
    assert specs == {"full": (TensorSpec("U8", (4,)), 0), "empty": (TensorSpec("U8", (0,)), 0)}


def test_a_header_is_read_from_the_first_bytes_alone():
    data = safetensors.numpy.save({"a": np.zeros(1000, np.float32)})
    specs, start = parse_header(data[:200], len(data))
    assert specs == {"a": (TensorSpec("F32", (1000,)), 0)}
    assert start == len(data) - 4000
