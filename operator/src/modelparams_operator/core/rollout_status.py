"""Facts of a rollout → its conditions: a chain of named checks, of which the first that speaks is what Ready says.

kstatus, `kubectl wait` and Argo CD read them: `Reconciling` or `Stalled` is present while it is true, never both;
trouble that is tried again never stalls; a rollout is Ready when its pods serve what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, carried_over
from modelparams.api.release import Release
from modelparams.api.rollout import FailedVersion, RolloutStatus
from modelparams.names import VersionRange
from modelparams.reasons import Reason
from modelparams_operator.core.facts import Facts
from modelparams_operator.core.failing import behind
from modelparams_operator.core.fleet import ANSWERED_TERM_MAX, Member
from modelparams_operator.core.gates import passed_over
from modelparams_operator.core.memory import is_at_rest, is_failed
from modelparams_operator.core.model import Desired
from modelparams_operator.core.selection import FAILED_LIMIT, is_inside
from modelparams_operator.core.strays import strays

Found = tuple[ConditionType, ConditionStatus, Reason, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Ready says, and which of the two that exclude each other stands beside it."""

    ready: ConditionStatus
    beside: Literal["Reconciling", "Stalled"] | None
    reason: Reason
    message: str


def _reconciling(reason: Reason, message: str, *, ready: ConditionStatus = ConditionStatus.UNKNOWN) -> Verdict:
    return Verdict(ready, "Reconciling", reason, message)


def _stalled(reason: Reason, message: str) -> Verdict:
    return Verdict(ConditionStatus.FALSE, "Stalled", reason, message)


def conditions(facts: Facts) -> tuple[Condition, ...]:
    """Sum a pass up; an unchanged one keeps its transition time."""
    spoken = (check(facts) for check in _CHECKS)
    verdict = next((verdict for verdict in spoken if verdict is not None), None) or _serving(facts)
    paused = ((ConditionType.PAUSED, ConditionStatus.TRUE, Reason.PAUSED, "spec.paused holds the rollout at its step"),)
    found = (
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.AVAILABLE, *_available(facts)),
        *(paused if facts.desired.spec.paused else ()),
        *_beside(verdict),
    )
    return dated(found, facts.desired, facts.memory, facts.now)


def dated(found: tuple[Found, ...], desired: Desired, status: RolloutStatus, now: datetime) -> tuple[Condition, ...]:
    """Date what was found; what is as it was keeps its transition time."""
    made = (
        Condition(
            type=kind,
            status=value,
            reason=reason,
            message=message,
            observed_generation=desired.generation,
            last_transition_time=now,
        )
        for kind, value, reason, message in found
    )
    return carried_over(made, status.conditions)


def _beside(verdict: Verdict) -> tuple[Found, ...]:
    if verdict.beside is None:
        return ()
    return ((ConditionType(verdict.beside), ConditionStatus.TRUE, verdict.reason, verdict.message),)


def _available(facts: Facts) -> tuple[ConditionStatus, Reason, str]:
    pods, ready = facts.memory.pods, sum(1 for member in facts.fleet.members if member.is_ready)
    if not pods.total:
        return ConditionStatus.UNKNOWN, Reason.NO_PODS, "no pod is selected"
    message = f"{pods.available} of {pods.total} pods serve a verified version"
    if pods.available and pods.available == ready:
        return ConditionStatus.TRUE, Reason.PODS_SERVING, message
    return ConditionStatus.FALSE, Reason.PODS_NOT_SERVING, message


def _claimed_twice(facts: Facts) -> Verdict | None:
    claims = facts.fleet.claimed_twice
    if not claims:
        return None
    more = len(claims) - 1
    pods = f"pods {claims[0][0]} and {more} more are" if more else f"pod {claims[0][0]} is"
    claim = f"{pods} selected by rollout {claims[0][1]} too"
    return _stalled(
        Reason.PODS_CLAIMED_TWICE, f"{claim}; make the selectors exclude each other, or delete one of the two"
    )


def _leaving(facts: Facts) -> bool:
    """Tell whether pods are on their way back to what is live."""
    memory = facts.memory
    if not is_at_rest(memory) or facts.course.is_barred or not facts.course.is_open:
        return False
    gone = (m for m in facts.fleet.members if m.is_away(memory.revision))
    return any(not _follows(memory, member) for member in (*strays(memory, facts.course, facts.fleet), *gone))


def _follows(memory: RolloutStatus, member: Member) -> bool:
    """Tell whether it comes from what was live before: one that was not ready when all others went."""
    served = member.answer.live if member.answer is not None else None
    if served is None or memory.live is None or is_failed(memory, served.manifest_digest):
        return False
    return served.version < memory.live.version


