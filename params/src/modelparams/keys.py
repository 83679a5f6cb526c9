"""The key hierarchy. FORMAT.md §keys has the bytes.

    KEK   key-encryption key: 32 bytes, never in the store; a KeyProvider holds it
     ├── IDK   content-id key, one a model: names equal plaintexts, opens nothing
     └── MK    model key, one a model and epoch; the signed manifest commits to it
          └── DEK   data-encryption key, one a blob: its FLOE key

A KEK is rotated by rewriting one small object an epoch; no blob, manifest or signature changes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from pydantic import Field, StringConstraints

from modelparams.errors import KeyMismatch, KeyUnavailable
from modelparams.framing import length_prefixed
from modelparams.secret import SECRET_SIZE, Secret32
from modelparams.strictjson import Hex40, Record

WRAPPED_SIZE = 40
KEY_OBJECT_LIMIT = 64 << 10
"""Bytes of a key object that are read at most."""

_KEY_REF = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")  # a Secret's name; never a path


class Purpose(StrEnum):
    """What a wrapped key is for; it goes into the wrap, so that one cannot stand in for the other."""

    MODEL_KEY = "model-key"
    CONTENT_ID_KEY = "content-id-key"


class ContentKind(StrEnum):
    """What a blob holds; equal bytes of two kinds have two content ids."""

    TENSORS = "tensors"
    INDEX = "index"
    ASSETS = "assets"


def derive(key: Secret32, purpose: str, *context: bytes | str) -> bytes:
    """32 bytes of HKDF-Expand-SHA-384 (RFC 5869) for one purpose and context."""
    return HKDFExpand(SHA384(), 32, length_prefixed(purpose, *context)).derive(key.expose())


def commit(model_key: Secret32, model_uid: str, epoch: str) -> bytes:
    """The 32 bytes that a manifest says of a model key: they fix it and tell nothing about it."""
    return derive(model_key, "mpv/mk-commit/v1", model_uid, epoch)


def wrap_dek(model_key: Secret32, data_key: Secret32) -> bytes:
    """40 bytes: AES key wrap (RFC 3394, no nonce to get wrong) under a key that is derived for this alone."""
    return aes_key_wrap(derive(model_key, "mpv/dek-wrap/v1"), data_key.expose())


def unwrap_dek(model_key: Secret32, wrapped: bytes) -> Secret32:
    """The blob's key.

    Raises:
        KeyMismatch: wrapped under another model key, or changed.
    """
    return _unwrap(derive(model_key, "mpv/dek-wrap/v1"), wrapped, "a blob's data key")


def blob_context(model_uid: str, content_id: bytes) -> bytes:
    """FLOE's associated data of a blob: not the version, so that versions can share it."""
    return length_prefixed("mpv/blob/v1", model_uid, content_id)


def content_hasher(content_id_key: Secret32, kind: ContentKind) -> blake3:
    """Feed it a blob's whole plaintext; its digest is the blob's content id (keyed BLAKE3, 32 bytes)."""
    return blake3(length_prefixed("mpv/content-id/v1", kind.value), key=content_id_key.expose())


def content_id(content_id_key: Secret32, kind: ContentKind, plain: bytes | memoryview) -> bytes:
    """What equal plaintexts of one model have in common. Only a holder of the key can test a guess."""
    return content_hasher(content_id_key, kind).update(plain).digest()


def _unwrap(wrapping_key: bytes, wrapped: bytes, what: str) -> Secret32:
    if len(wrapped) != WRAPPED_SIZE:
        raise KeyMismatch(f"{what} is wrapped in {len(wrapped)} bytes, not {WRAPPED_SIZE}")
    try:
        return Secret32(aes_key_unwrap(wrapping_key, wrapped))
    except InvalidUnwrap:
        raise KeyMismatch(f"{what} was wrapped under another key or for another place, or was changed") from None


@dataclass(frozen=True, slots=True)
class KeyContext:
    """Which key a wrap holds. Providers bind it: a wrap that is moved to another place does not open."""

    model_uid: str
    purpose: Purpose
    epoch: str = ""

    @classmethod
    def of_model_key(cls, model_uid: str, epoch: str) -> KeyContext:
        """The model key of one epoch."""
        return cls(model_uid, Purpose.MODEL_KEY, epoch)

    @classmethod
    def of_content_id_key(cls, model_uid: str) -> KeyContext:
        """The content-id key."""
        return cls(model_uid, Purpose.CONTENT_ID_KEY)

    @property
    def object_key(self) -> str:
        """Where its key object is in the store."""
        return "keys/id.json" if self.purpose is Purpose.CONTENT_ID_KEY else f"keys/{self.epoch}.json"

    def __str__(self) -> str:
        return f"{self.object_key} of model {self.model_uid}"


class Wrapped(Record):
    """One wrap of a key: by which kind of provider, under which KEK (a public fingerprint), the bytes."""

    provider: str = Field(max_length=63)
    key_id: str = Field(max_length=255)
    wrapped: Hex40


class KeyProvider(Protocol):
    """Holds key-encryption keys; `key_ref` is the name in `encryption.keyRef`."""

    @property
    def kind(self) -> str:
        """What `Wrapped.provider` says, such as ``local``."""
        ...

    def wrap(self, key_ref: str, secret: Secret32, context: KeyContext) -> Wrapped:
        """Wrap `secret` for `context`. Raises KeyUnavailable."""
        ...

    def unwrap(self, key_ref: str, wraps: Sequence[Wrapped], context: KeyContext) -> Secret32:
        """Open the one of `wraps` that is for this provider's key. Raises KeyUnavailable, KeyMismatch."""
        ...


