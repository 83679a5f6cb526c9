from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelparams.framing import length_prefixed

PARTS = st.lists(st.binary(max_size=12), max_size=5)


@given(PARTS, PARTS)
def test_two_lists_of_parts_never_give_the_same_bytes(one, other):
    assert (length_prefixed(*one) == length_prefixed(*other)) == (one == other)


def test_moving_a_byte_over_a_border_shows():
    assert length_prefixed("ab", "c") != length_prefixed("a", "bc") != length_prefixed("abc")


def test_the_length_is_eight_bytes_big_endian_and_text_is_utf8():
    assert length_prefixed("é", b"\0") == bytes.fromhex("0000000000000002c3a9000000000000000100")