def _outranked(facts: Facts) -> Verdict | None:
    """Speak of pods that ignore our orders: they obeyed a term of which a backup or new installation knows nothing."""
    beyond = facts.fleet.beyond(facts.term)
    if not beyond:
        return None
    more = len(beyond) - 1
    pods = f"pods {beyond[0].name} and {more} more obey" if more else f"pod {beyond[0].name} obeys"
    ours = f"{pods} no order below term {beyond[0].obeyed_term}, and ours have {facts.term}"
    if beyond[0].obeyed_term > ANSWERED_TERM_MAX:
        return _stalled(Reason.STALE_TERM, f"{ours}; no operator has such a term: delete that pod")
    return _stalled(Reason.STALE_TERM, f"{ours}; restart the operator, which then takes a higher term")


def _rolling_back(facts: Facts) -> Verdict | None:
    """Speak of pods that leave a version that failed or was given up."""
    memory, target = facts.memory, facts.memory.target
    is_returning = facts.course.is_going_back and facts.course.is_open
    if target is None or not facts.fleet.total or facts.is_overdue or not (is_returning or _leaving(facts)):
        return None
    because = memory.last_failure if _failed_candidate(facts) else None
    message = f"{memory.pods.updated} of {memory.pods.total} pods are back on {target.version_name}"
    if facts.course.is_pausing:
        message += f"; {_pausing(facts)}"
    if because is not None:
        message += f", after {because.pod_name} could not take {because.version_name}: {because.message}"
    ready = ConditionStatus.FALSE if because is not None else ConditionStatus.UNKNOWN
    return _reconciling(Reason.ROLLING_BACK, message, ready=ready)


def _overdue(facts: Facts) -> Verdict | None:
    target = facts.memory.target
    if not facts.is_overdue or target is None or is_failed(facts.memory, target.manifest_digest):
        return None
    member = behind(target.manifest_digest, facts.fleet)
    seconds = facts.desired.spec.strategy.progress_deadline_seconds
    message = f"no progress towards {target.version_name} for {seconds} s"
    if member is not None:
        message += f"; the first pod behind is {member.name}: see its events and logs, mend or delete it"
    return _stalled(Reason.PROGRESS_DEADLINE_EXCEEDED, message)


def _choice_stalls(facts: Facts) -> Verdict | None:
    choice = facts.choice
    return _stalled(choice.reason, choice.message) if choice.stalls else None


def _failed(facts: Facts) -> Verdict | None:
    """Speak of a version that would be wanted, has failed in pods, and waits for a person; not while another comes."""
    found, memory = _failed_candidate(facts), facts.memory
    if found is None or _is_another_coming(memory):
        return None
    where = f": {found.message.rstrip('.')}" if found.message else ""
    if memory.target is not None and is_failed(memory, memory.target.manifest_digest):
        stays = "the rollout is held"
    else:
        stays = f"{memory.live.version_name} stays live" if memory.live is not None else "pods keep what they serve"
    next_step = "publish a new version, or set spec.retryToken to try again"
    if len(memory.failed_versions) >= FAILED_LIMIT:
        next_step = (
            f"{FAILED_LIMIT} have failed: no newer one is tried before you delete theirs, or set spec.retryToken"
        )
    return _stalled(found.reason, f"{found.version_name} failed{where}; {stays}; {next_step}")


def _is_another_coming(memory: RolloutStatus) -> bool:
    target = memory.target
    return target is not None and not is_at_rest(memory) and not is_failed(memory, target.manifest_digest)


def _failed_candidate(facts: Facts) -> FailedVersion | None:
    """Find the highest failed version that would be chosen otherwise."""
    memory, policy = facts.memory, facts.desired.spec.version_policy
    target = memory.target
    known = {(failed.version_name, failed.manifest_digest): failed for failed in memory.failed_versions}
    if not known:
        return None
    wanted = (target.version_name, target.manifest_digest) if target is not None else None
    if wanted in known and not is_at_rest(memory):
        return known[wanted]
    found = [
        view
        for view in facts.versions
        if (view.name, view.digest) in known
        and not view.deleting
        and (view.name == policy.version_name or (policy.range and is_inside(VersionRange(policy.range), view.version)))
        and (policy.type == "Pinned" or target is None or view.version > target.version)
    ]
    if not found:
        return None
    best = max(found, key=lambda view: view.version.parsed)
    return known[best.name, best.digest]


def _no_choice(facts: Facts) -> Verdict | None:
    choice = facts.choice
    if choice.release is not None and choice.reason is Reason.PROMOTED:
        return None
    if choice.is_transient:
        ready = ConditionStatus.UNKNOWN if choice.reason is Reason.VERIFYING else ConditionStatus.FALSE
        return _reconciling(choice.reason, choice.message, ready=ready)
    return Verdict(ConditionStatus.FALSE, None, choice.reason, choice.message)


