"""What the conditions are made of: one pass's findings, counted once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelparams.api.assignment import ReleaseFailure
from modelparams.api.rollout import PodCounts, RolloutSpec, RolloutStatus
from modelparams_operator.core.course import Course, due
from modelparams_operator.core.fleet import Fleet, Member
from modelparams_operator.core.memory import attempt_of
from modelparams_operator.core.model import Desired, VersionView
from modelparams_operator.core.selection import Choice
from modelparams_operator.core.steps import allowance


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

    `staging_percents` is a high-water mark while the same number of pods holds the target: who falls back and catches
    up again has made no progress. `staged` is what is now: a pod that lost the target and has it again counts as closer
    to it, as a replica that becomes ready again does for a Deployment's progress deadline.
    """
    if memory.target is None:
        return PodCounts(total=fleet.total, available=_available(fleet), leaving=leaving, summary=f"0/{fleet.total}")
    digest = memory.target.manifest_digest
    staged = sum(1 for m in fleet.members if m.side == digest or m.holds(digest))
    updated = sum(1 for m in fleet.members if m.serves == digest)
    final = fleet.failures(digest, attempt_of(memory))
    percents = [_percent(member) for member in fleet.members if member.side != digest and not member.holds(digest)]
    before = memory.pods.staging_percents if memory.pods.staged == staged else 0
    return PodCounts(
        total=fleet.total,
        staged=staged,
        updated=updated,
        updated_ready=fleet.taken_to(digest),
        available=_available(fleet),
        failed=sum(1 for _, failure in final if failure.final),
        slowest_percent=min(percents, default=None),
        staging_percents=max(sum(percents), before) if percents else 0,
        leaving=leaving,
        summary=f"{updated}/{fleet.total}",
    )


def has_progressed(before: PodCounts, now: PodCounts, *, is_staging: bool) -> bool:
    """Tell whether pods came closer to the target; that some stage it only while `is_staging`.

    As long as any of them comes further it is progress: one that hangs does not make the others late.
    """
    return (
        now.updated > before.updated
        or now.leaving < before.leaving
        or (is_staging and now.staged > before.staged)
        or (is_staging and now.staging_percents > before.staging_percents)
    )


def is_staging(memory: RolloutStatus, spec: RolloutSpec, fleet: Fleet) -> bool:
    """Tell whether the step waits for pods to stage the target: until as many ready ones hold it as are due.

    Beyond that it would be each pod that comes and stages it, for as long as pods come and go; so it would while nobody
    may be moved. A broken pod stands in for nobody.
    """
    if memory.target is None:
        return False
    digest = memory.target.manifest_digest
    holding = sum(1 for m in fleet.members if m.is_ready and (m.side == digest or m.holds(digest)))
    may_move = fleet.away(memory.revision) < allowance(spec.strategy.max_unavailable, fleet.total)
    # As it was counted last, too: many may have come to hold it between two passes.
    return may_move and min(holding, memory.pods.staged) <= due(memory, spec, fleet.total)


def _available(fleet: Fleet) -> int:
    """Count the ready pods that say what they serve; an agent serves nothing that it has not verified."""
    return sum(1 for member in fleet.members if member.is_ready and member.serves is not None)


def _percent(member: Member) -> int:
    """Read `61%`; a pod that says nothing has done nothing."""
    text = member.answer.progress.removesuffix("%") if member.answer is not None else ""
    return min(int(text), 100) if text.isascii() and text.isdigit() else 0
