"""params/FORMAT.md against the library, and against a second reader that knows the page alone."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from builders.worked_example import block, facts
from modelparams import arena, floe, index, keys, manifest, strictjson, tensors, trust

PAGE = (Path(__file__).resolve().parents[3] / "params" / "FORMAT.md").read_text(encoding="utf-8")


def example() -> dict[str, str]:
    text = PAGE.partition("## Worked example")[2].partition("```text\n")[2].partition("\n```")[0]
    joined = text.replace("\n    ", "")
    return dict(line.split(" = ", 1) for line in joined.splitlines())


SHOWN = example()


def shown(name: str) -> bytes:
    return bytes.fromhex(SHOWN[name])


@pytest.mark.parametrize("name", sorted(facts()))
def test_the_page_shows_what_the_library_computes(name):
    assert SHOWN[name] == facts()[name]


def test_the_page_shows_nothing_else():
    assert block(SHOWN) == block(facts())


# The second reader: the page's formulas over HMAC, AES-GCM and BLAKE3, nothing of the library.


def lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 §2.3 with SHA-384; one round gives 48 bytes, all that is needed."""
    return hmac.digest(key, info + b"\1", "sha384")[:size]


def derive(key: bytes, *parts: bytes) -> bytes:
    return expand(key, lp(*parts), 32)


def open_floe(sealed: bytes, key: bytes, context: bytes) -> bytes:
    prefix, tag, segment = sealed[:42], sealed[42:74], sealed[74:]
    assert prefix[:10] == bytes.fromhex("00000010000000000020")
    assert tag == expand(key, prefix + b"HEADER_TAG:" + context, 32)
    message_key = expand(key, prefix + b"MESSAGE_KEY:" + context, 48)
    assert int.from_bytes(segment[:4], "big") == len(segment)
    segment_key = expand(message_key, prefix + b"DEK:" + bytes(8) + context, 32)
    return AESGCM(segment_key).decrypt(segment[4:16], segment[16:], bytes(8) + b"\1")


def test_a_second_reader_opens_the_keys():
    uid = SHOWN["model uid"].encode()
    wrapping = derive(shown("kek"), b"mpv/kek-wrap/v1", uid, b"model-key", b"e1")
    model_key = aes_key_unwrap(wrapping, shown("wrapped model key"))
    assert model_key == shown("model key")
    assert derive(shown("kek"), b"mpv/kek-id/v1")[:16] == shown("kek id")
    assert derive(model_key, b"mpv/mk-commit/v1", uid, b"e1") == shown("commitment")
    assert aes_key_unwrap(derive(model_key, b"mpv/dek-wrap/v1"), shown("wrapped data key")) == shown("data key")


def test_a_second_reader_opens_the_blob():
    plain, sealed = shown("plaintext"), shown("sealed header") + shown("sealed segment")
    named = lp(b"mpv/content-id/v1", b"tensors") + plain
    content_id = blake3(named, key=shown("content id key")).digest()
    assert content_id == shown("content id")
    context = lp(b"mpv/blob/v1", SHOWN["model uid"].encode(), content_id)
    assert context == shown("floe context")
    assert open_floe(sealed, shown("data key"), context) == plain
    assert hashlib.sha256(sealed).hexdigest() == SHOWN["sealed sha256"]
    assert blake3(sealed).hexdigest() == SHOWN["sealed blake3"]


def test_a_second_reader_verifies_the_manifest():
    statement, public = SHOWN["statement"].encode(), shown("signing public key")
    pae = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(statement) + statement
    Ed25519PublicKey.from_public_bytes(public).verify(shown("signature"), pae)
    assert hashlib.sha256(public).hexdigest() == SHOWN["signing key id"]
    predicate = json.loads(statement)["predicate"]
    assert predicate["blobs"][0]["sha256"] == SHOWN["sealed sha256"]
    assert predicate["epochs"][0]["commit"] == SHOWN["commitment"]
    assert predicate["schemaDigest"] == SHOWN["schema digest"]


def test_a_second_reader_finds_the_tensors():
    document, digest = json.loads(SHOWN["index"]), blake3(key=shown("salt"))
    schema = {}
    for tensor in document["tensors"]:
        data = shown("plaintext")[tensor["offset"] : tensor["offset"] + tensor["size"]]
        shape = json.dumps(tensor["shape"], separators=(",", ":"))
        digest.update(lp(tensor["name"].encode(), tensor["dtype"].encode(), shape.encode()) + lp(data))
        schema[tensor["name"]] = [tensor["dtype"], tensor["shape"]]
    assert digest.hexdigest() == document["tensorsDigest"] == SHOWN["tensors digest"]
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
    assert "sha256:" + hashlib.sha256(text.encode()).hexdigest() == SHOWN["schema digest"]


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ("at most 6 MiB", manifest.MANIFEST_LIMIT == 6 << 20),
        ("at most 4 MiB", manifest.PAYLOAD_LIMIT == 4 << 20),
        ("at most 64 MiB", index.INDEX_LIMIT == 64 << 20),
        ("| plaintext of a blob | 1 GiB |", manifest.BLOB_PLAIN_LIMIT == 1 << 30),
        ("7,000; 16; 64", (manifest.BLOBS_LIMIT, manifest.EPOCHS_LIMIT) == (7_000, 16)),
        ("6 MiB, 4 MiB, 64 MiB, 64 KiB, 256 KiB", (keys.KEY_OBJECT_LIMIT, trust.TRUST_LIMIT) == (64 << 10, 256 << 10)),
        ("| safetensors header | 16 MiB |", tensors.HEADER_LIMIT == 16 << 20),
        ("2⁵³ − 1", strictjson.MAX_SAFE_INTEGER == 2**53 - 1),
        ("next multiple of 4096", index.BLOB_ALIGNMENT == 4096),
        ("a multiple of 64", index.TENSOR_ALIGNMENT == 64),
        (manifest.PREDICATE_TYPE, True),
        (manifest.PAYLOAD_TYPE, True),
    ],
)
def test_what_the_page_says_of_limits_and_names_is_so(said, is_so):
    assert said in re.sub(r"\s+", " ", PAGE)
    assert is_so


@pytest.mark.parametrize("name", [floe.FORMAT_1M, floe.FORMAT_4M])
def test_the_page_names_the_allowed_formats(name):
    assert f"`{name}`" in PAGE


def test_the_page_names_every_field_of_manifest_and_index():
    for record in (manifest.Manifest, manifest.BlobEntry, index.TensorIndex, keys.KeyObject, keys.Wrapped):
        for field in record.model_fields.values():
            assert f"`{field.alias}`" in PAGE or f'"{field.alias}"' in PAGE, field.alias


def test_the_page_links_to_code_that_is_there():
    for module in (arena, floe, index, keys, manifest):
        assert Path(module.__file__).name in PAGE