def _no_pods(facts: Facts) -> Verdict | None:
    """Speak of a workload of no pods: ready, as a Deployment scaled to zero is, though nothing skips its steps."""
    if facts.fleet.total:
        return None
    target = facts.memory.target
    name = target.version_name if target is not None else "-"
    is_live = is_at_rest(facts.memory)
    next_step = f"new ones get {name}" if is_live else f"{name} is rolled out when there are some"
    return Verdict(ConditionStatus.TRUE, None, Reason.NO_PODS, f"no pod is selected; {next_step}")


def _paused(facts: Facts) -> Verdict | None:
    if not facts.desired.spec.paused or is_at_rest(facts.memory) or facts.course.is_going_back:
        return None
    return _reconciling(
        Reason.PAUSED, f"spec.paused holds {_target(facts)} at step {facts.memory.step}, {_done(facts)}"
    )


def _trouble(facts: Facts) -> Verdict | None:
    """Speak of a pod that could not take the version: for good, or it tries again."""
    found = facts.failures
    if not found:
        return None
    final = [(member, failure) for member, failure in found if failure.final]
    member, failure = (final or found)[0]
    message = f"pod {member.name}: {failure.message}"
    if final:
        return _stalled(failure.reason, message)
    return _reconciling(failure.reason, message, ready=ConditionStatus.FALSE)


def _step_pause(facts: Facts) -> Verdict | None:
    if not facts.course.is_pausing:
        return None
    reason = Reason.AWAITING_APPROVAL if facts.course.is_awaiting_approval else Reason.STEP_PAUSE
    return _reconciling(reason, f"{_done(facts)}; {_pausing(facts)}")


def _pausing(facts: Facts) -> str:
    """Say what holds a step that is done; where it is a person, what to write, and which approvals do not count."""
    memory, ends = facts.memory, facts.course.pause_ends_at
    if ends is not None:
        return f"step {memory.step} pauses until {ends:%Y-%m-%dT%H:%M:%SZ}"
    number = memory.step_index + 1
    said = f"step {memory.step} waits until somebody approves {_target(facts)} through step {number} in spec.approvals"
    others = passed_over(facts.desired.spec, memory.target) if memory.target is not None else ()
    return said + "".join(f"; {why}" for why in others)


def _moving(facts: Facts) -> Verdict | None:
    """Say how far staging and swapping are."""
    pods, target = facts.memory.pods, facts.memory.target
    if target is None or (is_at_rest(facts.memory) and facts.fleet.settled_on(target.manifest_digest) == pods.total):
        return None
    if pods.staged < pods.total and pods.updated < facts.course.count:
        slowest = f", the slowest of the others at {pods.slowest_percent}%" if pods.slowest_percent else ""
        message = f"{pods.staged} of {pods.total} pods hold {target.version_name}{slowest}"
        return _reconciling(Reason.STAGING, message + _sick_and_without(facts, target))
    if is_at_rest(facts.memory) and pods.updated == pods.total:
        return _reconciling(Reason.PODS_NOT_SERVING, f"{_done(facts)}{_unwell(facts, target)}")
    said = f"step {facts.memory.step}: {_done(facts)}{_unwell(facts, target)}{_watching(facts)}"
    return _reconciling(Reason.SWAPPING, said)


def _watching(facts: Facts) -> str:
    """Say how long the pod that came last is looked at before anything follows."""
    until = facts.course.ready_enough_at
    return f"; watched until {until:%Y-%m-%dT%H:%M:%SZ}" if until is not None else ""


def _sick_and_without(facts: Facts, target: Release) -> str:
    """Name the first pod that is not ready and does not hold what all others serve: it may be waited for in vain."""
    if not is_at_rest(facts.memory):
        return ""
    found = [m.name for m in facts.fleet.members if not m.is_ready and not m.holds(target.manifest_digest)]
    return f"; pod {found[0]} is not ready" if found else ""


def _unwell(facts: Facts, target: Release) -> str:
    """Name the first pod that serves the target and is not ready."""
    found = [m.name for m in facts.fleet.members if m.serves == target.manifest_digest and not m.is_ready]
    if not found:
        return ""
    return (
        f"; pod {found[0]} is not ready" if len(found) == 1 else f"; pods {found[0]} and {len(found) - 1} more are not"
    )


def _serving(facts: Facts) -> Verdict:
    return Verdict(ConditionStatus.TRUE, None, Reason.PROMOTED, f"{_done(facts)}")


def _target(facts: Facts) -> str:
    return facts.memory.target.version_name if facts.memory.target is not None else "-"


def _done(facts: Facts) -> str:
    return f"{facts.memory.pods.updated} of {facts.memory.pods.total} pods serve {_target(facts)}"


_CHECKS: tuple[Callable[[Facts], Verdict | None], ...] = (
    _claimed_twice,
    _outranked,
    _rolling_back,
    _overdue,
    _choice_stalls,
    _failed,
    _no_choice,
    _no_pods,
    _paused,
    _step_pause,
    _trouble,
    _moving,
)
