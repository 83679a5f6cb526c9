"""`ModelParamVersion` (mpv): one immutable version of one model's parameters."""

from __future__ import annotations

from typing import Literal

from modelparams.api.base import Wire, WireDigest, WireModelName, WireTime, WireVersion
from modelparams.api.conditions import Condition
from modelparams.api.release import Encryption, Release, Source

KIND, PLURAL, SHORT = "ModelParamVersion", "modelparamversions", "mpv"


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
    sequence: int
    floor: int = 0
    blobs: int
    size_bytes: int
    """Sealed bytes of all blobs."""
    signers: tuple[str, ...] = ()
    """Key ids of the trusted keys that signed."""
    verified_at: WireTime


class VersionStatus(Wire):
    """Written by the operator alone."""

    observed_generation: int = -1
    verified: VerifiedFacts | None = None
    used_by: tuple[str, ...] = ()
    """Names of rollouts that have it live or as their target."""
    conditions: tuple[Condition, ...] = ()
