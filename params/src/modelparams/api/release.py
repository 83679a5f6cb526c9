"""A release: all that a pod needs to fetch, check and open one version."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from modelparams.api.base import ObjectName, Wire, WireDigest, WireModelName, WireVersion
from modelparams.names import KEY_PATTERN

ENDPOINT_PATTERN = r"(https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?)?"
"""Scheme, host and port: no user, no query, so that no secret can stand in it."""
BUCKET_PATTERN = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
PREFIX_PATTERN = rf"({KEY_PATTERN}/?)?"


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SECRET_PATTERN = rf"{_LABEL}(\.{_LABEL})*"
"""A DNS-1123 subdomain (RFC 1123): another name no Secret can have."""


class SecretReference(Wire):
    """A Secret in the object's namespace."""

    name: Annotated[str, Field(max_length=253, pattern=f"^{SECRET_PATTERN}$")]


class KeyReference(Wire):
    """A key-encryption key."""

    name: ObjectName


class S3Source(Wire):
    """Where a model's sealed objects are. Object keys are `<prefix>/blobs/sha256/<hex>` and so on: params/FORMAT.md."""

    endpoint: Annotated[str, Field(max_length=256, pattern=f"^{ENDPOINT_PATTERN}$")] = ""
    """The S3 endpoint's URL; empty for AWS itself."""
    region: Annotated[str, Field(min_length=1, max_length=63)] = "us-east-1"
    bucket: Annotated[str, Field(max_length=63, pattern=f"^{BUCKET_PATTERN}$")]
    prefix: Annotated[str, Field(max_length=512, pattern=f"^{PREFIX_PATTERN}$")] = ""
    credentials_secret_ref: SecretReference | None = None
    """Keys `accessKeyID`, `secretAccessKey`, and optionally `sessionToken`; read by the operator alone.

    Pods have credentials of their own."""


class Source(Wire):
    """One kind of store must be named."""

    s3: S3Source


class Encryption(Wire):
    """Which key-encryption key opens the model's keys."""

    key_ref: KeyReference


class Release(Wire):
    """Written inline into assignments and rollout status: a version object may be pruned, its order must not."""

    version_name: ObjectName
    """The ModelParamVersion's name, `<modelName>-<version>`."""
    model_name: WireModelName
    version: WireVersion
    manifest_digest: WireDigest
    source: Source
    encryption: Encryption
