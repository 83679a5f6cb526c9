from __future__ import annotations

import base64
import json

import pytest

from builders.sealed import UID
from modelparams.errors import KeyMismatch, KeyUnavailable
from modelparams.keys import (
    ContentKind,
    KeyContext,
    LocalKeyProvider,
    Purpose,
    blob_context,
    check_commitment,
    commit,
    content_hasher,
    content_id,
    open_key_object,
    parse_kek,
    unwrap_dek,
    wrap_dek,
    write_key_object,
)
from modelparams.secret import Secret32

MODEL_KEY, DATA_KEY = Secret32(b"m" * 32), Secret32(b"d" * 32)
CONTEXT = KeyContext.of_model_key(UID, "e1")


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "prod").write_bytes(b"\xf0" * 32)
    (tmp_path / "stage").write_text(base64.b64encode(b"\xf3" * 32).decode() + "\n")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "key").write_bytes(b"\xf3" * 32)
    return LocalKeyProvider(tmp_path)


def test_a_data_key_is_wrapped_in_40_bytes_and_comes_back():
    wrapped = wrap_dek(MODEL_KEY, DATA_KEY)
    assert len(wrapped) == 40
    assert unwrap_dek(MODEL_KEY, wrapped) == DATA_KEY


@pytest.mark.parametrize("position", range(40))
def test_a_changed_wrap_is_refused(position):
    wrapped = bytearray(wrap_dek(MODEL_KEY, DATA_KEY))
    wrapped[position] ^= 0x80
    with pytest.raises(KeyMismatch, match="changed"):
        unwrap_dek(MODEL_KEY, bytes(wrapped))


@pytest.mark.parametrize("size", [0, 24, 39, 48])
def test_a_wrap_of_another_length_is_refused(size):
    with pytest.raises(KeyMismatch, match=f"{size} bytes, not 40"):
        unwrap_dek(MODEL_KEY, bytes(size))


def test_another_model_key_opens_no_wrap():
    with pytest.raises(KeyMismatch, match="another key"):
        unwrap_dek(Secret32.random(), wrap_dek(MODEL_KEY, DATA_KEY))


def test_a_commitment_fixes_key_model_and_epoch():
    check_commitment(MODEL_KEY, UID, "e1", commit(MODEL_KEY, UID, "e1"))
    for key, uid, epoch in [(DATA_KEY, UID, "e1"), (MODEL_KEY, UID[::-1], "e1"), (MODEL_KEY, UID, "e2")]:
        with pytest.raises(KeyMismatch, match="commits to"):
            check_commitment(key, uid, epoch, commit(MODEL_KEY, UID, "e1"))


def test_equal_plaintexts_of_one_kind_have_one_content_id_and_no_others():
    ids = {
        content_id(key, kind, plain)
        for key in (MODEL_KEY, DATA_KEY)
        for kind in ContentKind
        for plain in (b"", b"a", b"aa")
    }
    assert len(ids) == 2 * 3 * 3
    assert (
        content_id(MODEL_KEY, ContentKind.TENSORS, b"ab")
        == content_hasher(MODEL_KEY, ContentKind.TENSORS).update(b"a").update(b"b").digest()
    )


def test_a_blobs_context_is_its_model_and_content():
    contexts = {blob_context(uid, content) for uid in ("u", "uu") for content in (b"u", b"c")}
    assert len(contexts) == 4


@pytest.mark.parametrize("key_ref", ["prod", "stage", "mounted"])
def test_a_key_comes_back_through_its_object(provider, key_ref):
    data = write_key_object(MODEL_KEY, CONTEXT, provider, [key_ref])
    assert MODEL_KEY.expose().hex() not in data.decode()
    assert open_key_object(data, CONTEXT, provider, key_ref) == MODEL_KEY


def test_a_raw_file_a_base64_file_and_a_mounted_secret_are_one_key(provider):
    data = write_key_object(MODEL_KEY, CONTEXT, provider, ["stage"])
    assert open_key_object(data, CONTEXT, provider, "mounted") == MODEL_KEY


def test_one_object_serves_several_key_encryption_keys(provider):
    data = write_key_object(MODEL_KEY, CONTEXT, provider, ["prod", "stage"])
    assert open_key_object(data, CONTEXT, provider, "prod") == MODEL_KEY
    assert open_key_object(data, CONTEXT, provider, "stage") == MODEL_KEY


