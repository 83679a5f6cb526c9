"""`ModelParamRollout` (mpr): which version one serving workload should have live, and how it gets there."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from modelparams.api.base import Wire, WireDigest, WireModelName, WireTime, WireVersion
from modelparams.api.conditions import Condition
from modelparams.api.release import Release
from modelparams.reasons import Reason

KIND, PLURAL, SHORT = "ModelParamRollout", "modelparamrollouts", "mpr"


def _checked(value: int | str) -> int | str:
    if isinstance(value, int):
        if value < 1:
            raise ValueError("a number of pods is at least 1")
    elif not re.fullmatch(r"([1-9][0-9]?|100)%", value):
        raise ValueError("a share of pods is 1% to 100%")
    return value


PodCount = Annotated[int | str, AfterValidator(_checked)]
"""A number of pods (3) or a share of them, rounded up ("25%")."""


class LabelExpression(Wire):
    """One expression of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Wire):
    """As metav1.LabelSelector. Pods must carry the opt-in label as well."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelExpression, ...] = ()


class VersionPolicy(Wire):
    """`HighestSemver` in `range`, or `Pinned` to `version_name`."""

    type: Literal["HighestSemver", "Pinned"]
    range: str | None = None
    version_name: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> VersionPolicy:
        if self.type == "Pinned" and (not self.version_name or self.range):
            raise ValueError("versionPolicy Pinned needs versionName and no range")
        if self.type == "HighestSemver" and (not self.range or self.version_name):
            raise ValueError("versionPolicy HighestSemver needs range and no versionName")
        return self


class Pause(Wire):
    """How long to look before the next step."""

    duration_seconds: int = Field(ge=0)


class Step(Wire):
    """Activate on so many pods in all, then pause."""

    pods: PodCount
    pause: Pause | None = None


class RollbackWindow(Wire):
    """Going back to one of so many last live versions skips the steps, never verification."""

    revisions: int = Field(default=3, ge=0)


class Strategy(Wire):
    """The plan of a rollout. An implicit last step is all pods."""

    steps: tuple[Step, ...] = (Step(pods=1), Step(pods="25%"))
    max_unavailable: PodCount = 1
    """Pods that may be swapping or not ready at once because of us."""
    progress_deadline_seconds: int = Field(default=600, ge=1)
    """Without progress for so long, the rollout has failed; pauses and the operator's absence are not counted."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    rollback_window: RollbackWindow = RollbackWindow()


class RolloutSpec(Wire):
    """`model_name` and `selector` are immutable (CEL)."""

    model_name: WireModelName
    selector: LabelSelector = LabelSelector()
    version_policy: VersionPolicy
    strategy: Strategy = Strategy()
    paused: bool = False
    """Hold at the present step; rolling back still happens."""
    suspend: bool = False
    """Touch nothing at all."""
    retry_token: str | None = None
    """Another value than status.lastHandledRetryToken gives failed versions another chance."""


class PodCounts(Wire):
    """How far the pods are. `summary` is for the printer column."""

    total: int = 0
    staged: int = 0
    """Pods that hold the target, live or ready to be."""
    updated: int = 0
    """Pods that serve the target."""
    available: int = 0
    """Ready pods that serve any verified version."""
    failed: int = 0
    """Pods that could not take the target, or what is live, for good."""
    slowest_percent: int | None = None
    """How far the slowest of the pods is that do not hold the target yet; its growth counts as progress."""
    summary: str = ""


class PodFailure(Wire):
    """The last pod that could not take a version."""

    pod_name: str
    version_name: str
    manifest_digest: WireDigest
    reason: Reason
    message: str
    time: WireTime


class FailedVersion(Wire):
    """Not chosen again until `spec.retryToken` changes."""

    version_name: str
    manifest_digest: WireDigest
    reason: Reason


class Revision(Wire):
    """One entry of the history, newest first."""

    version_name: str
    version: WireVersion
    manifest_digest: WireDigest
    sequence: int = 0
    outcome: Literal["Promoted", "RolledBack", "Failed", "Superseded"]
    started_at: WireTime
    finished_at: WireTime


class RolloutStatus(Wire):
    """All that the planner remembers. Written by the operator alone."""

    observed_generation: int = -1
    live: Release | None = None
    """What new pods get: the last version that was promoted to all pods."""
    live_sequence: int = 0
    target: Release | None = None
    """What is being rolled out; equal to `live` at rest."""
    target_sequence: int = 0
    step_index: int = 0
    """Zero-based index of the step being done; equal to the number of steps in the last, implicit one."""
    step: str = ""
    """`2/3` for the printer column."""
    step_reached_at: WireTime | None = None
    """When the present step's pods were all live: a timed pause counts from here."""
    started_at: WireTime | None = None
    progressed_at: WireTime | None = None
    """When a pod last came closer to the target: the progress deadline counts from here. Absent while it does not
    run: at rest, in a pause, without pods."""
    revision: int = 0
    """Counts how often the fleet came to rest. A pod that was moved since (`moved_in` of its order is equal) and is
    not back yet is unavailable because of us."""
    floor: int = 0
    """The highest floor of any verified manifest: no sequence below it is ever ordered."""
    pods: PodCounts = PodCounts()
    last_failure: PodFailure | None = None
    failed_versions: tuple[FailedVersion, ...] = ()
    history: tuple[Revision, ...] = ()
    last_handled_retry_token: str | None = None
    attempt: int = 0
    """Counts the second chances (retry tokens, failed versions that were withdrawn and came back); in each order."""
    conditions: tuple[Condition, ...] = ()