@dataclass(frozen=True, slots=True)
class LocalKeyProvider:
    """Keys as files: ``<directory>/<keyRef>``, or ``<directory>/<keyRef>/key`` as a mounted Secret is.

    A file has 32 raw bytes or their base64. It is read at each call, so a rotated Secret needs no restart.
    """

    directory: Path
    kind: str = "local"

    def wrap(self, key_ref: str, secret: Secret32, context: KeyContext) -> Wrapped:
        """AES key wrap under a key that is derived from the KEK for the context."""
        kek = self._load(key_ref)
        wrapped = aes_key_wrap(self._wrapping_key(kek, context), secret.expose())
        return Wrapped(provider=self.kind, key_id=self._key_id(kek), wrapped=wrapped.hex())

    def unwrap(self, key_ref: str, wraps: Sequence[Wrapped], context: KeyContext) -> Secret32:
        """Open the wrap that was made under the key of that name."""
        kek = self._load(key_ref)
        mine = [wrap for wrap in wraps if (wrap.provider, wrap.key_id) == (self.kind, self._key_id(kek))]
        if not mine:
            raise KeyUnavailable(f"key {key_ref!r} is mounted here, but {context} is wrapped under other keys")
        return _unwrap(self._wrapping_key(kek, context), bytes.fromhex(mine[0].wrapped), str(context))

    @staticmethod
    def _wrapping_key(kek: Secret32, context: KeyContext) -> bytes:
        return derive(kek, "mpv/kek-wrap/v1", context.model_uid, context.purpose, context.epoch)

    @staticmethod
    def _key_id(kek: Secret32) -> str:
        return derive(kek, "mpv/kek-id/v1")[:16].hex()

    def _load(self, key_ref: str) -> Secret32:
        if not _KEY_REF.fullmatch(key_ref):
            raise KeyUnavailable(f"{key_ref[:80]!r} is no name of a key")
        path = self.directory / key_ref
        try:
            return parse_kek((path / "key" if path.is_dir() else path).read_bytes())
        except OSError as error:
            raise KeyUnavailable(f"key {key_ref!r} cannot be read: {path} ({error.strerror})") from None
        except ValueError as error:
            raise KeyUnavailable(f"key {key_ref!r} is no key: {error}") from None


def parse_kek(data: bytes) -> Secret32:
    """32 raw bytes, or their base64 with or without a newline.

    Raises:
        ValueError: something else, or 32 bytes of text: hex of 128 bits, or base64 of 192.
    """
    if len(data) == SECRET_SIZE:
        # 32 random bytes are all printable with a probability of (95/256)**32, about 2e-14.
        if all(0x20 <= byte < 0x7F for byte in data):
            raise ValueError("32 characters of text are no 256-bit key: give 32 random bytes, or their base64")
        return Secret32(data)
    try:
        return Secret32(base64.b64decode(data.strip(), validate=True))
    except binascii.Error:
        raise ValueError("neither 32 raw bytes nor base64") from None


Uid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z")]
"""A model's UUID, made at its first publish and never again."""
EpochId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,30}\z")]
"""Such as ``e1``; never ``id``, whose object holds the content-id key."""


class KeyObject(Record):
    """``keys/id.json`` or ``keys/<epoch>.json`` in the store: one wrap for each key-encryption key.

    It is not signed. What it can be replaced by is caught by the context in the wrap and,
    for model keys, by the commitment in the signed manifest.
    """

    model_uid: Uid
    purpose: Purpose
    epoch: EpochId | None = None
    wraps: tuple[Wrapped, ...] = Field(min_length=1, max_length=64)


def write_key_object(secret: Secret32, context: KeyContext, provider: KeyProvider, key_refs: Sequence[str]) -> bytes:
    """The object that holds `secret`, wrapped under each of `key_refs`."""
    wraps = tuple(provider.wrap(key_ref, secret, context) for key_ref in key_refs)
    return KeyObject(
        model_uid=context.model_uid, purpose=context.purpose, epoch=context.epoch or None, wraps=wraps
    ).to_json()


def parse_key_object(data: bytes, name: str) -> KeyObject:
    """Read a key object; `name` is what messages call it.

    Raises:
        KeyMismatch: it is none.
    """
    try:
        return KeyObject.from_json(data, limit=KEY_OBJECT_LIMIT)
    except ValueError as error:
        raise KeyMismatch(f"{name} is no key object: {error}") from None


def open_key_object(data: bytes, context: KeyContext, provider: KeyProvider, key_ref: str) -> Secret32:
    """The key in the object at `context.object_key`.

    Raises:
        KeyUnavailable: the provider does not hold the key-encryption key.
        KeyMismatch: the object is for another model, purpose or epoch, or was changed.
    """
    found = parse_key_object(data, str(context))
    if (found.model_uid, found.purpose, found.epoch or "") != (context.model_uid, context.purpose, context.epoch):
        raise KeyMismatch(f"the store's {context.object_key} holds another key than {context}")
    return provider.unwrap(key_ref, found.wraps, context)


@dataclass(frozen=True, slots=True)
class ModelKeys:
    """A model's keys, opened: its content-id key and the model key of each epoch in use."""

    uid: str
    content_id_key: Secret32
    epochs: Mapping[str, Secret32]


def check_commitment(model_key: Secret32, model_uid: str, epoch: str, signed: bytes) -> None:
    """Refuse a model key that is not the one the manifest's signers meant.

    This closes the swap of a wrapped key together with blobs that open under two keys (CVE-2025-14760, -14762).

    Raises:
        KeyMismatch: it is another.
    """
    if not hmac.compare_digest(commit(model_key, model_uid, epoch), signed):
        raise KeyMismatch(f"the model key of epoch {epoch} is not the one that the signed manifest commits to")
