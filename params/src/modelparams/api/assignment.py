"""`ModelParamAssignment` (mpa): the operator's order to one pod, and the pod's answer. Named as the pod."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from modelparams.api.base import (
    Count,
    Message,
    ObjectName,
    TensorsDigest,
    Token,
    Wire,
    WireDigest,
    WireReason,
    WireTime,
    WireVersion,
)
from modelparams.api.release import Release
from modelparams.errors import InvalidSpec

RELEASES_MAX = 2
"""An engine has two arenas."""

KIND, PLURAL, SHORT = "ModelParamAssignment", "modelparamassignments", "mpa"


PodUID = Annotated[str, Field(min_length=1, max_length=63)]


class AssignmentSpec(Wire):
    """The order. Level-based: it says how the pod should be, not what to do."""

    rollout_name: ObjectName
    pod_uid: PodUID
    """The pod's UID; an order to a namesake of another life is ignored."""
    releases: Annotated[tuple[Release, ...], Field(max_length=RELEASES_MAX)] = ()
    """What to hold ready, in order of preference."""
    activate: WireDigest | None = None
    """The manifest digest of the release to serve; absent: hold ready, serve on."""
    term: Count = 0
    """The operator's lease transitions; a lower one than before is refused, by the API server and by the agent."""
    attempt: Token = ""
    """Another value asks for another try at what failed for good (the rollout's `status.attempt` as text)."""
    moved_in: Count | None = None
    """The planner's note, which pods ignore: the rollout's `revision` when `activate` was changed on a pod that was
    serving. Absent: the pod was not serving, so moving it took nothing away."""

    @model_validator(mode="after")
    def _activates_what_it_holds(self) -> AssignmentSpec:
        if self.activate and self.activate not in {release.manifest_digest for release in self.releases}:
            raise ValueError("activate must be the manifestDigest of one of releases")
        return self


class PodState(StrEnum):
    """What the pod is doing, for people; rules read `live` and `staged`."""

    WAITING = "Waiting"
    STAGING = "Staging"
    STAGED = "Staged"
    SWAPPING = "Swapping"
    LIVE = "Live"
    FAILED = "Failed"


class HeldRelease(Wire):
    """A release that the pod verified, opened and holds resident."""

    version_name: ObjectName
    version: WireVersion
    manifest_digest: WireDigest
    tensors_digest: TensorsDigest = ""
    """Keyed BLAKE3 over the resident tensors as the engine sees them, 64 hex digits; equal to the index's."""


class ReleaseFailure(Wire):
    """Why the pod could not hold or serve a release."""

    version_name: ObjectName
    manifest_digest: WireDigest
    reason: WireReason
    message: Message
    attempt: Token = ""
    """The order's attempt that it is an answer to."""
    final: bool = True
    """False: the pod tries again by itself."""
    time: WireTime


class AssignmentStatus(Wire):
    """The answer, written by the pod itself (a policy lets it write no other)."""

    observed_generation: int = Field(default=-1, ge=-1)
    pod_uid: Annotated[str, Field(max_length=63)] = ""
    """Whose answer it is: that of another life than the order's is void."""
    term: Count = 0
    state: PodState = PodState.WAITING
    live: HeldRelease | None = None
    staged: Annotated[tuple[HeldRelease, ...], Field(max_length=RELEASES_MAX)] = ()
    """All resident releases, the live one among them."""
    progress: Token = ""
    """`61%` while staging; its growth counts as progress."""
    pause_microseconds: Count | None = None
    """Time in which no request could start during the last swap."""
    fetched_bytes: Count | None = None
    """Sealed bytes read from the store for the last release staged."""
    last_failure: ReleaseFailure | None = None
    swapped_at: WireTime | None = None


def answer_of(data: object) -> tuple[AssignmentStatus, str]:
    """An order's status as its pod wrote it, and why it cannot be used; it is then as good as none.

    A pod that is broken, or worse, must harm nobody but itself.
    """
    try:
        return AssignmentStatus.parse(data or {}), ""
    except InvalidSpec as error:
        return AssignmentStatus(), f"its answer cannot be used: {error.message}"
