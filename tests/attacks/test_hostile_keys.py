"""Key objects, which nobody signs, as a bucket writer would leave them."""

from __future__ import annotations

import json

import pytest

from builders.sealed import UID, built
from modelparams.errors import IntegrityError, KeyMismatch, KeyUnavailable
from modelparams.floe import HEADER_SIZE, Opener
from modelparams.keys import (
    KeyContext,
    LocalKeyProvider,
    blob_context,
    check_commitment,
    open_key_object,
    unwrap_dek,
    write_key_object,
)
from modelparams.secret import Secret32

CONTEXT = KeyContext.of_model_key(UID, "e1")


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "kek").write_bytes(b"\xf0" * 32)
    (tmp_path / "attacker").write_bytes(b"\xfa" * 32)
    return LocalKeyProvider(tmp_path)


@pytest.fixture
def model_key():
    return Secret32.random()


@pytest.fixture
def good(provider, model_key):
    return write_key_object(model_key, CONTEXT, provider, ["kek"])


def test_a_wrap_of_another_model_key_under_the_right_kek_is_caught_by_the_signed_commitment(provider):
    """A publisher of the same model, or whoever may use the KEK, replaces keys/e1.json."""
    release, theirs = built(), Secret32.random()
    replaced = write_key_object(theirs, CONTEXT, provider, ["kek"])
    opened = open_key_object(replaced, CONTEXT, provider, "kek")
    with pytest.raises(KeyMismatch, match="commits to"):
        check_commitment(opened, UID, "e1", bytes.fromhex(release.manifest.epochs[0].commit))


def test_a_wrap_under_the_attackers_kek_is_not_even_tried(provider, model_key):
    replaced = write_key_object(model_key, CONTEXT, provider, ["attacker"])
    with pytest.raises(KeyUnavailable, match="other keys"):
        open_key_object(replaced, CONTEXT, provider, "kek")


def test_a_wrap_under_the_attackers_kek_with_the_right_name_is_refused(provider, model_key, good):
    replaced = json.loads(write_key_object(model_key, CONTEXT, provider, ["attacker"]))
    replaced["wraps"][0]["keyId"] = json.loads(good)["wraps"][0]["keyId"]
    with pytest.raises(KeyMismatch, match="another key"):
        open_key_object(json.dumps(replaced).encode(), CONTEXT, provider, "kek")


def test_the_content_id_key_in_the_model_keys_place_is_refused(provider, model_key):
    content_id_key = write_key_object(model_key, KeyContext.of_content_id_key(UID), provider, ["kek"])
    with pytest.raises(KeyMismatch):
        open_key_object(content_id_key, CONTEXT, provider, "kek")


def test_an_older_epochs_object_in_a_newer_ones_place_is_refused(provider, good):
    with pytest.raises(KeyMismatch, match="holds another key"):
        open_key_object(good, KeyContext.of_model_key(UID, "e2"), provider, "kek")


@pytest.mark.parametrize("digit", range(80))
def test_a_changed_digit_of_the_wrap_is_refused(provider, good, digit):
    document = json.loads(good)
    wrapped = document["wraps"][0]["wrapped"]
    document["wraps"][0]["wrapped"] = wrapped[:digit] + format(int(wrapped[digit], 16) ^ 1, "x") + wrapped[digit + 1 :]
    with pytest.raises(KeyMismatch):
        open_key_object(json.dumps(document).encode(), CONTEXT, provider, "kek")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d | {"extra": 1}, id="unknown-field"),
        pytest.param(lambda d: d | {"wraps": []}, id="no-wrap"),
        pytest.param(lambda d: d | {"wraps": d["wraps"] * 65}, id="too-many-wraps"),
        pytest.param(lambda d: d | {"wraps": [d["wraps"][0] | {"wrapped": "zz"}]}, id="no-hex"),
        pytest.param(lambda d: d | {"purpose": "other"}, id="unknown-purpose"),
        pytest.param(lambda d: d | {"modelUid": "../x"}, id="uid-as-a-path"),
        pytest.param(lambda d: {}, id="empty"),
    ],
)
def test_a_malformed_key_object_is_refused(provider, good, change):
    with pytest.raises(KeyMismatch, match="no key object"):
        open_key_object(json.dumps(change(json.loads(good))).encode(), CONTEXT, provider, "kek")


def test_an_oversize_key_object_is_refused(provider, good):
    with pytest.raises(KeyMismatch, match="more than"):
        open_key_object(good + b" " * (64 << 10), CONTEXT, provider, "kek")


def test_blobs_whose_wrapped_keys_were_exchanged_do_not_open():
    release = built()
    first, second = release.manifest.blobs[:2]
    key = unwrap_dek(release.keys.epochs["e1"], bytes.fromhex(second.wrapped_key))
    with pytest.raises(IntegrityError, match="another key"):
        Opener(key, blob_context(UID, bytes.fromhex(first.content_id)), release.sealed[0][:HEADER_SIZE])
