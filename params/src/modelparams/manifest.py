"""The manifest: the one signed document that pins every byte of a version. FORMAT.md §manifest has the layout.

An in-toto Statement v1 in a DSSE envelope. `manifestDigest` of a version is the SHA-256 of the envelope's bytes, so it
pins the signatures too. Tensor names are not in it: they are in the sealed index.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer
from securesystemslib.dsse import Envelope

# Public by its documentation, though its __init__ re-exports without saying so.
from securesystemslib.signer import Signature, Signer  # type: ignore[attr-defined]

from modelparams.api.base import WireDigest, WireModelName, WireVersion
from modelparams.digest import Digest
from modelparams.errors import (
    Expired,
    InvalidName,
    InvalidVersion,
    ManifestDigestMismatch,
    ManifestInvalid,
    SealBroken,
    SequenceTooLow,
    UsageError,
    WrongModel,
    WrongVersion,
)
from modelparams.floe import FORMAT_1M, params_of, plain_size
from modelparams.keys import EpochId, Uid
from modelparams.names import ModelName, Version
from modelparams.strictjson import MAX_SAFE_INTEGER, Hex32, Hex40, Record
from modelparams.trust import TrustPolicy

PREDICATE_TYPE: Final = "https://modelparams.dev/param-release/v1"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

PAYLOAD_LIMIT = 4 << 20
"""Bytes of a statement."""
MANIFEST_LIMIT = 6 << 20
"""Bytes of an envelope: the statement in base64, and its signatures. Readers ask the store for no more."""
STATEMENT_PARTS = 150_000
"""Values of the largest statement that is ever written; asked of one that nobody has verified yet."""
ENVELOPE_PARTS = 1000
"""Commas, colons and brackets of an envelope: a few for each of its 64 signatures at most. Base64 has none."""
BLOB_PLAIN_LIMIT = 1 << 30
"""Bytes of a blob's plaintext: it hashes and fetches in parallel with others, far below every limit of AES-GCM."""
BLOBS_LIMIT = 7_000
"""As many as a statement has room for."""
EPOCHS_LIMIT = 16

_Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def _in_one_spelling(value: object) -> object:
    """Pydantic takes ten spellings of a time, and digits alone; readers in other languages take others."""
    if not isinstance(value, str):
        return value
    if not _TIME.fullmatch(value):
        raise ValueError("a time is written as 2030-01-31T00:00:00Z")
    return datetime.fromisoformat(value)


def spelled(time: datetime) -> str:
    """A time as a manifest has it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_Time = Annotated[AwareDatetime, BeforeValidator(_in_one_spelling), PlainSerializer(spelled, return_type=str)]


class BlobEntry(Record):
    """One sealed blob; sizes in bytes."""

    sha256: Hex32
    """Of the sealed bytes: what the operator checks, and the blob's name in the store."""
    blake3: Hex32
    """Of the sealed bytes: what the pod checks, while it opens them."""
    size: _Count
    pt_size: int = Field(ge=0, le=BLOB_PLAIN_LIMIT)
    format: str = Field(default=FORMAT_1M, max_length=63)
    epoch: EpochId
    wrapped_key: Hex40
    content_id: Hex32

    @property
    def digest(self) -> Digest:
        """Of the sealed bytes."""
        return Digest.from_hex(self.sha256)

    @property
    def object_key(self) -> str:
        """Where it is in the store."""
        return f"blobs/sha256/{self.sha256}"


class Epoch(Record):
    """A model key in use and the commitment to it."""

    id: EpochId
    commit: Hex32


class ModelId(Record):
    """`uid` is what keys are bound to; `name` is what people write."""

    uid: Uid
    name: WireModelName


