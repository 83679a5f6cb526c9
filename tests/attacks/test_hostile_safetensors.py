"""Safetensors files by a malicious author. The header is the only thing that is parsed, so it is what is attacked."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelparams.errors import UsageError
from modelparams.parameter_files import map_file
from modelparams.tensors import HEADER_LIMIT, parse_header, read_file

GOOD = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
}


def file_of(header: Any, data: bytes = bytes(11)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parse(file: bytes) -> Any:
    return parse_header(file, len(file))


def changed(**fields: Any) -> dict[str, Any]:
    return GOOD | {"a": {k: v for k, v in (GOOD["a"] | fields).items() if v is not None}}


def empty(*shape: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": list(shape), "data_offsets": [11, 11]}


def test_a_tensor_of_nothing_is_taken():
    assert "c" in parse(file_of(GOOD | {"c": empty(3, 0)}))[0]


def test_the_file_that_the_others_are_made_from_is_good():
    assert list(parse(file_of(GOOD))[0]) == ["a", "b"]


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01\0\0\0\0\0\0", id="shorter-than-its-length"),
        pytest.param(bytes(8), id="no-header"),
        pytest.param(struct.pack("<Q", 1 << 63) + b"{}", id="a-header-of-8-exabytes"),
        pytest.param(struct.pack("<Q", HEADER_LIMIT + 1) + b"{}", id="a-header-of-16-MiB-and-1"),
        pytest.param(struct.pack("<Q", 100) + b"{}", id="a-header-beyond-the-end"),
        pytest.param(file_of(b" " + json.dumps(GOOD).encode()), id="a-blank-before-the-brace"),
        pytest.param(file_of(b"[]", b""), id="a-list"),
        pytest.param(file_of(b"null", b""), id="null"),
        pytest.param(file_of(b"\xff\xff", b""), id="no-utf8"),
        pytest.param(file_of(b'{"a":' * 50_000, b""), id="nested-too-deep"),
        pytest.param(file_of(GOOD, bytes(10)), id="data-cut"),
        pytest.param(file_of(GOOD, bytes(12)), id="data-behind-the-last-tensor"),
        pytest.param(file_of({}, b"x"), id="data-of-no-tensor"),
        pytest.param(file_of(GOOD | {"__metadata__": {"x": 1}}), id="metadata-a-number"),
        pytest.param(file_of(GOOD | {"__metadata__": []}), id="metadata-a-list"),
        pytest.param(file_of(json.dumps(GOOD).replace('"b":', '"a":').encode()), id="a-name-twice"),
    ],
)
def test_a_malformed_file_is_refused(file):
    with pytest.raises(ValueError, match=r"its? |it |twice|JSON|UTF-8|nested"):
        parse(file)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(changed(dtype="F33"), id="unknown-dtype"),
        pytest.param(changed(dtype=["F32"]), id="dtype-a-list"),
        pytest.param(changed(dtype=None), id="no-dtype"),
        pytest.param(changed(extra=1), id="unknown-field"),
        pytest.param(changed(shape=[-2]), id="negative-shape"),
        pytest.param(changed(shape=[2.0]), id="a-float-in-the-shape"),
        pytest.param(changed(shape=[True, 2]), id="true-in-the-shape"),
        pytest.param(changed(shape="2"), id="shape-as-text"),
        pytest.param(changed(shape=[1 << 32, 1 << 32]), id="a-product-beyond-64-bits"),
        pytest.param(GOOD | {"c": empty(0, 1 << 52, 1 << 52)}, id="nothing-in-a-shape-beyond-64-bits"),
        pytest.param(changed(shape=[1 << 64]), id="a-side-beyond-64-bits"),
        pytest.param(changed(shape=[3]), id="another-size-than-its-shape"),
        pytest.param(changed(data_offsets=[0]), id="one-offset"),
        pytest.param(changed(data_offsets=[8, 0]), id="offsets-backwards"),
        pytest.param(changed(data_offsets=[-8, 0]), id="a-negative-offset"),
        pytest.param(changed(data_offsets=[0, 8, 9]), id="three-offsets"),
        pytest.param(changed(data_offsets=[1, 9]), id="a-gap-and-an-overlap"),
        pytest.param(changed(data_offsets=[11, 19]), id="beyond-the-end"),
        pytest.param(GOOD | {"b": GOOD["a"]}, id="two-tensors-in-one-place"),
        pytest.param(GOOD | {"c": {"dtype": "U8", "shape": [1], "data_offsets": [5, 6]}}, id="one-inside-another"),
        pytest.param(GOOD | {"a": 7}, id="an-entry-that-is-a-number"),
    ],
)
def test_a_lying_entry_is_refused(header):
    with pytest.raises(ValueError, match="tensor"):
        parse(file_of(header))


def test_a_refusal_is_a_usage_error_that_names_the_file_and_not_its_content(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(b'{"secret-name'))
    with pytest.raises(UsageError, match=r"model\.safetensors is no safetensors file") as caught:
        read_file(map_file(path))
    assert "secret-name" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(data):
    try:
        entries, start = parse(data)
    except ValueError:
        return
    assert sum(spec.size for spec, _ in entries.values()) == len(data) - start


@given(st.data())
def test_no_mutation_of_a_good_file_does_worse_than_being_refused(data):
    file = bytearray(file_of(GOOD))
    for position in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=4)):
        file[position] = data.draw(st.integers(0, 255))
    test_no_bytes_do_worse_than_being_refused.hypothesis.inner_test(bytes(file))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.binary(max_size=20))
def test_no_json_in_the_header_does_worse_than_being_refused(header, data):
    test_no_bytes_do_worse_than_being_refused.hypothesis.inner_test(file_of(header, data))
