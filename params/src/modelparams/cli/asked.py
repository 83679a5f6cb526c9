"""What a command line asks of a store: one release, found and opened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from modelparams.digest import Digest
from modelparams.errors import UsageError
from modelparams.keys import LocalKeyProvider
from modelparams.manifest import Expectation, VerifiedManifest
from modelparams.names import ModelName, Version
from modelparams.pointers import resolve
from modelparams.sealed import SealedRelease, open_release
from modelparams.store import ObjectStore, existing_store
from modelparams.trust import TrustPolicy
from modelparams.verify import claimed_model, fetch_manifest


@dataclass(frozen=True, slots=True)
class Asked:
    """One release of a store, as it was asked for."""

    store: ObjectStore
    digest: Digest
    trust: TrustPolicy
    expect: Expectation

    @classmethod
    def of(cls, store_url: str, release: str, trust: Path, model: str) -> Asked:
        """Read the options.

        Raises:
            UsageError, StoreError.
        """
        store, policy = existing_store(store_url), TrustPolicy.load(trust)
        digest = resolve(store, release)
        name = ModelName(model) if model else claimed_model(store, digest)
        version = None if release.startswith("sha256:") else Version.from_directory(release)
        return cls(store, digest, policy, Expectation(name, version=version, now=datetime.now(UTC)))

    def manifest(self) -> VerifiedManifest:
        """Fetch and verify its manifest."""
        return fetch_manifest(self.store, self.digest, trust=self.trust, expect=self.expect)

    def opened(self, keys: Path | None, key_ref: str) -> SealedRelease:
        """Verify its manifest and open its keys."""
        if keys is None:
            raise UsageError("opening a sealed version takes its key", hint="give --keys DIR")
        provider, ref = LocalKeyProvider(keys), key_ref or str(self.expect.model)
        return open_release(self.store, self.digest, trust=self.trust, expect=self.expect, keys=provider, key_ref=ref)