def test_another_kind_of_provider_s_wrap_is_not_taken_for_ours_whatever_its_key_is_called(provider):
    found = json.loads(write_key_object(MODEL_KEY, CONTEXT, provider, ["prod"]))
    found["wraps"].insert(0, found["wraps"][0] | {"provider": "kms", "wrapped": "00" * 40})
    assert open_key_object(json.dumps(found).encode(), CONTEXT, provider, "prod") == MODEL_KEY


def test_key_objects_have_their_places_in_the_store():
    assert KeyContext.of_model_key(UID, "e7").object_key == "keys/e7.json"
    assert KeyContext.of_content_id_key(UID).object_key == "keys/id.json"


def test_a_key_that_is_mounted_but_not_a_recipient_is_told_apart_from_an_absent_one(provider):
    data = write_key_object(MODEL_KEY, CONTEXT, provider, ["prod"])
    with pytest.raises(KeyUnavailable, match="wrapped under other keys"):
        open_key_object(data, CONTEXT, provider, "stage")
    with pytest.raises(KeyUnavailable, match=f"cannot be read: {provider.directory / 'absent'} .No such file"):
        open_key_object(data, CONTEXT, provider, "absent")


@pytest.mark.parametrize("key_ref", ["../prod", "/etc/passwd", "", ".", "..", "a/b", "Prod", "prod\0", "a" * 300])
def test_a_key_reference_is_never_a_path(provider, key_ref):
    with pytest.raises(KeyUnavailable, match="no name of a key"):
        provider.wrap(key_ref, MODEL_KEY, CONTEXT)


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 31, b"x" * 33, b"!" * 44, base64.b64encode(b"x" * 31), b"!" + base64.b64encode(b"\xf1" * 32)],
)
def test_a_file_that_holds_no_key_is_refused_without_its_content(provider, data):
    (provider.directory / "bad").write_bytes(data)
    with pytest.raises(KeyUnavailable, match="'bad' is no key") as caught:
        provider.wrap("bad", MODEL_KEY, CONTEXT)
    assert not data or data.decode() not in str(caught.value)


def test_a_key_encryption_key_is_raw_or_base64():
    assert parse_kek(b"\xf1" * 32) == parse_kek(base64.b64encode(b"\xf1" * 32)) == Secret32(b"\xf1" * 32)


def test_a_rotated_file_is_read_again(provider):
    data = write_key_object(MODEL_KEY, CONTEXT, provider, ["stage"])
    (provider.directory / "prod").write_bytes(b"\xf3" * 32)
    assert open_key_object(data, CONTEXT, provider, "prod") == MODEL_KEY


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(KeyContext.of_model_key(UID, "e2"), id="another-epoch"),
        pytest.param(KeyContext.of_model_key("00000000-0000-4000-8000-000000000000", "e1"), id="another-model"),
        pytest.param(KeyContext(UID, Purpose.CONTENT_ID_KEY, "e1"), id="another-purpose"),
    ],
)
def test_an_object_for_another_place_is_refused_even_with_its_labels_changed(provider, other):
    data = write_key_object(MODEL_KEY, CONTEXT, provider, ["prod"])
    with pytest.raises(KeyMismatch, match="holds another key"):
        open_key_object(data, other, provider, "prod")
    labels = {"modelUid": other.model_uid, "purpose": other.purpose, "epoch": other.epoch}
    with pytest.raises(KeyMismatch, match="another place"):
        open_key_object(json.dumps(json.loads(data) | labels).encode(), other, provider, "prod")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"x" * 100_000, b'{"wraps":[],"wraps":[]}'])
def test_what_is_no_key_object_is_refused(provider, data):
    with pytest.raises(KeyMismatch, match="no key object"):
        open_key_object(data, CONTEXT, provider, "prod")


@pytest.mark.parametrize(
    "weak", [bytes(16).hex().encode(), base64.b64encode(bytes(24)), b"correct horse battery staple 123", b" ~" * 16]
)
def test_32_characters_of_text_are_no_256_bit_key(weak: bytes) -> None:
    assert len(weak) == 32
    with pytest.raises(ValueError, match="32 random bytes, or their base64"):
        parse_kek(weak)
