"""What this pod is asked to hold and to serve, and by whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from modelparams.api.assignment import AssignmentSpec, AssignmentStatus
from modelparams.api.release import Release
from modelparams.api.rollout import RolloutSpec, RolloutStatus
from modelparams.digest import Digest
from modelparams.names import ModelName


@dataclass(frozen=True, slots=True)
class Assignment:
    """The pod's own ModelParamAssignment as it was last read."""

    uid: str
    generation: int
    spec: AssignmentSpec
    status: AssignmentStatus


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a pod reads of a ModelParamRollout."""

    name: str
    spec: RolloutSpec
    status: RolloutStatus


@dataclass(frozen=True, slots=True)
class Order:
    """How the pod should be, level-based."""

    releases: tuple[Release, ...]
    activate: Digest | None
    term: int = 0
    attempt: str = ""
    is_fallback: bool = False
    """True when no operator gave it: it may make an idle pod useful, and moves no serving one."""

    @classmethod
    def of(cls, spec: AssignmentSpec) -> Self:
        """The operator's order."""
        return cls(spec.releases, spec.activate, spec.term, spec.attempt)

    @property
    def by_preference(self) -> tuple[Release, ...]:
        """The releases to hold, the one to serve first."""
        return tuple(sorted(self.releases, key=lambda release: release.manifest_digest != self.activate))

    def names(self, digest: Digest) -> bool:
        """Whether the order asks for that release."""
        return any(release.manifest_digest == digest for release in self.releases)


def is_for(assignment: Assignment, pod_uid: str) -> bool:
    """Whether it is for this pod, and not for a namesake of another life."""
    return assignment.spec.pod_uid == pod_uid


def from_rollouts(rollouts: Iterable[Rollout], model: ModelName) -> Order | None:
    """What is live in the pod's rollout, for a pod that nobody has given an order.

    A pod cannot read its own labels, so with several rollouts of one model it cannot know which one has it:
    then it follows them only where all agree. What is live may be below the floor that its publisher has set since:
    who serves it serves on, and nobody new begins.
    """
    statuses = [r.status for r in rollouts if r.spec.model_name == model]
    live = [status.live for status in statuses if status.live is not None]
    if not live or len({release.manifest_digest for release in live}) > 1:
        return None
    if any(status.live_sequence < status.floor for status in statuses if status.live is not None):
        return None
    return Order((live[0],), live[0].manifest_digest, is_fallback=True)


def is_stale(order: Order, seen_term: int) -> bool:
    """Whether an operator gave it that has lost its lease since (Kleppmann's fencing token)."""
    return not order.is_fallback and order.term < seen_term
