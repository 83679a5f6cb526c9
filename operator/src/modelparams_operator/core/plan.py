"""The planner: what is wanted and what is seen → the next safe steps. Every rule is below this function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from modelparams.api.rollout import PodCounts, RolloutStatus, Strategy
from modelparams.errors import InvalidVersion
from modelparams_operator.core.course import Course, is_complete, is_going_back, is_recent_return, steer
from modelparams_operator.core.facts import Facts, counted, has_progressed, is_staging
from modelparams_operator.core.failing import (
    deadline,
    failure_in_pods,
    has_fallen_again,
    is_stoppable,
    overdue_failure,
)
from modelparams_operator.core.fleet import Fleet
from modelparams_operator.core.memory import (
    changed,
    found_live,
    is_at_rest,
    promoted,
    refreshed,
    stopped,
    turned,
)
from modelparams_operator.core.model import Desired, Observed, Plan, Verify, VersionView
from modelparams_operator.core.orders import assignments
from modelparams_operator.core.predecessors import begun
from modelparams_operator.core.rest import rested
from modelparams_operator.core.rollout_status import conditions
from modelparams_operator.core.selection import Choice, choose
from modelparams_operator.core.steps import allowance
from modelparams_operator.core.strays import leaving, strays
from modelparams_operator.core.untouched import invalid, suspended, unseen

_A_SECOND = timedelta(seconds=1)
"""A version may be taken up in the very second of its notAfter."""
_END_OF_TIME = datetime.max.replace(microsecond=0, tzinfo=UTC)


def plan(desired: Desired, observed: Observed) -> Plan:
    """Name the next safe steps from `observed` towards `desired`.

    Level-based: it looks at the present state and at what the status remembers, so a step that was lost, repeated or
    half done is planned again. At the fixed point it returns no action and an equal status.

    Invariants (asserted by tests/sim):
      * no version is ordered before its bytes were verified, none that failed is ordered again, none below the floor;
      * a pod is ordered to serve only what it holds;
      * at most maxUnavailable pods are away because of us;
      * at most two versions are live; three only until pods have left one that was given up, or refused to for good.
    """
    spec, now, fleet = desired.spec, observed.now, Fleet.of(desired, observed)
    versions = tuple(view for view in observed.versions if view.spec.model_name == spec.model_name)
    checks, status = unverified(versions), begun(observed.status, desired, observed, fleet)
    if fleet.highest_term > observed.term:
        return Plan(observed.status, why=(_outranked(fleet.highest_term, observed.term),), is_outranked=True)
    if spec.suspend:
        return Plan(suspended(desired, status, now), checks, why=("suspended: nothing is touched",))
    if observed.blind_since is not None:
        blind = (f"nobody is moved: pods or orders cannot be followed since {observed.blind_since:%H:%M:%SZ}",)
        return Plan(unseen(desired, observed.status, observed.blind_since, now), checks, now + _A_SECOND, blind)

    memory = refreshed(status, desired, versions)
    memory, is_overdue = _judged(desired, observed, memory, fleet, versions)
    try:
        memory, choice = _chosen(desired, memory, fleet, versions, now)
    except InvalidVersion as error:
        return Plan(invalid(desired, status, str(error), now), checks, why=(str(error),))
    memory = turned(_arrived(desired, observed, memory, choice, fleet), choice, now)
    memory, course = steer(desired, observed, memory, choice, fleet)
    if memory.target is not None and is_complete(memory, course, fleet, len(spec.strategy.steps)):
        memory = promoted(memory, memory.target, spec, now)
        memory, course = steer(desired, observed, memory, choice, fleet)
    memory = rested(memory, course, fleet, is_overdue=is_overdue)
    memory = _timed(desired, observed, memory, course, fleet)

    orders = assignments(desired.name, observed.term, memory, course, fleet, versions)
    is_overdue = is_overdue and memory.progressed_at == observed.status.progressed_at
    facts = Facts(desired, memory, choice, course, fleet, versions, now, observed.term, is_overdue)
    status = changed(memory, observed_generation=desired.generation, conditions=conditions(facts))
    wake_at = _wake_at(desired, observed, status, course, versions)
    return Plan(status, (*checks, *orders), wake_at, _why(facts))


def _outranked(highest: int, ours: int) -> str:
    return (
        f"no order is written: one has term {highest}, ours is {ours}. Another operator took over; "
        "if none runs, restart this one, which then takes a term above the highest"
    )


def unverified(versions: Sequence[VersionView]) -> tuple[Verify, ...]:
    """Name the versions whose bytes are to be checked: all but those that people took out or the check refused."""
    return tuple(
        Verify(view.name)
        for view in versions
        if view.facts is None
        and not view.is_refused
        and not view.is_withdrawn
        and not view.deleting
        and not view.spec.suspend
    )


def _chosen(
    desired: Desired, memory: RolloutStatus, fleet: Fleet, versions: Sequence[VersionView], now: datetime
) -> tuple[RolloutStatus, Choice]:
    """Choose; and again when pods tell what is live, since that stays where none would take it up: a suspended one.

    Raises:
        InvalidVersion: the policy's range is none.
    """
    choice = choose(desired.spec, versions, memory, now)
    found = found_live(memory, desired, choice, fleet, versions)
    return found, choice if found is memory else choose(desired.spec, versions, found, now)


def _arrived(
    desired: Desired, observed: Observed, memory: RolloutStatus, choice: Choice, fleet: Fleet
) -> RolloutStatus:
    """Promote a target that all pods have come to, though a newer one is chosen in this very pass: it was live first.

    Else the pods would leave it for what was live before, on their way to the newer one. So would those that are back
    on the target of a return already: nobody goes once more to what a person took out.
    """
    target, chosen = memory.target, choice.release
    if target is None or chosen is None or chosen.version <= target.version or memory.target_sequence < memory.floor:
        return memory
    if not any(view.is_of(target) and view.is_standing for view in observed.versions):
        return memory
    after, course = steer(desired, observed, memory, choice, fleet)
    course = replace(course, ready_enough_at=None)  # a newer one ends the watch: all pods are there, and ready
    is_there = is_complete(after, course, fleet, len(desired.spec.strategy.steps))
    is_there = is_there or (_was_live_taken_out(memory, observed) and fleet.settled_on(target.manifest_digest) > 0)
    if not is_there:
        return memory
    arrived = promoted(after, target, desired.spec, observed.now)
    return arrived if fleet.away(memory.revision) == 0 else changed(arrived, revision=memory.revision)


def _was_live_taken_out(memory: RolloutStatus, observed: Observed) -> bool:
    live = memory.live
    return (
        is_going_back(memory)
        and live is not None
        and not any(view.is_of(live) and view.is_standing for view in observed.versions)
    )


def _judged(
    desired: Desired, observed: Observed, memory: RolloutStatus, fleet: Fleet, versions: Sequence[VersionView]
) -> tuple[RolloutStatus, bool]:
    """Stop the rollout of a target that a pod gave up, or that made no progress in time while it was its turn.

    Also says whether the deadline has passed, which is only reported when there is nothing to stop.
    """
    on_their_way = leaving(memory, desired.spec, versions, fleet)
    is_its_turn = not on_their_way or _was_anybody_taken_to(memory, fleet)
    is_late = _is_late(desired, observed, memory, counted(memory, fleet, on_their_way), fleet)
    is_late = is_late or has_fallen_again(memory, desired.spec.strategy, fleet, observed.now, observed.watching_since)
    if not is_stoppable(memory, versions):
        return memory, is_late
    failure = failure_in_pods(memory, fleet, observed.now)
    if failure is None and is_late and is_its_turn and not _is_known_good(memory, desired.spec.strategy, fleet):
        failure = overdue_failure(memory, desired.spec.strategy, fleet.within(observed.term), observed.now)
    if failure is None or any(f.manifest_digest == failure.manifest_digest for f in memory.failed_versions):
        return memory, is_late
    return stopped(memory, failure), False


def _was_anybody_taken_to(memory: RolloutStatus, fleet: Fleet) -> bool:
    """Tell whether a pod that served went to the target, though some may still lie on a version that was given up."""
    target = memory.target
    return target is not None and any(m.was_taken and m.side == target.manifest_digest for m in fleet.members)


def _is_known_good(memory: RolloutStatus, strategy: Strategy, fleet: Fleet) -> bool:
    """Tell whether pods go back to what was live before: silence does not speak against that, many that are sick do."""
    target = memory.target
    if target is None or not is_recent_return(memory, strategy):
        return False
    return fleet.unwell_on(target.manifest_digest) <= allowance(strategy.max_unavailable, fleet.total)


def _is_late(desired: Desired, observed: Observed, memory: RolloutStatus, pods: PodCounts, fleet: Fleet) -> bool:
    strategy = desired.spec.strategy
    limit = deadline(memory, strategy, observed.watching_since)
    if limit is None or observed.now < limit:
        return False
    return not has_progressed(memory.pods, pods, is_staging=is_staging(memory, desired.spec, fleet))


def _timed(desired: Desired, observed: Observed, memory: RolloutStatus, course: Course, fleet: Fleet) -> RolloutStatus:
    """Count the pods, and run the progress clock or stop it."""
    spec, steps = desired.spec, desired.spec.strategy.steps
    pods = counted(memory, fleet, leaving(memory, spec, observed.versions, fleet))
    is_closer = has_progressed(observed.status.pods, pods, is_staging=is_staging(memory, spec, fleet))
    is_same_work = memory.target == observed.status.target and memory.step_index == observed.status.step_index
    progressed_at = memory.progressed_at
    if not _is_clock_running(memory, course, fleet):
        progressed_at = None
    elif progressed_at is None or not is_same_work or is_closer:
        progressed_at = observed.now
    else:
        progressed_at = min(progressed_at, observed.now)  # one from the future is of another leader's clock
    index = len(steps) if course.is_direct else memory.step_index
    step = f"{index + 1}/{len(steps) + 1}" if memory.target is not None else ""
    return changed(memory, pods=pods, step=step, progressed_at=progressed_at)


def _is_clock_running(memory: RolloutStatus, course: Course, fleet: Fleet) -> bool:
    """Tell whether the progress deadline counts: only while somebody can and should make progress.

    Nothing holds pods on their way from a version that was given up.
    """
    if memory.target is None or not fleet.total or course.is_barred:
        return False
    if not course.is_direct and strays(memory, course, fleet):
        return True
    if not course.is_open or course.is_pausing:
        return False
    if course.ready_enough_at is not None and not fleet.away(memory.revision):
        return False  # nobody may follow yet
    return not is_at_rest(memory) or fleet.away(memory.revision) > 0 or bool(strays(memory, course, fleet))


def _wake_at(
    desired: Desired, observed: Observed, status: RolloutStatus, course: Course, versions: Sequence[VersionView]
) -> datetime | None:
    limit = deadline(status, desired.spec.strategy, observed.watching_since)
    ends = (view.facts.not_after for view in versions if view.facts is not None and view.facts.not_after is not None)
    waits = (course.pause_ends_at, course.ready_enough_at, course.previous_ends_at)
    times = (*waits, limit, *(min(end, _END_OF_TIME - _A_SECOND) + _A_SECOND for end in ends))
    return min((time for time in times if time is not None and time > observed.now), default=None)


def _why(facts: Facts) -> tuple[str, ...]:
    """Tell the decisions in the order in which they were made."""
    memory, course, choice = facts.memory, facts.course, facts.choice
    live, target = memory.live, memory.target
    chosen = f"chosen: {choice.release.version_name}" if choice.release is not None else "chosen: none"
    places = f"live: {live.version_name if live else '-'}, target: {target.version_name if target else '-'}"
    way = "no steps" if course.is_direct else f"step {memory.step}: {course.count} of {facts.fleet.total} pods"
    gate = "waits for an approval" if course.is_awaiting_approval else "open" if course.is_open else "held"
    if course.ready_enough_at is not None:
        gate = f"the pod that came last is watched until {course.ready_enough_at:%H:%M:%SZ}"
    away = f"{facts.fleet.away(memory.revision)} of at most {course.allowance} pods are away because of us"
    said = _say(choice)
    return tuple(line for line in (chosen + said, places, f"{way}, {gate}", away) if line)


def _say(choice: Choice) -> str:
    return f" ({choice.reason}: {choice.message})" if choice.message else ""
