"""What the planner sees and what it answers: values that can be printed, saved as JSON and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from modelparams.api.assignment import AssignmentSpec, AssignmentStatus
from modelparams.api.release import Release
from modelparams.api.rollout import FailedVersion, RolloutSpec, RolloutStatus
from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.digest import Digest
from modelparams.failure import Failure
from modelparams.names import Version


@dataclass(frozen=True, slots=True)
class Desired:
    """One rollout as its users want it."""

    name: str
    spec: RolloutSpec
    generation: int = 1
    """metadata.generation: what observedGeneration answers to."""


@dataclass(frozen=True, slots=True)
class VersionView:
    """One ModelParamVersion and what the keyless check of its bytes has found so far."""

    name: str
    spec: VersionSpec
    generation: int = 1
    verified: VerifiedFacts | None = None
    failure: Failure | None = None
    """Why the last check ended without a result; final, or tried again by the shell after `retry_after`."""
    deleting: bool = False

    @property
    def digest(self) -> Digest:
        """Which bytes it is about; with the name, its identity."""
        return self.spec.manifest_digest

    @property
    def version(self) -> Version:
        """For precedence."""
        return self.spec.version

    @property
    def release(self) -> Release:
        """What a pod needs of it."""
        return self.spec.release()

    @property
    def facts(self) -> VerifiedFacts | None:
        """What was verified, if it was verified about these very bytes."""
        known = self.verified
        return known if known is not None and known.manifest_digest.matches(self.digest) else None

    @property
    def is_refused(self) -> bool:
        """True when the check said no for good."""
        return self.facts is None and self.failure is not None and self.failure.is_final

    @property
    def is_withdrawn(self) -> bool:
        """True when a person took it out."""
        return self.spec.lifecycle == "Withdrawn"

    @property
    def is_standing(self) -> bool:
        """False when a person took it out, by a withdrawal or a deletion."""
        return not self.is_withdrawn and not self.deleting

    def is_expired(self, now: datetime) -> bool:
        """Tell whether its publisher's signed time is over, in the very second in which a pod begins to refuse it."""
        return self.facts is not None and self.facts.not_after is not None and now > self.facts.not_after

    def is_of(self, release: Release) -> bool:
        """Tell whether it is `release`'s object: the same bytes under the same name.

        An object of another name may state the same digest, by mistake or by malice: it says nothing about this one.
        """
        return self.digest == release.manifest_digest and self.name == release.version_name


@dataclass(frozen=True, slots=True)
class PodView:
    """One serving pod with its assignment's two halves, as they are on the API server.

    An order or an answer that names another UID is that of an earlier pod with the same name; the planner
    ignores it, so the shell hands over whatever it read.
    """

    name: str
    uid: str
    ready: bool = False
    """The pod's Ready condition."""
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    order: AssignmentSpec | None = None
    answer: AssignmentStatus | None = None
    ready_since: datetime | None = None
    """Since when it is ready, by the clock of its node; None: for an unknown time, or it is not."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the rollouts of one model know of failures, all of them together."""

    failed_versions: tuple[FailedVersion, ...] = ()
    live: tuple[Digest, ...] = ()
    """What works in some of them, though it may have failed in another."""
    floor: int = 0
    attempt: int = 0
    retry_tokens: Mapping[str, int] = field(default_factory=dict)
    """Those that were acted on, and by how many rollouts."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that a decision about one rollout depends on."""

    now: datetime
    """Timezone-aware. For timed pauses, deadlines and what a notAfter forbids; never to prefer a version."""
    status: RolloutStatus = field(default_factory=RolloutStatus)
    """Our own, as last written."""
    versions: tuple[VersionView, ...] = ()
    """Of the rollout's namespace; those of other models are ignored."""
    pods: tuple[PodView, ...] = ()
    """Those that the rollout's selector and the opt-in label name."""
    other_claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pod name to the names of the other rollouts that name it too (`claims.other_claims`)."""
    predecessors: tuple[RolloutStatus, ...] = ()
    """What those others remember: a new rollout that is to have their pods goes on from there."""
    lessons: Lessons = field(default_factory=Lessons)
    """What the model's rollouts know of failures: a new one does not try these versions."""
    term: int = 0
    """The lease's transitions: the fence in each order."""
    blind_since: datetime | None = None
    """Since when pods or orders cannot be followed; None: they are as they are seen."""
    watching_since: datetime | None = None
    """Since when this operator has watched without a gap: deadlines count from there at the earliest."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Check a version's bytes, unless that is under way or its retry is not due yet."""

    version_name: str


@dataclass(frozen=True, slots=True)
class Assign:
    """Create or replace the spec of a pod's assignment."""

    pod_name: str
    pod_uid: str
    order: AssignmentSpec


Action = Verify | Assign


@dataclass(frozen=True, slots=True)
class Plan:
    """The next safe steps. Write `status` first (if it differs), then act: a decision is remembered before it shows."""

    status: RolloutStatus
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None
    """When time alone will change the plan; None: only an event can."""
    why: tuple[str, ...] = ()
    """The decisions in words, for `explain`."""
    is_outranked: bool = False
    """An order has a higher term than ours: nothing is decided."""
