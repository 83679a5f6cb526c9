from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from modelparams.secret import Secret32

KEY = bytes(range(100, 132))


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r:>40}".format, lambda s: f"{[s]} { ({'k': s}) }"])
def test_a_secret_shows_nothing_of_itself(show):
    shown = show(Secret32(KEY))
    assert "32 secret bytes" in shown
    assert repr(KEY)[2:10] not in shown
    assert KEY.hex()[:8] not in shown


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_is_neither_pickled_nor_copied(leak):
    with pytest.raises(TypeError, match="never pickled"):
        leak(Secret32(KEY))


def test_a_wrong_size_is_refused_without_the_bytes_in_the_message():
    with pytest.raises(ValueError, match="32 bytes, not 31") as caught:
        Secret32(KEY[:31])
    assert KEY[:31].hex() not in "".join(traceback.format_exception_only(caught.value))


def test_secrets_are_equal_by_value_but_are_no_keys_of_a_dict():
    assert Secret32(KEY) == Secret32(KEY)
    assert Secret32(KEY) != Secret32.random()
    assert Secret32(KEY) != KEY
    with pytest.raises(TypeError):
        hash(Secret32(KEY))


def test_expose_gives_the_bytes_and_random_gives_others_each_time():
    assert Secret32(KEY).expose() == KEY
    assert Secret32.random() != Secret32.random()
