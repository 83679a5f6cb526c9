"""A release: all that a pod needs to fetch, check and open one version."""

from __future__ import annotations

from modelparams.api.base import Wire, WireDigest, WireModelName, WireVersion


class SecretReference(Wire):
    """A Secret in the object's namespace."""

    name: str


class S3Source(Wire):
    """Where a model's sealed objects are. Object keys are `<prefix>/blobs/sha256/<hex>` and so on: params/FORMAT.md."""

    endpoint: str = ""
    """The S3 endpoint's URL; empty for AWS itself."""
    region: str = "us-east-1"
    bucket: str
    prefix: str = ""
    credentials_secret_ref: SecretReference | None = None
    """Keys `accessKeyID`, `secretAccessKey`, and optionally `sessionToken`; read by the operator alone. Pods have their own."""


class Source(Wire):
    """One kind of store must be named."""

    s3: S3Source


class Encryption(Wire):
    """Which key-encryption key opens the model's keys."""

    key_ref: SecretReference


class Release(Wire):
    """Written inline into assignments and into a rollout's status: a version object may be pruned, its order must not."""

    version_name: str
    """The ModelParamVersion's name, `<modelName>-<version>`."""
    model_name: WireModelName
    version: WireVersion
    manifest_digest: WireDigest
    source: Source
    encryption: Encryption
