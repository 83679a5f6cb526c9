"""`ModelParamVersion` (mpv): one immutable version of one model's parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelparams.api.base import Count, ObjectName, Wire, WireDigest, WireModelName, WireTime, WireVersion, first
from modelparams.api.conditions import Conditions
from modelparams.api.release import Encryption, Release, Source

USED_BY_MAX, SIGNERS_MAX = 64, 16
"""Names in a status; more are left out."""

KIND, PLURAL, SHORT = "ModelParamVersion", "modelparamversions", "mpv"


KeyId = Annotated[str, Field(max_length=64)]
"""SHA-256 of a raw public key, in hex."""


class VersionSpec(Wire):
    """All but `lifecycle` and `suspend` is immutable (CEL)."""

    model_name: WireModelName
    version: WireVersion
    source: Source
    manifest_digest: WireDigest
    encryption: Encryption
    lifecycle: Literal["Withdrawn"] | None = None
    """Withdrawn: never chosen; absent: active."""
    suspend: bool = False
    """True: ignored for new choices; if it is live it stays live."""

    def release(self) -> Release:
        """What a pod needs of it."""
        return Release(
            version_name=f"{self.model_name}-{self.version}",
            model_name=self.model_name,
            version=self.version,
            manifest_digest=self.manifest_digest,
            source=self.source,
            encryption=self.encryption,
        )


class VerifiedFacts(Wire):
    """What the keyless check of the whole version found; valid for `manifest_digest` for ever."""

    manifest_digest: WireDigest
    sequence: Count
    floor: Count = 0
    blobs: Count
    size_bytes: Count
    """Sealed bytes of all blobs."""
    signers: Annotated[tuple[KeyId, ...], Field(max_length=SIGNERS_MAX), first(SIGNERS_MAX)] = ()
    """Key ids of the trusted keys that signed."""
    not_after: WireTime | None = None
    """Until when the publisher lets it be served."""
    verified_at: WireTime


class VersionStatus(Wire):
    """Written by the operator alone."""

    observed_generation: int = Field(default=-1, ge=-1)
    verified: VerifiedFacts | None = None
    used_by: Annotated[tuple[ObjectName, ...], Field(max_length=USED_BY_MAX), first(USED_BY_MAX)] = ()
    """Names of rollouts that have it live or as their target."""
    conditions: Conditions = ()
