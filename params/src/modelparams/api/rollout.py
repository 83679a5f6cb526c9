"""`ModelParamRollout` (mpr): which version one serving workload should have live, and how it gets there."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from modelparams.api.base import (
    Count,
    Message,
    ObjectName,
    Token,
    Wire,
    WireDigest,
    WireModelName,
    WireReason,
    WireTime,
    WireVersion,
    read_as,
    string_schema,
)
from modelparams.api.conditions import Conditions
from modelparams.api.release import SUBDOMAIN_PATTERN, Release
from modelparams.names import RANGE_MAX, RANGE_PATTERN, VERSION_PATTERN, VersionRange

KIND, PLURAL, SHORT = "ModelParamRollout", "modelparamrollouts", "mpr"
PERCENT_PATTERN = r"([1-9][0-9]?|100)%"
STEPS_MAX, HISTORY_MAX, FAILED_MAX, APPROVALS_MAX, FALLEN_MAX = 50, 20, 64, 32, 32


def _checked(value: int | str) -> int | str:
    if isinstance(value, int):
        if value < 1:
            raise ValueError("write a number of pods, at least 1, or a share of them from 1% to 100%")
    elif not re.fullmatch(PERCENT_PATTERN, value):
        raise ValueError("write a number of pods, at least 1, or a share of them from 1% to 100%")
    return value


_INT_OR_PERCENT = {"x-kubernetes-int-or-string": True, "maxLength": 16}
PodCount = Annotated[int | str, AfterValidator(_checked), WithJsonSchema(_INT_OR_PERCENT)]
"""A number of pods (3) or a share of them, rounded up ("25%")."""


_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"({SUBDOMAIN_PATTERN}/)?{_NAME}"
_PREFIX_MAX = 253


def _with_prefix(key: str) -> str:
    if key.find("/") > _PREFIX_MAX:
        raise ValueError(f"write at most {_PREFIX_MAX} characters before the slash of a label's key")
    return key


LabelKey = Annotated[
    str, Field(min_length=1, max_length=_PREFIX_MAX + 64, pattern=f"^{_KEY}$"), AfterValidator(_with_prefix)
]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]


class LabelExpression(Wire):
    """One expression of a label selector."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _values_fit(self) -> LabelExpression:
        if bool(self.values) != (self.operator in ("In", "NotIn")):
            raise ValueError("operators In and NotIn need values, Exists and DoesNotExist take none")
        return self


class LabelSelector(Wire):
    """As metav1.LabelSelector. Pods must carry the opt-in label as well."""

    match_labels: Annotated[
        dict[str, LabelValue], Field(max_length=32, json_schema_extra={"propertyNames": {"pattern": f"^{_KEY}$"}})
    ] = Field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(max_length=32)] = ()

    @field_validator("match_labels")
    @classmethod
    def _keys_are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        """A rule of the CRD: its schema says nothing of a map's keys."""
        if not all(re.fullmatch(_KEY, key) for key in labels):
            raise ValueError("write keys that a label can have, such as app or example.com/tier")
        return {_with_prefix(key): value for key, value in labels.items()}


RangeText = Annotated[str, read_as(lambda text: str(VersionRange(text))), string_schema(RANGE_PATTERN, RANGE_MAX)]


class VersionPolicy(Wire):
    """`HighestSemver` in `range`, or `Pinned` to `version_name`."""

    type: Literal["HighestSemver", "Pinned"]
    range: RangeText | None = None
    version_name: ObjectName | None = None

    @model_validator(mode="after")
    def _one_of(self) -> VersionPolicy:
        if self.type == "Pinned" and (not self.version_name or self.range):
            raise ValueError("versionPolicy Pinned needs versionName and no range")
        if self.type == "HighestSemver" and (not self.range or self.version_name):
            raise ValueError("versionPolicy HighestSemver needs range and no versionName")
        return self


class Pause(Wire):
    """How long to look before the next step; without a duration, until a person approves it."""

    duration_seconds: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    """At most 30 days."""


class Step(Wire):
    """Activate on so many pods in all, then pause."""

    pods: PodCount
    pause: Pause | None = None


