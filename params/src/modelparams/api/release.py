"""A release: all that a pod needs to fetch, check and open one version."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from modelparams.api.base import (
    ObjectName,
    Wire,
    WireDigest,
    WireModelName,
    WireVersion,
    matching,
    pattern_schema,
)
from modelparams.names import KEY_PATTERN

_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
"""1 to 65535."""
ENDPOINT_PATTERN = rf"(https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:{_PORT})?/?)?"
"""Scheme, host and port: no user, no query, so that no secret can stand in it."""
BUCKET_PATTERN = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
PREFIX_PATTERN = rf"({KEY_PATTERN}/?)?"


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN_PATTERN = rf"{_LABEL}(\.{_LABEL})*"
"""RFC 1123: another name no Secret can have."""
_PART = r"\.*[A-Za-z0-9_:-][A-Za-z0-9._:-]*"
KEY_NAME_PATTERN = f"{_PART}(/{_PART})*"
"""A Secret's name, or that of a key in a key service (`arn:aws:kms:…:key/…`); it leads out of no directory."""


# In the words of the CRD's rules.
_SAY_NAME = (
    "write the name of a Secret, lower-case letters and digits with inner dashes and dots, such as modelparams-s3"
)
_SAY_KEY = "write letters, digits and ._:- in segments with one slash between them, none of dots alone, such as smollm2"
_SAY_ENDPOINT = "write http(s)://host[:port] without user, path and query, such as https://s3.example.com"
_SAY_BUCKET = "write 3 to 63 lower-case letters, digits, dots and dashes"
_SAY_PREFIX = (
    "write path segments of letters, digits and _.=+- that begin with none of .=+-, one slash between them and none "
    "in front, such as models/smollm2"
)


class SecretReference(Wire):
    """A Secret in the object's namespace."""

    name: Annotated[str, pattern_schema(SUBDOMAIN_PATTERN, 253), matching(SUBDOMAIN_PATTERN, _SAY_NAME)]


class KeyReference(Wire):
    """A key-encryption key."""

    name: Annotated[str, pattern_schema(KEY_NAME_PATTERN, 253), matching(KEY_NAME_PATTERN, _SAY_KEY)]


class S3Source(Wire):
    """Where a model's sealed objects are. Object keys are `<prefix>/blobs/sha256/<hex>` and so on: params/FORMAT.md."""

    endpoint: Annotated[str, pattern_schema(ENDPOINT_PATTERN, 256), matching(ENDPOINT_PATTERN, _SAY_ENDPOINT)] = ""
    """The S3 endpoint's URL; empty for AWS itself."""
    region: Annotated[str, Field(min_length=1, max_length=63)] = "us-east-1"
    bucket: Annotated[str, pattern_schema(BUCKET_PATTERN, 63), matching(BUCKET_PATTERN, _SAY_BUCKET)]
    prefix: Annotated[str, pattern_schema(PREFIX_PATTERN, 512), matching(PREFIX_PATTERN, _SAY_PREFIX)] = ""
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