class Manifest(Record):
    """What a version is. The predicate of the statement.

    Blobs with tensors come first, then the index, then the assets; `index` and `assets` are their positions.
    """

    model: ModelId
    version: WireVersion
    sequence: int = Field(ge=1, le=MAX_SAFE_INTEGER)
    """Higher than that of any version of the model that was there when it was published, whatever their numbers."""
    previous: WireDigest | None = None
    """The manifest digest of the highest sequence that the publisher saw; for audits, no reader follows it."""
    floor: _Count = 0
    """The publisher's word that nothing below this sequence may be served any more."""
    created_at: _Time
    not_after: _Time | None = None
    schema_digest: WireDigest
    """Over names, dtypes and shapes (`index.schema_digest`): a hot swap needs an equal one."""
    epochs: tuple[Epoch, ...] = Field(min_length=1, max_length=EPOCHS_LIMIT)
    index: _Count
    assets: _Count
    blobs: tuple[BlobEntry, ...] = Field(min_length=2, max_length=BLOBS_LIMIT)

    @property
    def tensor_blobs(self) -> tuple[BlobEntry, ...]:
        """The blobs that hold tensors, in the order of the arena."""
        return self.blobs[: self.index]

    @property
    def size_bytes(self) -> int:
        """Sealed bytes of all blobs."""
        return sum(blob.size for blob in self.blobs)


class _Subject(Record):
    name: str
    digest: dict[Literal["sha256"], Hex32]


class _Statement(Record):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT_TYPE, alias="_type")
    subject: tuple[_Subject, ...] = Field(max_length=BLOBS_LIMIT)
    predicate_type: Literal["https://modelparams.dev/param-release/v1"] = PREDICATE_TYPE
    predicate: Manifest


class _Signature(Record):
    keyid: Hex32
    sig: str = Field(max_length=16 << 10)


