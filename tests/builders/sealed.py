"""A sealed, signed version in memory. A test names only what it is about."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from blake3 import blake3

from modelparams.digest import Digest
from modelparams.floe import FLOE_1M, Sealer, segments
from modelparams.grouping import BlobPlan, places, plan_blobs
from modelparams.index import AssetEntry, TensorEntry, TensorIndex, schema_digest, tensors_digest
from modelparams.keys import ContentKind, ModelKeys, blob_context, commit, content_id, wrap_dek
from modelparams.manifest import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    BlobEntry,
    Epoch,
    Expectation,
    Manifest,
    ModelId,
    VerifiedManifest,
    sign,
    verify_manifest,
)
from modelparams.names import ModelName, Version
from modelparams.secret import Secret32
from modelparams.strictjson import dumps
from modelparams.tensors import TensorSpec
from modelparams.trust import SigningKey, TrustPolicy

UID = "0f0e0d0c-0b0a-4908-8706-050403020100"
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
MODEL, VERSION = ModelName("tiny"), Version("1.0.0")

Tensors = Mapping[str, tuple[TensorSpec, bytes]]


def bf16(*shape: int, fill: int = 0x3F80) -> tuple[TensorSpec, bytes]:
    """A bf16 tensor of one repeated bit pattern; 0x3F80 is 1.0."""
    spec = TensorSpec("BF16", shape)
    return spec, struct.pack("<H", fill) * (spec.size // 2)


TENSORS: Tensors = {
    "model.embed_tokens.weight": bf16(16, 8),
    "model.layers.0.mlp.weight": bf16(8, 8, fill=0x4000),
    "model.layers.1.mlp.weight": bf16(8, 8, fill=0x4040),
    "model.norm.weight": (TensorSpec("F32", (8,)), struct.pack("<8f", *range(8))),
}
ASSETS = {"config.json": b'{"model_type": "tiny"}', "tokenizer.json": b"{}"}


def model_keys() -> ModelKeys:
    """Keys that differ in each run."""
    return ModelKeys(UID, Secret32.random(), {"e1": Secret32.random()})


@dataclass(frozen=True)
class Plaintexts:
    """What is sealed: blobs with tensors, then the index, then the assets."""

    index: TensorIndex
    parts: tuple[tuple[ContentKind, bytes], ...]


def plaintexts(tensors: Tensors = TENSORS, assets: Mapping[str, bytes] = ASSETS, salt: bytes = bytes(32)) -> Plaintexts:
    """Lay a version out."""
    plans = plan_blobs({name: spec.size for name, (spec, _) in tensors.items()})
    index = _index(tensors, assets, salt, plans)
    filled = tuple((ContentKind.TENSORS, _fill(plan, tensors)) for plan in plans)
    packed = b"".join(assets[name] for name in sorted(assets))
    return Plaintexts(index, (*filled, (ContentKind.INDEX, index.to_json()), (ContentKind.ASSETS, packed)))


def _index(tensors: Tensors, assets: Mapping[str, bytes], salt: bytes, plans: tuple[BlobPlan, ...]) -> TensorIndex:
    at = places(plans)
    entries = tuple(
        TensorEntry(name=name, dtype=spec.dtype, shape=spec.shape, blob=at[name][0], offset=at[name][1], size=spec.size)
        for name, (spec, _) in sorted(tensors.items())
    )
    files, end = [], 0
    for name in sorted(assets):
        files.append(AssetEntry(name=name, offset=end, size=len(assets[name])))
        end += len(assets[name])
    digest = tensors_digest(salt, ((name, spec, data) for name, (spec, data) in sorted(tensors.items())))
    sizes = tuple(plan.size for plan in plans)
    return TensorIndex(salt=salt.hex(), tensors_digest=digest, blob_sizes=sizes, tensors=entries, assets=tuple(files))


def _fill(plan: BlobPlan, tensors: Tensors) -> bytes:
    plain = bytearray(plan.size)
    for part in plan.parts:
        piece = tensors[part.name][1][part.tensor_offset : part.tensor_offset + part.size]
        plain[part.blob_offset : part.blob_offset + part.size] = piece
    return bytes(plain)


def sealed_blob(plain: bytes, sealer: Sealer) -> bytes:
    """A blob of 1 MiB segments."""
    pieces = [sealer.header]
    for segment in segments(len(plain), FLOE_1M):
        piece = plain[segment.plain_offset : segment.plain_offset + segment.plain_size]
        pieces.append(sealer.seal_segment(piece, segment.position, segment.is_final))
    return b"".join(pieces)


def blob(keys: ModelKeys, kind: ContentKind, plain: bytes, epoch: str = "e1") -> tuple[BlobEntry, bytes]:
    """Seal one blob and describe it."""
    data_key, identity = Secret32.random(), content_id(keys.content_id_key, kind, plain)
    sealed = sealed_blob(plain, Sealer(data_key, blob_context(keys.uid, identity)))
    return describe(sealed, len(plain), wrap_dek(keys.epochs[epoch], data_key), identity, epoch), sealed


def describe(sealed: bytes, plain_size: int, wrapped: bytes, identity: bytes, epoch: str = "e1") -> BlobEntry:
    """A blob's entry in the manifest."""
    return BlobEntry(
        sha256=hashlib.sha256(sealed).hexdigest(),
        blake3=blake3(sealed).hexdigest(),
        size=len(sealed),
        pt_size=plain_size,
        epoch=epoch,
        wrapped_key=wrapped.hex(),
        content_id=identity.hex(),
    )