class RollbackWindow(Wire):
    """Going back to one of so many last live versions skips the steps, never verification."""

    revisions: int = Field(default=3, ge=0, le=HISTORY_MAX)


class Strategy(Wire):
    """The plan of a rollout. An implicit last step is all pods."""

    steps: Annotated[tuple[Step, ...], Field(max_length=STEPS_MAX)] = (Step(pods=1), Step(pods="25%"))
    max_unavailable: PodCount = 1
    """Pods that may be swapping or not ready at once because of us."""
    min_ready_seconds: int = Field(default=0, ge=0, le=86_400)
    """So long a pod is ready on the target before it counts, and another one follows; not on ways without steps."""
    progress_deadline_seconds: int = Field(default=600, ge=1, le=2_592_000)
    """Without progress for so long, the rollout has failed; pauses and the operator's absence are not counted."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    rollback_window: RollbackWindow = RollbackWindow()
    keep_previous_seconds: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    """So long after a promotion pods hold what they served before, for an instant way back; absent: until there is
    something else to hold."""

    @model_validator(mode="after")
    def _has_time_to_be_ready(self) -> Strategy:
        if self.min_ready_seconds >= self.progress_deadline_seconds:
            raise ValueError("minReadySeconds must be less than progressDeadlineSeconds, or no rollout could succeed")
        return self

    @model_validator(mode="after")
    def _steps_grow(self) -> Strategy:
        counts = [step.pods for step in self.steps if isinstance(step.pods, int)]
        shares = [int(step.pods[:-1]) for step in self.steps if isinstance(step.pods, str)]
        if counts != sorted(counts) or shares != sorted(shares):
            raise ValueError("each step's pods must be no fewer than those of the steps before it")
        return self


UserName = Annotated[str, Field(min_length=1, max_length=512)]
"""As the API server knows a person or a service account."""


class Approval(Wire):
    """One person's word that a version may go on past the pauses that wait for one, through a step.

    A level, not an event: said twice, late or out of order it does no harm, and it never reaches another version, nor
    the same one made again with other bytes.
    """

    version_name: ObjectName
    manifest_digest: WireDigest
    """Of the bytes that were looked at."""
    through_step: Annotated[int, Field(ge=1, le=STEPS_MAX)]
    """The last step, counted from 1 as in status.step, whose pause is approved."""
    steps_hash: Token | None = None
    """As status.stepsHash names the plan that was looked at: in another one a step's number says nothing. Absent: the
    number counts in whatever plan there is."""
    approved_by: UserName
    """Your own user name: the API server compares it with who you are."""

    def is_for(self, release: Release) -> bool:
        """Tell whether these very bytes were approved."""
        return (self.version_name, self.manifest_digest) == (release.version_name, release.manifest_digest)


class Expedite(Wire):
    """Take one version to all pods without steps and pauses; never without verification."""

    version_name: ObjectName
    manifest_digest: WireDigest

    def is_for(self, release: Release) -> bool:
        """Tell whether these very bytes are meant."""
        return (self.version_name, self.manifest_digest) == (release.version_name, release.manifest_digest)


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
    approvals: Annotated[tuple[Approval, ...], Field(max_length=APPROVALS_MAX)] = ()
    """One for each version and person."""
    expedite: Expedite | None = None
    retry_token: Token | None = None
    """Another value than status.lastHandledRetryToken gives failed versions another chance."""

    @field_validator("approvals")
    @classmethod
    def _one_each(cls, approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
        if len({(one.version_name, one.approved_by) for one in approvals}) < len(approvals):
            raise ValueError("write one approval for each version and person, through the highest step")
        return approvals

    @model_validator(mode="after")
    def _pins_its_model(self) -> RolloutSpec:
        pin = self.version_policy.version_name
        if pin is not None and not re.fullmatch(rf"{self.model_name}-{VERSION_PATTERN}", pin):
            raise ValueError("versionPolicy.versionName must name a version of modelName: <modelName>-<version>")
        named = [
            *(one.version_name for one in self.approvals),
            *([self.expedite.version_name] if self.expedite else []),
        ]
        if not all(name.startswith(f"{self.model_name}-") for name in named):
            raise ValueError("approvals and expedite must name versions of modelName: <modelName>-<version>")
        return self


class PodCounts(Wire):
    """How far the pods are. `summary` is for the printer column."""

    total: Count = 0
    staged: Count = 0
    """Pods that hold the target, live or ready to be."""
    updated: Count = 0
    """Pods that serve the target."""
    updated_ready: Count = 0
    """Those of them that were taken from serving for it, and are ready: minReadySeconds are for these."""
    available: Count = 0
    """Ready pods that serve any verified version."""
    failed: Count = 0
    """Pods that could not take the target, or what is live, for good."""
    slowest_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """How far the slowest of the pods is that do not hold the target yet."""
    staging_percents: Count = 0
    """The percents of all of these, added up; their growth counts as progress."""
    leaving: Count = 0
    """Pods on their way from a version that was given up; each that arrives counts as progress."""
    summary: Token = ""


class PodFailure(Wire):
    """The last pod that could not take a version."""

    pod_name: ObjectName
    version_name: ObjectName
    manifest_digest: WireDigest
    reason: WireReason
    message: Message
    time: WireTime


class Fall(Wire):
    """A pod that was well on the target, and then was not ready."""

    pod_name: ObjectName
    time: WireTime


class FailedVersion(Wire):
    """Not chosen again until `spec.retryToken` changes."""

    version_name: ObjectName
    manifest_digest: WireDigest
    reason: WireReason
    message: Message = ""
    """Which pod could not take it, and why."""


class Revision(Wire):
    """One entry of the history, newest first."""

    version_name: ObjectName
    version: WireVersion
    manifest_digest: WireDigest
    sequence: Count = 0
    outcome: Literal["Promoted", "RolledBack", "Failed", "Superseded"]
    approved_by: Annotated[tuple[UserName, ...], Field(max_length=APPROVALS_MAX)] = ()
    """Who had approved steps of it, by spec.approvals."""
    expedited: bool = False
    """True when it went to all pods without steps since spec.expedite named it."""
    started_at: WireTime
    finished_at: WireTime


class RolloutStatus(Wire):
    """All that the planner remembers. Written by the operator alone."""

    observed_generation: int = Field(default=-1, ge=-1)
    live: Release | None = None
    """What new pods get: the last version that was promoted to all pods."""
    live_sequence: Count = 0
    target: Release | None = None
    """What is being rolled out; equal to `live` at rest."""
    target_sequence: Count = 0
    step_index: Count = 0
    """Zero-based index of the step being done; equal to the number of steps in the last, implicit one."""
    steps_hash: Token = ""
    """Of the plan in which `step_index` counts; empty where there are no steps to take."""
    step: Token = ""
    """`2/3` for the printer column."""
    step_reached_at: WireTime | None = None
    """When the present step's pods were all live: a timed pause counts from here."""
    last_ready_at: WireTime | None = None
    """When a pod last became ready on the target: minReadySeconds count from here. Absent where they do not count."""
    fallen: Annotated[tuple[Fall, ...], Field(max_length=FALLEN_MAX)] = ()
    """Pods that fell over while the present step was looked at, and when each did first."""
    started_at: WireTime | None = None
    progressed_at: WireTime | None = None
    """When a pod last came closer to the target: the progress deadline counts from here. Absent while it does not
    run: at rest, in a pause, without pods."""
    revision: Count = 0
    """Counts how often the fleet came to rest. A pod that was moved since (`moved_in` of its order is equal) and is
    not back yet is unavailable because of us."""
    floor: Count = 0
    """The highest floor of any verified manifest: no sequence below it is ordered.
    It is forgotten with the object: who may delete rollouts and versions decides on it."""
    pods: PodCounts = PodCounts()
    last_failure: PodFailure | None = None
    failed_versions: Annotated[tuple[FailedVersion, ...], Field(max_length=FAILED_MAX)] = ()
    history: Annotated[tuple[Revision, ...], Field(max_length=HISTORY_MAX)] = ()
    last_handled_retry_token: Token | None = None
    attempt: Count = 0
    """Counts the second chances (retry tokens, failed versions that were withdrawn and came back); in each order."""
    conditions: Conditions = ()
