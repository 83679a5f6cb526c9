"""When a rollout has failed: a pod that gave up, or a deadline that passed, and whether that may turn it round."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from modelparams.api.release import Release
from modelparams.api.rollout import PodFailure, RolloutStatus, Strategy
from modelparams.digest import Digest
from modelparams.reasons import Reason
from modelparams_operator.core.fleet import Fleet, Member
from modelparams_operator.core.memory import attempt_of, is_at_rest, well_since
from modelparams_operator.core.model import VersionView


def is_stoppable(memory: RolloutStatus, versions: Sequence[VersionView]) -> bool:
    """Tell whether a failure may turn the rollout round.

    A return from a version that was deleted or withdrawn goes on for the other pods, whatever one of them says: there
    is nothing better behind it. A withdrawn target's failure would be forgotten in the next pass, and found again.
    """
    live, target = memory.live, memory.target
    if target is None or is_at_rest(memory) or any(v.is_of(target) and v.is_withdrawn for v in versions):
        return False
    if live is None or target.version >= live.version:  # equal: made again with other bytes
        return True
    return any(v.is_of(live) and v.is_standing for v in versions)


def failure_in_pods(memory: RolloutStatus, fleet: Fleet, now: datetime) -> PodFailure | None:
    """Find the failure that stops the rollout of the target: the first pod's, by name, that gave up for good.

    A first version is stopped only if it works nowhere: one sick pod must not take it from the others. That its time
    is over says nothing about its bytes: the choice leaves it when its notAfter has passed by our clock as well.
    """
    target = memory.target
    if target is None:
        return None
    final = [(m, f) for m, f in fleet.failures(target.manifest_digest, attempt_of(memory))]
    final = [(m, f) for m, f in final if f.final and f.reason is not Reason.EXPIRED]
    if not final:
        return None
    if memory.live is None and len(final) < sum(1 for m in fleet.members if m.answer is not None):
        return None
    member, failure = final[0]
    return _failed_on(target, member, failure.reason, failure.message, now)


def deadline(memory: RolloutStatus, strategy: Strategy, watching_since: datetime | None) -> datetime | None:
    """Say when the rollout will have made no progress for too long; None while the clock does not run."""
    if memory.progressed_at is None:
        return None
    since = memory.progressed_at if watching_since is None else max(memory.progressed_at, watching_since)
    return since + timedelta(seconds=strategy.progress_deadline_seconds)


def has_fallen_again(
    memory: RolloutStatus, strategy: Strategy, fleet: Fleet, now: datetime, watching_since: datetime | None
) -> bool:
    """Tell whether a pod falls over, in a step that is looked at, that fell in it a deadline ago or earlier.

    One that crashes again and again is up in between, and what it does then would start each deadline anew. But where
    all were well for a whole deadline since, it is a first fall: a pause may last for days. A fall that lasts since no
    operator looked is told from it once one has watched for a deadline.
    """
    since, limit = well_since(memory), timedelta(seconds=strategy.progress_deadline_seconds)
    if memory.target is None or since is None or now - since >= limit:
        return False
    if watching_since is not None and now - watching_since < limit:
        return False
    long_ago = {one.pod_name for one in memory.fallen if now - one.time >= limit}
    return any(m.name in long_ago for m in fleet.unwell(memory.target.manifest_digest, memory.revision))


def overdue_failure(memory: RolloutStatus, strategy: Strategy, fleet: Fleet, now: datetime) -> PodFailure | None:
    """Name the first pod that speaks against the target, as the failure of a rollout that ran into its deadline.

    A pod that has just come, or come back, has its own time first. A first version has nothing to return to: its
    deadline is only reported. So it is where no pod speaks against it.
    """
    target = memory.target
    if target is None or memory.live is None:
        return None
    had_time = now - timedelta(seconds=strategy.progress_deadline_seconds)
    member = next(iter(_against(target.manifest_digest, fleet, had_time)), None)
    if member is None:
        return None
    message = _what_keeps(member, target.manifest_digest, attempt_of(memory))
    return _failed_on(target, member, Reason.PROGRESS_DEADLINE_EXCEEDED, message, now)


def _against(digest: Digest, fleet: Fleet, ready_by: datetime | None = None) -> list[Member]:
    """List the pods that speak against a version: first who was taken from serving for it, then who does not get it.

    Not who is not well where it was sent earlier, nor who waits for its order or its turn, nor who is ready only since
    `ready_by`, nor a pod that is not ready and says nothing of it: its node may be on its way, or away; unless nobody
    is ready any more, of those that served. And who was broken before and was given it as a cure only where nobody is
    left who could speak for it.
    """
    there = [m for m in fleet.members if m.side == digest and not m.is_settled]
    unstaged = [m for m in fleet.members if not m.is_lost and m.release(digest) is not None and not m.holds(digest)]
    are_all_down = fleet.total > 1 and not any(m.is_ready for m in fleet.members)
    unstaged = [
        m
        for m in unstaged
        if _was_ready(m, ready_by) or _speaks_of(m, digest) or (are_all_down and m.serves is not None)
    ]
    may_be_well = any(m.is_ready and (m.side != digest or m.is_settled or m.was_taken) for m in fleet.members)
    return [
        *(m for m in there if m.was_taken),
        *sorted(unstaged, key=lambda m: not m.is_ready),
        *(m for m in there if not m.was_taken and not may_be_well),
    ]


def _was_ready(member: Member, by: datetime | None) -> bool:
    return member.is_ready and (by is None or member.ready_since is None or member.ready_since <= by)


def _speaks_of(member: Member, digest: Digest) -> bool:
    return member.order is not None and member.failure(digest, member.order.attempt) is not None


def _what_keeps(member: Member, digest: Digest, attempt: str) -> str:
    """Say what is known of why it is behind, so that people look in the right place."""
    said, answer = member.failure(digest, attempt), member.answer
    if said is not None:
        return f"{said.reason}: {said.message}"
    if answer is None:
        return "its agent has said nothing"
    if member.serves == digest:
        return "it serves it and is not ready"
    if not member.holds(digest):
        return f"it has not fetched it{f' ({answer.progress})' if answer.progress else ''}"
    return "it holds it and does not serve it" if member.side == digest else "it holds it and was not its turn"


def behind(digest: Digest, fleet: Fleet) -> Member | None:
    """Find the pod that holds up `digest`: one that speaks against it, else the first that is not well on it."""
    unsettled = [m for m in fleet.members if not (m.is_settled and m.side == digest)]
    sick = sorted(unsettled, key=lambda m: (m.side != digest, m.is_ready))
    return next(iter(_against(digest, fleet)), None) or next(iter(sick), None)


def _failed_on(target: Release, member: Member, reason: Reason, message: str, now: datetime) -> PodFailure:
    return PodFailure(
        pod_name=member.name,
        version_name=target.version_name,
        manifest_digest=target.manifest_digest,
        reason=reason,
        message=message,
        time=now,
    )