@dataclass(frozen=True)
class Built:
    """A version and everything that a reader needs for it."""

    manifest: Manifest
    sealed: tuple[bytes, ...]
    keys: ModelKeys
    index: TensorIndex
    signers: tuple[SigningKey, ...] = field(default_factory=lambda: (SigningKey.generate(),))
    threshold: int = 1

    @property
    def trust(self) -> TrustPolicy:
        """All its signers, and its threshold of them."""
        return TrustPolicy.of(*self.signers, threshold=self.threshold)

    @property
    def envelope(self) -> bytes:
        """The signed manifest."""
        return sign(self.manifest, self.signers)

    def with_manifest(self, **changes: Any) -> Built:
        """The same with other facts in its manifest."""
        return replace(self, manifest=self.manifest.model_copy(update=changes))

    def with_blob(self, position: int, **changes: Any) -> Built:
        """The same with other facts of one blob."""
        blobs = list(self.manifest.blobs)
        blobs[position] = blobs[position].model_copy(update=changes)
        return self.with_manifest(blobs=tuple(blobs))


def built(keys: ModelKeys | None = None, signers: Sequence[SigningKey] = (), threshold: int = 1, **facts: Any) -> Built:
    """A tiny version; `facts` are fields of its manifest."""
    keys, plain = keys or model_keys(), plaintexts()
    pairs = [blob(keys, kind, data) for kind, data in plain.parts]
    commitment = commit(keys.epochs["e1"], keys.uid, "e1").hex()
    values: dict[str, Any] = {
        "model": ModelId(uid=keys.uid, name=MODEL),
        "version": VERSION,
        "sequence": 7,
        "created_at": NOW,
        "schema_digest": schema_digest(plain.index.specs),
        "epochs": (Epoch(id="e1", commit=commitment),),
        "index": len(pairs) - 2,
        "assets": len(pairs) - 1,
        "blobs": tuple(entry for entry, _ in pairs),
    } | facts
    some = tuple(signers) or (SigningKey.generate(),)
    return Built(Manifest(**values), tuple(sealed for _, sealed in pairs), keys, plain.index, some, threshold)


def statement_of(manifest: Manifest) -> bytes:
    """The statement that `sign` would write, also where it would refuse."""
    subjects = {blob.sha256: {"name": blob.object_key, "digest": {"sha256": blob.sha256}} for blob in manifest.blobs}
    return dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": list(subjects.values()),
            "predicateType": PREDICATE_TYPE,
            "predicate": json.loads(manifest.to_json()),
        }
    )


def envelope_of(payload: bytes, *signers: SigningKey, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Sign any bytes, as a publisher with its own ideas would."""
    pae = b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)
    signatures = [
        {"keyid": s.key_id, "sig": base64.b64encode(bytes.fromhex(s.sign(pae).signature)).decode()} for s in signers
    ]
    return dumps({"payload": base64.b64encode(payload).decode(), "payloadType": payload_type, "signatures": signatures})


def verified(release: Built, envelope: bytes | None = None, **expect: Any) -> VerifiedManifest:
    """Verify as a pod would that was told the digest of just these bytes."""
    data = release.envelope if envelope is None else envelope
    wanted = {"version": None, "now": NOW} | expect
    model = wanted.pop("model", MODEL)
    return verify_manifest(data, pinned=Digest.of(data), trust=release.trust, expect=Expectation(model, **wanted))
