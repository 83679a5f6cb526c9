"""The worked example of params/FORMAT.md, computed by the library with fixed keys and IVs.

``python -m builders.worked_example`` in tests/ prints the block that belongs into the page.
"""

from __future__ import annotations

import base64
import json
import struct
import textwrap
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from builders.sealed import describe, plaintexts, sealed_blob
from modelparams.digest import Digest
from modelparams.floe import Sealer
from modelparams.index import schema_digest
from modelparams.keys import (
    KeyContext,
    LocalKeyProvider,
    blob_context,
    commit,
    content_id,
    derive,
    wrap_dek,
)
from modelparams.manifest import Epoch, Manifest, ModelId, sign
from modelparams.names import ModelName, Version
from modelparams.secret import Secret32
from modelparams.tensors import TensorSpec
from modelparams.trust import SigningKey

UID = "0f0e0d0c-0b0a-4908-8706-050403020100"
KEK, CONTENT_ID_KEY, MODEL_KEY = (Secret32(bytes([n]) * 32) for n in (1, 2, 3))
DATA_KEYS = [Secret32(bytes([n]) * 32) for n in (4, 5, 6)]
SALT, SEED = bytes([9]) * 32, bytes([10]) * 32
TENSORS = {
    "layer.bias": (TensorSpec("F32", (1,)), struct.pack("<f", 0.5)),
    "layer.weight": (TensorSpec("BF16", (1, 2)), bytes.fromhex("803f0040")),
}
ASSETS = {"config.json": b"{}"}


def _ivs(size: int) -> bytes:
    """Every 32-byte IV is sevens and every 12-byte one eights. Never do this outside of an example."""
    return bytes([7 if size == 32 else 8]) * size


def facts() -> dict[str, str]:
    """Name → hex, or text, in the page's order."""
    signer = SigningKey(Ed25519PrivateKey.from_private_bytes(SEED))
    plain = plaintexts(TENSORS, ASSETS, SALT)
    blobs = []
    for data_key, (kind, data) in zip(DATA_KEYS, plain.parts, strict=True):
        identity = content_id(CONTENT_ID_KEY, kind, data)
        sealed = sealed_blob(data, Sealer(data_key, blob_context(UID, identity), random=_ivs))
        blobs.append((describe(sealed, len(data), wrap_dek(MODEL_KEY, data_key), identity), sealed, data))
    manifest = Manifest(
        model=ModelId(uid=UID, name=ModelName("tiny")),
        version=Version("1.0.0"),
        sequence=1,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        schema_digest=schema_digest(plain.index.specs),
        epochs=(Epoch(id="e1", commit=commit(MODEL_KEY, UID, "e1").hex()),),
        index=1,
        assets=2,
        blobs=tuple(entry for entry, _, _ in blobs),
    )
    envelope = sign(manifest, [signer])
    entry, sealed, data = blobs[0]
    context = KeyContext.of_model_key(UID, "e1")
    wrapping = LocalKeyProvider._wrapping_key(KEK, context)
    return {
        "model uid": UID,
        "kek": KEK.expose().hex(),
        "kek id": LocalKeyProvider._key_id(KEK),
        "kek wrapping key": wrapping.hex(),
        "model key": MODEL_KEY.expose().hex(),
        "wrapped model key": aes_key_wrap(wrapping, MODEL_KEY.expose()).hex(),
        "commitment": commit(MODEL_KEY, UID, "e1").hex(),
        "dek wrapping key": derive(MODEL_KEY, "mpv/dek-wrap/v1").hex(),
        "data key": DATA_KEYS[0].expose().hex(),
        "wrapped data key": entry.wrapped_key,
        "plaintext": data.hex(),
        "content id key": CONTENT_ID_KEY.expose().hex(),
        "content id": entry.content_id,
        "floe context": blob_context(UID, bytes.fromhex(entry.content_id)).hex(),
        "sealed header": sealed[:74].hex(),
        "sealed segment": sealed[74:].hex(),
        "sealed sha256": entry.sha256,
        "sealed blake3": entry.blake3,
        "salt": SALT.hex(),
        "tensors digest": plain.index.tensors_digest,
        "schema digest": manifest.schema_digest.text,
        "index": plain.index.to_json().decode(),
        "signing public key": signer.public.hex(),
        "signing key id": signer.key_id,
        "statement": base64.b64decode(json.loads(envelope)["payload"]).decode(),
        "signature": base64.b64decode(json.loads(envelope)["signatures"][0]["sig"]).hex(),
        "manifest digest": Digest.of(envelope).text,
    }


def block(values: dict[str, str]) -> str:
    """As the page has it: ``name = value``, long values going on in lines that begin with blanks."""
    lines = []
    for name, value in values.items():
        first, *more = textwrap.wrap(value, 96, break_on_hyphens=False)
        lines += [f"{name} = {first}", *(f"    {line}" for line in more)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(block(facts()))