class _Envelope(Record):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...] = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a reader asked for; `version` None and `min_sequence` 0 take any."""

    model: ModelName
    _: KW_ONLY
    version: Version | None = None
    min_sequence: int = 0
    now: datetime


_BY_VERIFY = object()


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """A manifest whose digest, signatures, schema and meaning were checked. Only `verify_manifest` makes one."""

    manifest: Manifest
    digest: Digest
    signers: tuple[str, ...]
    """Ids of the trusted keys that signed."""
    _made_by: object = None

    def __post_init__(self) -> None:
        if self._made_by is not _BY_VERIFY:
            raise TypeError("only verify_manifest makes a VerifiedManifest")


def sign(manifest: Manifest, signers: Sequence[Signer]) -> bytes:
    """The envelope to store; its SHA-256 is the version's manifest digest.

    Raises:
        ManifestInvalid: no reader would accept the manifest.
        UsageError: nobody signs, or one key twice.
    """
    if not signers or len({signer.public_key.keyid for signer in signers}) != len(signers):
        raise UsageError("a manifest needs signatures by different keys", hint="give one --sign for each key")
    check_meaning(manifest)
    payload = _Statement(subject=_subjects(manifest), predicate=manifest).to_json()
    if len(payload) > PAYLOAD_LIMIT:
        raise ManifestInvalid(f"a statement of {len(payload)} bytes is more than the {PAYLOAD_LIMIT} allowed")
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    signatures = tuple(_signature(envelope.sign(signer)) for signer in signers)
    text = base64.b64encode(payload).decode()
    return _Envelope(payload=text, payload_type=PAYLOAD_TYPE, signatures=signatures).to_json()


def verify_manifest(envelope: bytes, *, pinned: Digest, trust: TrustPolicy, expect: Expectation) -> VerifiedManifest:
    """Take a manifest from a store that nobody trusts.

    In this order, so that no byte is parsed that was not pinned and no statement that was not signed:
    1. the bytes hash to `pinned`; 2. enough trusted keys signed; 3. the statement follows the schema;
    4. it does not contradict itself; 5. it is what was asked for.

    Raises:
        ManifestDigestMismatch, SignerUnknown, SignatureInvalid, TooFewSignatures, ManifestInvalid,
        FormatUnsupported, WrongModel, WrongVersion, SequenceTooLow, Expired.
    """
    if len(envelope) > MANIFEST_LIMIT:
        raise ManifestInvalid(f"a manifest of {len(envelope)} bytes is more than the {MANIFEST_LIMIT} allowed")
    found = Digest.of(envelope)
    if not found.matches(pinned):
        raise ManifestDigestMismatch(f"the manifest hashes to {found}, not to the pinned {pinned}")
    parsed = _open_envelope(envelope)
    signers = trust.check(parsed)
    manifest = _parse_statement(parsed.payload)
    check_meaning(manifest)
    _check_expected(manifest, expect)
    return VerifiedManifest(manifest, found, signers, _BY_VERIFY)


def check_meaning(manifest: Manifest) -> None:
    """Refuse a manifest that contradicts itself.

    Raises:
        ManifestInvalid: with the first contradiction.
        FormatUnsupported: a blob's format is not on our list.
    """
    count, known = len(manifest.blobs), {epoch.id for epoch in manifest.epochs}
    _require((manifest.index, manifest.assets) == (count - 2, count - 1), "index and assets are not its last two blobs")
    _require(manifest.blobs[manifest.index].pt_size > 0, "its index is empty")
    _require(manifest.floor <= manifest.sequence, "its floor is above its own sequence")
    _require(len(known) == len(manifest.epochs), "an epoch is given twice")
    _require("id" not in known, "an epoch is named id")
    twins: dict[str, BlobEntry] = {}
    for position, blob in enumerate(manifest.blobs):
        _require(blob.epoch in known, f"blob {position} is of an epoch that is not listed")
        _require(twins.setdefault(blob.sha256, blob) == blob, f"blob {position} is listed before with other facts")
        _require(_fits(blob), f"blob {position} cannot be {blob.size} bytes sealed and {blob.pt_size} opened")


def _fits(blob: BlobEntry) -> bool:
    params = params_of(blob.format)
    try:
        return plain_size(blob.size, params) == blob.pt_size
    except SealBroken:
        return False


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ManifestInvalid(f"the manifest contradicts itself: {otherwise}")


def _subjects(manifest: Manifest) -> tuple[_Subject, ...]:
    """Each different blob once, in order of first appearance: what generic in-toto tools check."""
    distinct = {blob.sha256: blob.object_key for blob in manifest.blobs}
    return tuple(_Subject(name=key, digest={"sha256": sha256}) for sha256, key in distinct.items())


def _signature(signature: Signature) -> _Signature:
    return _Signature(keyid=signature.keyid, sig=base64.b64encode(bytes.fromhex(signature.signature)).decode())


def _open_envelope(data: bytes) -> Envelope:
    try:
        raw = _Envelope.from_json(data, limit=MANIFEST_LIMIT, most=ENVELOPE_PARTS)
        payload = _decode(raw.payload)
        signatures = {s.keyid: Signature(s.keyid, _decode(s.sig).hex()) for s in raw.signatures}
    except ValueError as error:
        raise ManifestInvalid(f"the manifest is no DSSE envelope: {error}") from None
    if raw.payload_type != PAYLOAD_TYPE:
        raise ManifestInvalid(f"the manifest's envelope holds {raw.payload_type[:80]!r}, not {PAYLOAD_TYPE}")
    if len(signatures) != len(raw.signatures):
        raise ManifestInvalid("the manifest's envelope holds two signatures by one key")
    return Envelope(payload, PAYLOAD_TYPE, signatures)


def _decode(text: str) -> bytes:
    """Base64 in its one canonical spelling: Python's decoder alone takes others, with unused bits set."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("bad base64") from None
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 in another spelling")
    return data


def _parse_statement(payload: bytes) -> Manifest:
    try:
        statement = _Statement.from_json(payload, limit=PAYLOAD_LIMIT)
    except (ValueError, InvalidName, InvalidVersion) as error:
        message = error.message if isinstance(error, UsageError) else str(error)
        raise ManifestInvalid(f"the manifest's statement is not as specified: {message}") from None
    _require(statement.subject == _subjects(statement.predicate), "its subjects are not its blobs")
    return statement.predicate


def _check_expected(manifest: Manifest, expect: Expectation) -> None:
    name, version = manifest.model.name, manifest.version
    if name != expect.model:
        raise WrongModel(f"the manifest is for model {name}, not {expect.model}")
    if expect.version is not None and version != expect.version:
        raise WrongVersion(f"the manifest is for {name} {version}, not {expect.version}")
    if manifest.sequence < expect.min_sequence:
        raise SequenceTooLow(
            f"{name} {version} has sequence {manifest.sequence}; the least allowed is {expect.min_sequence}"
        )
    if manifest.not_after is not None and expect.now > manifest.not_after:
        raise Expired(f"{name} {version} was to be served until {spelled(manifest.not_after)}")
