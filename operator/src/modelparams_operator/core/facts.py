"""What the conditions are made of: one pass's findings, counted once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelparams.api.assignment import ReleaseFailure
from modelparams.api.rollout import PodCounts, RolloutStatus
from modelparams.digest import Digest
from modelparams_operator.core.course import Course
from modelparams_operator.core.fleet import Fleet, Member
from modelparams_operator.core.memory import attempt_of
from modelparams_operator.core.model import Desired, VersionView
from modelparams_operator.core.selection import Choice


@dataclass(frozen=True, slots=True)
class Facts:
    """One pass over one rollout, after all decisions."""

    desired: Desired
    memory: RolloutStatus
    choice: Choice
    course: Course
    fleet: Fleet
    versions: tuple[VersionView, ...]
    now: datetime
    term: int
    """Of the orders that are written now."""
    is_overdue: bool
    """True when the progress deadline has passed and nothing could be stopped for it."""

    @property
    def failures(self) -> tuple[tuple[Member, ReleaseFailure], ...]:
        """Pods that could not take the target (at rest: what is live)."""
        target = self.memory.target
        return () if target is None else self.fleet.failures(target.manifest_digest, attempt_of(self.memory))


def counted(memory: RolloutStatus, fleet: Fleet, leaving: int) -> PodCounts:
    """Count the pods against the target; `leaving` is how many are on their way from a version that was given up.

    `slowest_percent` is a high-water mark while the same number of pods holds the target: who falls back and catches up
    again has made no progress. `staged` is what is now: a pod that lost the target and has it again counts as closer to
    it, as a replica that becomes ready again does for a Deployment's progress deadline.
    """
    if memory.target is None:
        return PodCounts(total=fleet.total, available=_available(fleet), leaving=leaving, summary=f"0/{fleet.total}")
    digest = memory.target.manifest_digest
    staged = sum(1 for m in fleet.members if m.side == digest or m.holds(digest))
    updated = sum(1 for m in fleet.members if m.serves == digest)
    final = fleet.failures(digest, attempt_of(memory))
    return PodCounts(
        total=fleet.total,
        staged=staged,
        updated=updated,
        available=_available(fleet),
        failed=sum(1 for _, failure in final if failure.final),
        slowest_percent=_slowest(digest, fleet, memory.pods if memory.pods.staged == staged else PodCounts()),
        leaving=leaving,
        summary=f"{updated}/{fleet.total}",
    )


def has_progressed(before: PodCounts, now: PodCounts, due: int) -> bool:
    """Tell whether pods came closer to the target; staging counts until as many hold it as are `due` in this step.

    Beyond that it would be each pod that comes and stages it, for as long as pods come and go.
    """
    is_staging = before.staged < due
    return (
        now.updated > before.updated
        or now.leaving < before.leaving
        or (is_staging and now.staged > before.staged)
        or (is_staging and (now.slowest_percent or 0) > (before.slowest_percent or 0))
    )


def _available(fleet: Fleet) -> int:
    """Count the ready pods that say what they serve; an agent serves nothing that it has not verified."""
    return sum(1 for member in fleet.members if member.is_ready and member.serves is not None)


def _slowest(digest: Digest, fleet: Fleet, before: PodCounts) -> int | None:
    found = [_percent(member) for member in fleet.members if member.side != digest and not member.holds(digest)]
    return max(min(found), before.slowest_percent or 0) if found else None


def _percent(member: Member) -> int:
    """Read `61%`; a pod that says nothing has done nothing."""
    text = member.answer.progress.removesuffix("%") if member.answer is not None else ""
    return min(int(text), 100) if text.isascii() and text.isdigit() else 0
