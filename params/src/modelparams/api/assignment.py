"""`ModelParamAssignment` (mpa): the operator's order to one pod, and the pod's answer. Named as the pod."""

from __future__ import annotations

from enum import StrEnum

from modelparams.api.base import Wire, WireDigest, WireTime, WireVersion
from modelparams.api.release import Release
from modelparams.reasons import Reason

KIND, PLURAL, SHORT = "ModelParamAssignment", "modelparamassignments", "mpa"


class AssignmentSpec(Wire):
    """The order. Level-based: it says how the pod should be, not what to do."""

    rollout_name: str
    pod_uid: str = ""
    """The pod's UID; an order to a namesake of another life is ignored."""
    releases: tuple[Release, ...] = ()
    """At most two: what to hold ready, in order of preference."""
    activate: WireDigest | None = None
    """The manifest digest of the release to serve; absent: hold ready, serve on."""
    term: int = 0
    """The operator's lease transitions; a lower one than seen before is refused."""
    attempt: str = ""
    """Another value asks for another try at what failed for good (the rollout's retryToken)."""
    moved_in: int | None = None
    """The planner's note, which pods ignore: the rollout's `revision` when `activate` was changed on a pod that was
    serving. Absent: the pod was not serving, so moving it took nothing away."""


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

    version_name: str
    version: WireVersion
    manifest_digest: WireDigest
    tensors_digest: str = ""
    """Keyed BLAKE3 over the resident tensors as the engine sees them, 64 hex digits; equal to the index's."""


class ReleaseFailure(Wire):
    """Why the pod could not hold or serve a release."""

    version_name: str
    manifest_digest: WireDigest
    reason: Reason
    message: str
    attempt: str = ""
    """The order's attempt that it is an answer to."""
    final: bool = True
    """False: the pod tries again by itself."""
    time: WireTime


class AssignmentStatus(Wire):
    """The answer, written by the pod itself (a policy lets it write no other)."""

    observed_generation: int = -1
    pod_uid: str = ""
    term: int = 0
    state: PodState = PodState.WAITING
    live: HeldRelease | None = None
    staged: tuple[HeldRelease, ...] = ()
    """All resident releases, the live one among them."""
    progress: str = ""
    """Such as `61%` while staging."""
    pause_microseconds: int | None = None
    """Time in which no request could start during the last swap."""
    fetched_bytes: int | None = None
    """Sealed bytes read from the store for the last release staged."""
    last_failure: ReleaseFailure | None = None
    swapped_at: WireTime | None = None
