"""Real sealed versions of the tiny sample model in a real S3 bucket, signed by a key that the operator trusts."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.s3 import Versitygw
from modelparams.api.release import S3Source, SecretReference
from modelparams.digest import Digest
from modelparams.keys import LocalKeyProvider
from modelparams.manifest import BlobEntry, Expectation, Manifest, verify_manifest
from modelparams.names import ModelName, Version
from modelparams.publish import Published, publish
from modelparams.store import Credentials, open_store
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.verify import manifest_key
from modelparams.version_object import manifest_object

SAMPLES = Path(__file__).parents[2] / "params" / "samples" / "params" / "tiny-llama"
KEY_REF, SECRET = "tiny-llama-kek", "modelparams-s3"


class Releases:
    """Publishes versions of model `tiny-llama` into a bucket."""

    model = "tiny-llama"

    def __init__(self, folder: Path, server: Versitygw, bucket: str, *, signatures: int = 1) -> None:
        self.server, self.bucket = server, bucket
        self.signers = [SigningKey.generate() for _ in range(signatures)]
        """All of them sign, and the operator asks for all."""
        self.policy = TrustPolicy.of(*self.signers, threshold=signatures)
        self.trust = folder / "trust.json"
        self.trust.write_bytes(self.policy.to_json())
        self._keys, self._cache = folder / "keys", folder / "cache"
        self._keys.mkdir()
        (self._keys / KEY_REF).write_bytes(os.urandom(32))
        self.published: dict[str, Published] = {}

    def source(self, *, endpoint: str | None = None, secret: str | None = SECRET) -> S3Source:
        """Where the versions are."""
        reference = SecretReference(name=secret) if secret else None
        return S3Source(endpoint=endpoint or self.server.endpoint, bucket=self.bucket, credentials_secret_ref=reference)

    def publish(self, version: str, *, sample: str = "v1.0.0") -> Published:
        """Seal a sample as `version`, once."""
        if version not in self.published:
            credentials = Credentials(self.server.login.access_key, self.server.login.secret_key)
            self.published[version] = publish(
                SAMPLES / sample,
                open_store(self.source(), credentials),
                model=ModelName(self.model),
                version=Version(version),
                keys=LocalKeyProvider(self._keys),
                key_ref=KEY_REF,
                signers=self.signers,
                cache=self._cache,
            )
        return self.published[version]

    def version(self, version: str, *, source: S3Source | None = None, **spec: Any) -> dict[str, Any]:
        """The ModelParamVersion to apply."""
        made: Any = manifest_object(self.publish(version), source or self.source(), KEY_REF)
        made["spec"].update(spec)
        return dict(made)

    def secret(self) -> dict[str, Any]:
        """The Secret that lets the operator read."""
        data = {"accessKeyID": self.server.login.access_key, "secretAccessKey": self.server.login.secret_key}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": encoded}

    def flip(self, version: str) -> None:
        """Change one byte of the version's largest blob, in the server's own files."""
        blobs = sorted(self._blob_files(), key=lambda file: file.stat().st_size)
        content = bytearray(blobs[-1].read_bytes())
        content[len(content) // 2] ^= 1
        blobs[-1].write_bytes(content)

    def manifest(self, version: str) -> Manifest:
        """What was signed for a version, as it is in the store."""
        pinned, model = self.published[version].manifest_digest, ModelName(self.model)
        expect = Expectation(model, now=datetime.now(UTC))
        data = self.manifest_file(version).read_bytes()
        return verify_manifest(data, pinned=pinned, trust=self.policy, expect=expect).manifest

    def manifest_file(self, version: str) -> Path:
        """A version's manifest in the server's own files."""
        return self.server.object_path(self.bucket, manifest_key(self.published[version].manifest_digest))

    def blob_file(self, blob: BlobEntry) -> Path:
        """A blob in the server's own files."""
        return self.server.object_path(self.bucket, blob.object_key)

    def put_manifest(self, envelope: bytes) -> Digest:
        """Store a manifest that `publish` did not write, as whoever may write to the bucket can."""
        digest, client = Digest.of(envelope), self.server.client()
        client.put_object(Bucket=self.bucket, Key=manifest_key(digest), Body=envelope)
        client.close()
        return digest

    def _blob_files(self) -> list[Path]:
        return [f for f in self.server.object_path(self.bucket, "blobs/sha256").iterdir() if f.is_file()]
