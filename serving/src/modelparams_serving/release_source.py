"""Where a program's versions come from: what a version or digest names in a store, held to its keys and trust."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from modelparams.digest import Digest
from modelparams.errors import InvalidVersion, ObjectMissing, UsageError
from modelparams.keys import KeyProvider, LocalKeyProvider
from modelparams.manifest import Expectation
from modelparams.names import ModelName, Version
from modelparams.pointers import read_pointer, resolve
from modelparams.pull import SealedRelease, open_release
from modelparams.store import ObjectStore, open_store, require_directory
from modelparams.trust import TrustPolicy
from modelparams.verify import claimed_model


class ReleaseSource:
    """A store, with a key to open and a policy of whom to trust. The arguments are `ParamLoader`'s."""

    def __init__(
        self,
        source: str | Path | ObjectStore,
        keys: str | Path | KeyProvider,
        *,
        trust: str | Path | TrustPolicy | None,
        key_ref: str | None,
    ) -> None:
        self._store = open_store(source) if isinstance(source, str | Path) else source
        self._keys, self._key_ref = _provider(keys, key_ref)
        self._trust = _policy(trust)

    def open(self, version: str | Version | Digest, model: ModelName | None) -> SealedRelease:
        """Find a version and verify its manifest. Errors as `read_pointer` and `open_release`.

        Args:
            version: a semantic version, or the digest of a manifest.
            model: the model's name; None = whichever it claims to be of.

        Raises:
            InvalidVersion: it is neither a version nor a digest.
        """
        try:
            return self._opened(version, model)
        except ObjectMissing:
            require_directory(self._store, hint="give the loader another source, or publish there; call update again")
            raise

    def _opened(self, version: str | Version | Digest, model: ModelName | None) -> SealedRelease:
        wanted, digest = self._resolve(version)
        expect = Expectation(model or claimed_model(self._store, digest), version=wanted, now=datetime.now(UTC))
        return open_release(
            self._store, digest, trust=self._trust, expect=expect, keys=self._keys, key_ref=self._key_ref
        )

    def _resolve(self, version: str | Version | Digest) -> tuple[Version | None, Digest]:
        if isinstance(version, Digest):
            return None, version
        if isinstance(version, str) and version.startswith("sha256:"):
            return None, resolve(self._store, version)
        if not isinstance(version, str | Version):
            raise InvalidVersion(f"{version!r} is no semantic version")
        wanted = version if isinstance(version, Version) else Version.from_directory(version)
        return wanted, read_pointer(self._store, wanted).digest


def _provider(keys: str | Path | KeyProvider, key_ref: str | None) -> tuple[KeyProvider, str]:
    if not isinstance(keys, str | Path):
        if key_ref is None:
            raise UsageError("a key provider needs the name of the key", hint="give key_ref")
        return keys, key_ref
    directory = Path(keys)
    return LocalKeyProvider(directory), key_ref or _only_key(directory)


def _only_key(directory: Path) -> str:
    where = "give the directory that holds the key"
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}", hint=where)
    names = [path.name for path in directory.iterdir() if not path.name.startswith(".")]
    if not names:
        raise UsageError(f"{directory} holds no key", hint=where)
    if len(names) > 1:
        raise UsageError(f"{directory} holds {len(names)} keys", hint="give key_ref, the name of the one to use")
    return names[0]


def _policy(trust: str | Path | TrustPolicy | None) -> TrustPolicy:
    if isinstance(trust, TrustPolicy):
        return trust
    path = trust or os.environ.get("MODELPARAMS_TRUST")
    if not path:
        raise UsageError("nobody is trusted", hint="give trust, a policy's file, or set MODELPARAMS_TRUST to its path")
    return TrustPolicy.load(Path(path))
