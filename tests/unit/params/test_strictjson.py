from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from modelparams.strictjson import MAX_DEPTH, Record, dumps, loads, loads_foreign


class Thing(Record):
    two_words: int = Field(ge=0)
    maybe: str | None = None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read_back(value):
    assert loads(dumps(value), limit=1 << 20) == value


def test_equal_values_give_equal_bytes():
    assert dumps({"b": 1, "a": [1, 2]}) == dumps({"a": [1, 2], "b": 1}) == b'{"a":[1,2],"b":1}'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b'{"a":1,"a":1}', "twice", id="duplicate-key"),
        pytest.param(b'{"x":{"a":1,"b":2,"a":3}}', "twice", id="duplicate-key-deep-inside"),
        pytest.param(b'{"a":1,"\\u0061":2}', "twice", id="duplicate-key-by-escape"),
        pytest.param(b"[NaN]", "no JSON number", id="nan"),
        pytest.param(b"[-Infinity]", "no JSON number", id="infinity"),
        pytest.param(b"[1", "no JSON", id="cut"),
        pytest.param(b"[1] 2", "no JSON", id="trailing-data"),
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b'"\xff"', "UTF-8", id="no-utf8"),
        pytest.param("[1]".encode("utf-16"), "UTF-8", id="utf-16"),
        pytest.param(b"[" * 100_000, "nested", id="nested-too-deep"),
        pytest.param(b"[1" + b"0" * 5000 + b"]", "digits", id="a-number-of-5000-digits"),
        pytest.param(b" " * 2000, "more than", id="too-long"),
    ],
)
def test_what_two_readers_could_read_two_ways_is_refused(data, why):
    with pytest.raises(ValueError, match=why):
        loads(data, limit=1 << 20 if len(data) != 2000 else 1999)


def test_a_document_of_others_keeps_to_a_depth_that_can_be_copied_and_written_again():
    def nested(depth: int) -> str:
        return '{"a":' * (depth - 1) + "[]" + "}" * (depth - 1)

    assert json.dumps(loads_foreign(nested(MAX_DEPTH))).replace(" ", "") == nested(MAX_DEPTH)
    for too_deep in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ValueError, match="nested too deep"):
            loads_foreign(nested(too_deep))
    assert loads_foreign(b'{"a": 1, "a": 2}') == {"a": 2}  # nothing hangs on it: nobody signs what it means


def test_a_record_uses_camel_case_and_leaves_out_what_is_absent():
    assert Thing(two_words=1).to_json() == b'{"twoWords":1}'
    assert Thing.from_json(b'{"twoWords":1,"maybe":"x"}', limit=99) == Thing(two_words=1, maybe="x")


@pytest.mark.parametrize(
    ("document", "where"),
    [
        pytest.param({"twoWords": 1, "other": 1}, "other: Extra", id="unknown-field"),
        pytest.param({"two_words": 1}, "twoWords: Field required", id="the-python-name"),
        pytest.param({"twoWords": "1"}, "twoWords: Input should be a valid integer", id="text-for-a-number"),
        pytest.param({"twoWords": 1.0}, "twoWords: Input should be a valid integer", id="a-float-for-an-integer"),
        pytest.param({"twoWords": True}, "twoWords: Input should be a valid integer", id="true-for-a-number"),
        pytest.param({"twoWords": -1}, "twoWords: Input should be greater", id="out-of-range"),
        pytest.param({}, "twoWords: Field required", id="missing"),
        pytest.param([], "document: Input should be an object", id="no-object"),
    ],
)
def test_a_record_refuses_other_documents(document, where):
    with pytest.raises(ValueError, match=f"^{where}"):
        Thing.from_json(json.dumps(document).encode(), limit=99)


def test_a_refusal_does_not_quote_the_document():
    with pytest.raises(ValueError, match="integer") as caught:
        Thing.from_json(b'{"twoWords":"hunter2"}', limit=99)
    assert "hunter2" not in str(caught.value)
