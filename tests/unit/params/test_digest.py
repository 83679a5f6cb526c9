from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelparams.digest import Digest

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_is_written_as_oci_writes_it():
    assert str(Digest.of(b"")) == f"sha256:{EMPTY}"
    assert Digest.of(memoryview(b"")).hex == EMPTY
    assert Digest.of(b"").short == EMPTY[:12]


@given(st.binary(max_size=99))
def test_a_digest_comes_back_from_each_of_its_forms(data):
    digest = Digest.of(data)
    assert Digest(str(digest)) == Digest.from_hex(digest.hex) == digest
    assert digest.hex == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY,
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha256:{EMPTY.upper()}",
        f"SHA256:{EMPTY}",
        f"sha512:{EMPTY}",
        "sha256:" + "g" * 64,
        "sha256:" + "٠" * 64,
    ],
)
def test_any_other_form_is_refused(text):
    with pytest.raises(ValueError, match="not a sha256 digest"):
        Digest(text)


def test_a_refusal_shows_80_characters_at_most():
    with pytest.raises(ValueError, match=r"x{80}'") as caught:
        Digest("x" * 5000)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=3), st.binary(max_size=3))
def test_digests_match_exactly_when_they_are_equal(one, other):
    assert Digest.of(one).matches(Digest.of(other)) == (Digest.of(one) == Digest.of(other)) == (one == other)
