"""The course of one pass: where pods belong, how many of them may go there now, and what they wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelparams.api.release import Release
from modelparams.api.rollout import FALLEN_MAX, Fall, RolloutSpec, RolloutStatus, Step, Strategy
from modelparams.digest import Digest
from modelparams_operator.core.fleet import Fleet
from modelparams_operator.core.gates import is_expedited, is_held, waits_for_a_person
from modelparams_operator.core.memory import changed, is_at_rest, is_failed, is_same, well_since
from modelparams_operator.core.model import Desired, Observed, VersionView
from modelparams_operator.core.selection import Choice
from modelparams_operator.core.steps import after_an_edit, allowance, hash_of, pause_ends, ready_enough_at, wanted


@dataclass(frozen=True, slots=True)
class Course:
    """What `orders` and the conditions read."""

    live: Release | None
    home: Release | None
    """What a pod gets that serves neither live nor target."""
    target: Release | None
    is_direct: bool
    """True without steps: every pod belongs on the target."""
    is_open: bool
    """True when pods may be moved to the target now."""
    is_going_back: bool
    """True when pods leave what was rolled out for what was live before."""
    count: int
    """How many pods belong on the target now."""
    allowance: int
    pause_ends_at: datetime | None
    """The end of the timed pause that holds the present step."""
    ready_enough_at: datetime | None
    """When the pod that came last will have been ready for minReadySeconds: no ready one follows it before."""
    previous_ends_at: datetime | None
    """When pods stop holding what they served before; None: not by time."""
    is_awaiting_approval: bool
    """True when the present step is done and waits for a person."""
    is_at_rest: bool
    keeps_previous: bool
    """True while pods hold what they served before."""
    barred: frozenset[Digest]
    """What is below the floor: it is served on where it is, and ordered to nobody."""
    withdrawn: frozenset[Digest]
    """What people took out, of live and target: only a pod that serves nothing is brought there."""
    places: frozenset[Digest]
    """The versions that are not given up."""
    homes: frozenset[Digest]
    """The versions on which pods may stay: without steps, the target alone."""

    @property
    def is_pausing(self) -> bool:
        """The step is done, and held: nobody can and should make progress."""
        return self.pause_ends_at is not None or self.is_awaiting_approval

    @property
    def refuge(self) -> Release | None:
        """Where a pod goes that may not stay where it is."""
        return self.target if self.is_direct else self.home

    @property
    def is_barred(self) -> bool:
        """Nobody is ordered to the target: it is below the floor."""
        return self.target is not None and self.target.manifest_digest in self.barred


def steer(
    desired: Desired, observed: Observed, memory: RolloutStatus, choice: Choice, fleet: Fleet
) -> tuple[RolloutStatus, Course]:
    """Advance through the steps as far as pods and pauses allow, and say what follows for this pass."""
    spec, strategy, target = desired.spec, desired.spec.strategy, memory.target
    is_open = target is not None and _is_open(desired, memory, target, choice, observed.versions, fleet)
    is_direct = is_without_steps(memory, spec)
    memory = _fallen(
        _watched(memory, strategy, fleet, observed.now, is_direct=is_direct), memory, strategy, fleet, observed.now
    )
    memory = _stepped(desired, memory, fleet, observed.now, is_direct=is_direct, is_open=is_open)
    ends = None if is_direct else pause_ends(strategy.steps, memory.step_index, memory.step_reached_at)
    ready_at = ready_enough_at(memory.last_ready_at, strategy.min_ready_seconds)
    previous_ends_at = _previous_ends_at(memory, strategy)
    home = home_of(memory, observed.versions)
    return memory, Course(
        live=memory.live,
        home=home,
        target=target,
        is_direct=is_direct,
        is_open=is_open,
        is_going_back=is_going_back(memory),
        count=due(memory, spec, fleet.total),
        allowance=allowance(strategy.max_unavailable, fleet.total),
        is_at_rest=is_at_rest(memory),
        barred=_barred(memory),
        withdrawn=_digests(
            *(r for r in (memory.live, target) if r is not None and _is_withdrawn(r, observed.versions))
        ),
        pause_ends_at=ends if ends is not None and ends > observed.now else None,
        ready_enough_at=ready_at if ready_at is not None and ready_at > observed.now else None,
        previous_ends_at=previous_ends_at,
        keeps_previous=previous_ends_at is None or observed.now < previous_ends_at,
        is_awaiting_approval=not is_direct and _is_awaiting_approval(memory, spec),
        places=_digests(memory.live, home, target),
        homes=homes_of(memory, home, is_direct=is_direct),
    )


def _watched(
    memory: RolloutStatus, strategy: Strategy, fleet: Fleet, now: datetime, *, is_direct: bool
) -> RolloutStatus:
    """Note when a pod last became ready on the target, by our own clock: those of pods and nodes may be others.

    Known by the growth of their number since the last pass. So the time begins anew for all with each that comes: at
    most maxUnavailable are in it, and a rollout is a little slower than one that kept a time for each pod. Who served
    nobody before is not counted: it may come and go for reasons of its own.
    """
    ready = fleet.taken_to(memory.target.manifest_digest) if memory.target is not None else 0
    if is_direct or not ready or not strategy.min_ready_seconds:
        return changed(memory, last_ready_at=None)
    since = memory.last_ready_at
    is_new = since is None or ready > memory.pods.updated_ready
    # One from the future is of another leader's clock.
    return changed(memory, last_ready_at=now if is_new or since is None else min(since, now))


def _fallen(
    memory: RolloutStatus, before: RolloutStatus, strategy: Strategy, fleet: Fleet, now: datetime
) -> RolloutStatus:
    """Note who fell over since the last pass, where pods were looked at; forget it when all were well for long."""
    since = well_since(before)
    if since is None or memory.target is None:
        return memory
    is_long = now - since >= timedelta(seconds=strategy.progress_deadline_seconds)
    known = () if is_long else memory.fallen
    names = {one.pod_name for one in known}
    down = fleet.unwell(memory.target.manifest_digest, memory.revision)
    new = (Fall(pod_name=member.name, time=now) for member in down if member.name not in names)
    return changed(memory, fallen=(*known, *new)[:FALLEN_MAX])


def _previous_ends_at(memory: RolloutStatus, strategy: Strategy) -> datetime | None:
    """Say when pods stop holding what was live before: some time after the last promotion."""
    if strategy.keep_previous_seconds is None or not is_at_rest(memory):
        return None
    promoted_at = next((r.finished_at for r in memory.history if r.outcome == "Promoted"), None)
    return None if promoted_at is None else promoted_at + timedelta(seconds=strategy.keep_previous_seconds)


def _is_awaiting_approval(memory: RolloutStatus, spec: RolloutSpec) -> bool:
    if memory.target is None or memory.step_reached_at is None:
        return False
    return waits_for_a_person(spec, memory.target, memory.step_index)


def homes_of(memory: RolloutStatus, home: Release | None, *, is_direct: bool) -> frozenset[Digest]:
    """Name the versions on which pods may stay."""
    if is_direct and memory.target is not None:
        return _digests(memory.target)
    return _digests(memory.live, home, memory.target)


def _digests(*releases: Release | None) -> frozenset[Digest]:
    return frozenset(release.manifest_digest for release in releases if release is not None)


def _is_open(
    desired: Desired,
    memory: RolloutStatus,
    target: Release,
    choice: Choice,
    versions: Sequence[VersionView],
    fleet: Fleet,
) -> bool:
    """Tell whether pods may be taken to the target now.

    At rest they may, unless it was withdrawn and there is nothing else: then they keep what they serve. What all pods
    serve already, by another rollout's orders, is no more held by `paused` than if this one had brought it there.
    """
    if is_at_rest(memory):
        return choice.release is not None or not _is_withdrawn(target, versions)
    if choice.release is None or is_failed(memory, target.manifest_digest):
        return False
    return is_going_back(memory) or not desired.spec.paused or (memory.live is None and fleet.serves_alone(target))


def is_going_back(memory: RolloutStatus) -> bool:
    """Tell whether the target is older than what is live: `paused` does not hold that."""
    return memory.live is not None and memory.target is not None and memory.target.version < memory.live.version


def is_without_steps(memory: RolloutStatus, spec: RolloutSpec) -> bool:
    """First versions, what is expedited, returns to what is live and to one of the last live versions take no steps."""
    live, target = memory.live, memory.target
    if live is None or target is None or is_same(live, target) or is_expedited(spec, target):
        return True
    return is_recent_return(memory, spec.strategy)


def is_recent_return(memory: RolloutStatus, strategy: Strategy) -> bool:
    """Tell whether the target was live not long ago: rollbackWindow knows it."""
    live, target = memory.live, memory.target
    if live is None or target is None or target.version >= live.version:
        return False
    return target.manifest_digest in _window(memory, strategy, live.manifest_digest)


def due(memory: RolloutStatus, spec: RolloutSpec, total: int) -> int:
    """Say how many pods belong on the target in the present step."""
    return total if is_without_steps(memory, spec) else wanted(spec.strategy.steps, memory.step_index, total)


def _window(memory: RolloutStatus, strategy: Strategy, live: Digest) -> list[Digest]:
    """List the last live versions before the present one, as many as rollbackWindow allows."""
    promoted = (r.manifest_digest for r in memory.history if r.outcome == "Promoted" and r.manifest_digest != live)
    return list(dict.fromkeys(promoted))[: strategy.rollback_window.revisions]


def home_of(memory: RolloutStatus, versions: Sequence[VersionView]) -> Release | None:
    """Take what is live, unless it was withdrawn or is below the floor: then new pods get the target if they may."""
    live, target = memory.live, memory.target
    if live is None or is_same(live, target):
        return target
    is_low = memory.live_sequence < memory.floor
    if not is_low and not _is_left(memory, live, versions):
        return live
    if target is not None and not is_failed(memory, target.manifest_digest):
        return target
    return None if is_low else live


def _is_left(memory: RolloutStatus, live: Release, versions: Sequence[VersionView]) -> bool:
    """Tell whether nobody is brought to what is live: it was withdrawn, or its deletion is what all go back for."""
    if _is_withdrawn(live, versions):
        return True
    return is_going_back(memory) and not any(v.is_of(live) and v.is_standing for v in versions)


def _barred(memory: RolloutStatus) -> frozenset[Digest]:
    known = ((memory.live, memory.live_sequence), (memory.target, memory.target_sequence))
    return frozenset(r.manifest_digest for r, sequence in known if r is not None and sequence < memory.floor)


def _is_withdrawn(release: Release, versions: Sequence[VersionView]) -> bool:
    return any(v.is_of(release) and v.is_withdrawn for v in versions)


def _stepped(
    desired: Desired, memory: RolloutStatus, fleet: Fleet, now: datetime, *, is_direct: bool, is_open: bool
) -> RolloutStatus:
    strategy, target = desired.spec.strategy, memory.target
    if target is None or is_direct:
        return _past_steps(memory, strategy.steps)
    steps, fallen = strategy.steps, memory.fallen
    serving = fleet.settled_on(target.manifest_digest)
    index, reached_at = _place_in_plan(desired.spec, memory, target, serving, fleet.total)
    is_unwell = fleet.unwell_on(target.manifest_digest, memory.revision) > 0
    if is_unwell or not serving:
        reached_at = None  # a pause is for watching its pods at work, not one that fell over in it, or is gone
    if _has_grown(steps, index, memory.pods.total, fleet.total) and serving < wanted(steps, index, fleet.total):
        reached_at = None  # nor those that come when there are more pods to take a share of
    ready_at = ready_enough_at(memory.last_ready_at, strategy.min_ready_seconds)
    is_open = is_open and (ready_at is None or ready_at <= now)
    while is_open and fleet.total and index < len(steps) and serving >= wanted(steps, index, fleet.total):
        if is_unwell and steps[index].pause is not None:
            break  # it has until the deadline, though as many others are well as the step asks
        reached_at = min(reached_at or now, now)  # one from the future is of another leader's clock
        if is_held(desired.spec, target, index, reached_at, now):
            break
        index, reached_at, fallen = index + 1, None, ()
    here = {"step_index": index, "steps_hash": hash_of(steps)}
    return changed(memory, **here, step_reached_at=reached_at, fallen=fallen)


def _has_grown(steps: Sequence[Step], index: int, before: int, total: int) -> bool:
    return 0 < before < total and wanted(steps, index, total) > wanted(steps, index, before)


def _past_steps(memory: RolloutStatus, steps: Sequence[Step]) -> RolloutStatus:
    """Leave the steps alone. Where it goes on without them for now, its place is kept: `expedite` may be taken back."""
    if memory.live is None or memory.target is None or is_at_rest(memory):
        memory = changed(memory, step_index=len(steps), steps_hash="")
    return changed(memory, step_reached_at=None, fallen=())


def _place_in_plan(
    spec: RolloutSpec, memory: RolloutStatus, target: Release, serving: int, total: int
) -> tuple[int, datetime | None]:
    """Say in which step it is, and since when that is done: in an edited plan by how many pods serve the target.

    The index is one of the plan before, so gates are looked for in all of the new one: an edit opens none. An index
    without a plan's name is of an operator that kept none.
    """
    steps, index, reached_at = spec.strategy.steps, memory.step_index, memory.step_reached_at
    if memory.steps_hash == hash_of(steps) or (not memory.steps_hash and not index):
        return index, reached_at
    edited = after_an_edit(steps, total, serving)
    edited = next((i for i in range(edited) if waits_for_a_person(spec, target, i)), edited)
    is_done = edited == index and serving >= wanted(steps, edited, total)
    return edited, reached_at if is_done else None  # a step that an edit leads to has its pause from then on


def is_complete(memory: RolloutStatus, course: Course, fleet: Fleet, last_step: int) -> bool:
    """Tell whether the target is what all pods serve that serve anything.

    Pods that were not serving when they were ordered do not hold a promotion: with pods coming and crashing for
    reasons of their own, no rollout would ever end. The very first version needs all.
    """
    target = memory.target
    if target is None or is_at_rest(memory) or not course.is_open or course.ready_enough_at is not None:
        return False
    if not course.is_direct and memory.step_index < last_step:
        return False
    settled = fleet.settled_on(target.manifest_digest)
    if memory.live is None:
        return 0 < settled == fleet.total
    moved = all(m.is_settled and m.side == target.manifest_digest for m in fleet.members if m.is_ready)
    return settled > 0 and moved and fleet.away(memory.revision) == 0
