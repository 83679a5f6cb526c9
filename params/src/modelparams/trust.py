"""Who may release parameters: a threshold of Ed25519 keys. Cluster configuration, never taken from the store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError

# Public by its documentation, though its __init__ re-exports without saying so.
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from modelparams.errors import SignatureInvalid, SignerUnknown, TooFewSignatures, UsageError
from modelparams.strictjson import Hex32, Record, dumps
from modelparams.whole_files import write_key_file
from modelparams.wording import counted

TRUST_LIMIT = 256 << 10
"""Bytes of a trust policy that are read at most."""


def key_id(public: bytes) -> str:
    """What signatures and policies call a key: the SHA-256 of its 32 raw public bytes, in hex."""
    return hashlib.sha256(public).hexdigest()


def _public_key(public: bytes) -> SSlibKey:
    return SSlibKey(key_id(public), "ed25519", "ed25519", {"public": public.hex()})


class SigningKey(CryptoSigner):
    """An Ed25519 key in a PEM file (PKCS #8, unencrypted, mode 0600). Any other `Signer` signs too, such as a KMS's."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        super().__init__(private, _public_key(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)))

    @classmethod
    def generate(cls) -> Self:
        """A fresh key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key that `save` wrote, or ``openssl genpkey -algorithm ed25519``.

        Raises:
            UsageError: no such file, or no Ed25519 key in it.
        """
        try:
            private = load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise UsageError(f"signing key {path} cannot be read ({error.strerror})", hint=_MAKE_KEY) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UsageError(f"{path} holds no unencrypted PEM key", hint=_MAKE_KEY) from None
        if not isinstance(private, Ed25519PrivateKey):
            raise UsageError(f"{path} holds another kind of key than Ed25519", hint=_MAKE_KEY)
        return cls(private)

    def save(self, path: Path) -> None:
        """Write the key for its owner alone; an existing file is never overwritten.

        Raises:
            UsageError: the file exists or cannot be written.
        """
        try:
            write_key_file(path, self.private_bytes)
        except OSError as error:
            raise UsageError(
                f"signing key {path} cannot be written ({error.strerror})", hint="name a new file"
            ) from None

    @property
    def key_id(self) -> str:
        """The key's name in signatures and policies."""
        return self.public_key.keyid

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        return bytes.fromhex(self.public_key.keyval["public"])

    def __repr__(self) -> str:
        return f"<signing key {self.key_id[:12]}>"


_MAKE_KEY = "make one with 'modelparams keys signer FILE'"


class _TrustFile(Record):
    threshold: int = Field(ge=1)
    keys: dict[Hex32, Hex32] = Field(min_length=1, max_length=1000)


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """`threshold` different keys must have signed. `keys`: key id → 32 raw public bytes.

    Raises:
        UsageError: the threshold cannot be met, or an id is not its key's hash.
    """

    threshold: int
    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.keys):
            raise UsageError(
                f"a threshold of {self.threshold} of {counted(len(self.keys), 'key')} cannot be", hint=_TRUST_FORM
            )
        for name, public in self.keys.items():
            if key_id(public) != name:
                raise UsageError(f"key id {name[:12]}… is not the SHA-256 of its public key", hint=_TRUST_FORM)
            try:
                Ed25519PublicKey.from_public_bytes(public)
            except ValueError:
                raise UsageError(f"key {name[:12]}… is no Ed25519 public key", hint=_TRUST_FORM) from None

    @classmethod
    def of(cls, *signers: SigningKey, threshold: int = 1) -> Self:
        """Trust the given keys."""
        return cls(threshold, {signer.key_id: signer.public for signer in signers})

    @classmethod
    def parse(cls, data: bytes, name: str = "the trust policy") -> Self:
        """Read ``{"threshold": 1, "keys": {"<key id>": "<public key in hex>"}}``.

        Raises:
            UsageError: it is none.
        """
        try:
            file = _TrustFile.from_json(data, limit=TRUST_LIMIT)
        except ValueError as error:
            raise UsageError(f"{name} cannot be used: {error}", hint=_TRUST_FORM) from None
        return cls(file.threshold, {name: bytes.fromhex(public) for name, public in file.keys.items()})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it from a file.

        Raises:
            UsageError: no such file, or it is no policy.
        """
        try:
            return cls.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise UsageError(f"trust policy {path} cannot be read ({error.strerror})", hint=_TRUST_FORM) from None

    def to_json(self) -> bytes:
        """The file's content."""
        return dumps({"threshold": self.threshold, "keys": {name: public.hex() for name, public in self.keys.items()}})

    def check(self, envelope: Envelope) -> tuple[str, ...]:
        """The ids of the trusted keys that signed, at least `threshold` of them.

        An envelope counts a key once: its signatures are a mapping by key id. Signatures of unknown
        keys are passed over, so that a new key can sign before every cluster trusts it.

        Raises:
            SignerUnknown: none is by a trusted key.
            SignatureInvalid: one of a trusted key does not verify, whatever the others say.
            TooFewSignatures: fewer than the threshold.
        """
        known, message = self._known(envelope.signatures), envelope.pae()
        for name in known:
            try:
                _public_key(self.keys[name]).verify_signature(envelope.signatures[name], message)
            except UnverifiedSignatureError as error:
                _raise_what_befell_us(error)
                raise SignatureInvalid(f"the signature of key {name[:12]}… does not verify") from None
        self._require_enough(known)
        return known

    def require(self, signers: Iterable[str]) -> None:
        """Refuse what these key ids would sign, before it is.

        Raises:
            SignerUnknown, TooFewSignatures: as `check` would.
        """
        self._require_enough(self._known(signers))

    def _known(self, signers: Iterable[str]) -> tuple[str, ...]:
        known = tuple(sorted((signed := set(signers)) & self.keys.keys()))
        if not known:
            raise SignerUnknown(f"the manifest is signed by {_named(signed)}, trusted: {_named(self.keys)}")
        return known

    def _require_enough(self, known: Sequence[str]) -> None:
        if len(known) < self.threshold:
            raise TooFewSignatures(
                f"the manifest is signed by {len(known)} of the {self.threshold} trusted keys that it needs"
            )


def _raise_what_befell_us(error: UnverifiedSignatureError) -> None:
    """The library calls whatever is raised meanwhile a failed verification, also a lack of memory or an interrupt.

    Of what a signature holds it is a ValueError at most.
    """
    cause = error.__cause__
    if isinstance(error, VerificationError) and cause is not None and not isinstance(cause, ValueError):
        raise cause


def _named(keys: Iterable[str]) -> str:
    """The ids as people compare them: their beginnings, of the first three."""
    ids = sorted(keys)
    shown = ", ".join(f"{name[:12]}…" for name in ids[:3])
    return f"{'key' if len(ids) == 1 else 'keys'} {shown}" + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


_TRUST_FORM = "write it with 'modelparams keys trust', or see params/FORMAT.md"
