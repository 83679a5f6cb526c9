"""Tensor indexes by whoever holds a data key: sealed and signed, and still not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.sealed import plaintexts
from modelparams.errors import IndexInvalid
from modelparams.index import INDEX_LIMIT, TensorIndex
from modelparams.strictjson import dumps

GOOD: dict[str, Any] = json.loads(plaintexts().index.to_json())


def refused(document: Any) -> str:
    with pytest.raises(IndexInvalid) as caught:
        TensorIndex.parse(document if isinstance(document, bytes) else dumps(document))
    return str(caught.value)


def first(**changes: Any) -> dict[str, Any]:
    head, *rest = GOOD["tensors"]
    return GOOD | {"tensors": [head | changes, *rest]}


def beside(**facts: Any) -> dict[str, Any]:
    return GOOD | {"tensors": [GOOD["tensors"][0] | {"name": "a"} | facts, *GOOD["tensors"]]}


def test_a_tensor_of_nothing_is_taken():
    TensorIndex.parse(dumps(beside(shape=[0, 3], size=0)))


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x08\0\0\0\0\0\0\0{}      ", id="a-safetensors-file"),
        pytest.param(b"[" * 50_000, id="nested-too-deep"),
        pytest.param(GOOD | {"format": "modelparams.dev/index/v2"}, id="another-format"),
        pytest.param(GOOD | {"extra": 1}, id="unknown-field"),
        pytest.param(GOOD | {"blobOffsets": [0]}, id="offsets-of-its-own"),
        pytest.param(GOOD | {"salt": ""}, id="no-salt"),
        pytest.param(GOOD | {"blobSizes": [-1]}, id="a-negative-blob"),
        pytest.param(GOOD | {"blobSizes": [(1 << 30) + 1]}, id="a-blob-too-large"),
        pytest.param(GOOD | {"tensors": GOOD["tensors"] * 2}, id="every-tensor-twice"),
        pytest.param(GOOD | {"tensors": GOOD["tensors"][::-1]}, id="tensors-in-another-order"),
        pytest.param(GOOD | {"tensors": GOOD["tensors"][1:]}, id="a-tensor-missing"),
        pytest.param(first(dtype="__import__('os')"), id="a-dtype-that-is-code"),
        pytest.param(first(shape=[1 << 62, 1 << 62]), id="a-shape-beyond-all-memory"),
        pytest.param(beside(shape=[0, 1 << 52, 1 << 52], size=0), id="nothing-in-a-shape-beyond-all-memory"),
        pytest.param(first(shape=[1] * 17), id="seventeen-dimensions"),
        pytest.param(first(offset=1 << 53), id="an-offset-beyond-exact-integers"),
        pytest.param(first(offset=-64), id="a-negative-offset"),
        pytest.param(first(blob=99), id="a-blob-that-is-none"),
        pytest.param(first(size=0), id="another-size-than-its-shape"),
        pytest.param(first(name=""), id="no-name"),
        pytest.param(first(name="a\nb"), id="a-newline-in-a-name"),
        pytest.param(first(path="/etc/passwd"), id="unknown-field-of-a-tensor"),
    ],
)
def test_a_hostile_index_is_refused(document):
    refused(document)


def test_the_index_that_the_others_are_made_from_is_good():
    assert len(TensorIndex.parse(dumps(GOOD)).tensors) == 4


def test_an_oversize_index_is_refused_before_it_is_parsed():
    assert "more than the" in refused(dumps(GOOD) + b" " * INDEX_LIMIT)


def test_a_duplicate_key_is_refused():
    assert "twice" in refused(dumps(GOOD).replace(b'"dtype":', b'"dtype":"U8","dtype":', 1))


def test_a_refusal_names_no_tensor():
    """An index's error is shown in a condition, to people who may not know the names."""
    name = GOOD["tensors"][0]["name"]
    assert name not in refused(first(offset=4096)) + refused(first(size=1)) + refused(first(dtype="X"))


@given(st.binary(max_size=64))
def test_no_bytes_do_worse_than_being_refused(data):
    refused(data)


@given(st.sampled_from(["blob", "offset", "size", "shape"]), st.integers(0, 3), st.integers(0, 1 << 40))
def test_no_number_makes_a_tensor_reach_beyond_its_blobs(field, which, value):
    tensors = json.loads(json.dumps(GOOD["tensors"]))
    if tensors[which][field] == value:
        return
    tensors[which][field] = [value] if field == "shape" else value
    try:
        index = TensorIndex.parse(dumps(GOOD | {"tensors": tensors}))
    except IndexInvalid:
        return
    assert field == "shape"
    assert sum(tensor.size for tensor in index.tensors) <= sum(index.blob_sizes)
