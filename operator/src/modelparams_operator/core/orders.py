"""The order for each pod: what to hold, what to serve, and who may move in this pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelparams.api.assignment import AssignmentSpec
from modelparams.api.release import Release
from modelparams.api.rollout import RolloutStatus
from modelparams.digest import Digest
from modelparams_operator.core.course import Course
from modelparams_operator.core.fleet import Fleet, Member
from modelparams_operator.core.memory import attempt_of, is_failed
from modelparams_operator.core.model import Assign, VersionView
from modelparams_operator.core.strays import lost, place_outside, strays

_Identity = tuple[str, Digest]
"""A version's name and digest."""


def assignments(
    name: str, term: int, memory: RolloutStatus, course: Course, fleet: Fleet, versions: Sequence[VersionView]
) -> tuple[Assign, ...]:
    """Write the orders that differ from those that stand.

    Staging is for all pods at once; moving is for those whom `_movers` names. A pod is ordered to serve only what it
    reports as staged.
    """
    if course.home is None and course.target is None:
        return ()
    clerk = _Clerk(name, term, memory, course, _dropped(memory, versions))
    destinations = _destinations(memory, course, fleet)
    movers = _movers(memory, course, fleet, destinations)
    written = (clerk.order(member, destinations[member.name], member.name in movers) for member in fleet.members)
    return tuple(assign for assign in written if assign is not None)


def _dropped(memory: RolloutStatus, versions: Sequence[VersionView]) -> frozenset[_Identity]:
    """Name what is not worth holding ready: failed or withdrawn."""
    withdrawn = {(view.name, view.digest) for view in versions if view.is_withdrawn}
    return frozenset(withdrawn | {(failed.version_name, failed.manifest_digest) for failed in memory.failed_versions})


def _destinations(memory: RolloutStatus, course: Course, fleet: Fleet) -> Mapping[str, Release | None]:
    """Say where each pod belongs now.

    Under steps, pods join the target as the count asks, the broken first, and stay. While ready pods are still on a
    version that was given up, only broken ones do, by which no third version is live: those go home first, so that
    it is not for long, and may wait for the very ones that the target mends.
    """
    target = course.target
    if target is None or course.is_direct:
        return {member.name: target for member in fleet.members}
    digest = target.manifest_digest
    on_target = [member for member in fleet.members if member.side == digest]
    joined = {member.name for member in on_target}
    if course.is_open:
        joined |= _joining(target, memory, course, fleet, on_target)
    waiting = {member.name for member in lost(memory, course, fleet)} - joined
    outside = ((m, None if m.name in waiting else place_outside(m, memory, course)) for m in fleet.members)
    return {m.name: target if m.name in joined else home for m, home in outside}


def _joining(
    target: Release, memory: RolloutStatus, course: Course, fleet: Fleet, on_target: Sequence[Member]
) -> set[str]:
    """Choose who joins the target.

    A broken pod answers nobody, so it goes first. But it may be past help: until it is ready it stands in for
    nobody else, and no more broken ones are tried at once than the step has pods.
    """
    digest, attempt = target.manifest_digest, attempt_of(memory)
    broken_there = sum(1 for m in on_target if not m.is_ready and not m.is_away(memory.revision))
    need = course.count - (len(on_target) - broken_there)
    candidates = [m for m in fleet.members if m.side != digest and m.holds(digest) and not m.gave_up(digest, attempt)]
    candidates.sort(key=lambda m: (m.side is None or m.side in course.homes, m.name))
    broken = [m.name for m in candidates if not m.is_ready][: max(0, min(need, course.count - broken_there))]
    if strays(memory, course, fleet) and not lost(memory, course, fleet):
        return set(broken)
    if course.ready_enough_at is not None:
        return set(broken)
    room = max(0, min(need - len(broken), course.allowance - fleet.away(memory.revision)))
    return set(broken) | {m.name for m in [m for m in candidates if m.is_ready][:room]}


def _movers(
    memory: RolloutStatus, course: Course, fleet: Fleet, destinations: Mapping[str, Release | None]
) -> frozenset[str]:
    """Choose who is ordered to serve its destination in this pass.

    Pods that serve nobody move freely. The ready ones move as maxUnavailable allows, first those that leave a
    version that was given up.
    """
    waiting = [m for m in fleet.members if (to := destinations[m.name]) is not None and _can_move(m, to, course)]
    free = [m for m in waiting if not m.is_ready or _is_there(m, destinations)]
    paying = [m for m in waiting if m.is_ready and not _is_there(m, destinations)]
    paying.sort(key=lambda m: (m.serves in course.places, m.name))
    room = max(0, course.allowance - fleet.away(memory.revision))
    return frozenset(m.name for m in (*free, *paying[:room]))


def _is_there(member: Member, destinations: Mapping[str, Release | None]) -> bool:
    to = destinations[member.name]
    return to is not None and member.serves == to.manifest_digest


def _can_move(member: Member, to: Release, course: Course) -> bool:
    digest = to.manifest_digest
    is_ordered = member.order is not None and member.order.activate == digest
    is_elsewhere = course.target is None or course.target.manifest_digest != digest
    is_allowed = course.is_open or is_elsewhere or (course.is_at_rest and member.serves is None)
    is_taken_out = digest in course.barred or (digest in course.withdrawn and member.serves is not None)
    if is_ordered or not member.holds(digest):
        return False
    return member.serves == digest or (is_allowed and not is_taken_out)


@dataclass(frozen=True, slots=True)
class _Clerk:
    name: str
    term: int
    memory: RolloutStatus
    course: Course
    dropped: frozenset[_Identity]

    def order(self, member: Member, to: Release | None, moves: bool) -> Assign | None:
        """Write the order for one pod; None when the one that stands says the same."""
        standing = member.order
        activate = to.manifest_digest if moves and to is not None else self._stays(member, to)
        releases = self._releases(member, to, activate)
        if not releases:
            return None
        attempt = attempt_of(self.memory)
        if standing is not None and (
            standing.activate == activate
            and standing.attempt == attempt
            and standing.rollout_name == self.name
            and standing.term >= min(member.obeyed_term, self.term)
            and _are_equal(standing.releases, releases, member)
        ):
            return None
        order = AssignmentSpec(
            rollout_name=self.name,
            pod_uid=member.uid,
            releases=releases,
            activate=activate,
            term=self.term,
            attempt=attempt,
            moved_in=self._moved_in(member, activate),
        )
        return Assign(member.name, member.uid, order)

    def _stays(self, member: Member, to: Release | None) -> Digest | None:
        """Let an order to serve stand, unless the pod never came to serve it and should not, or will not, any more."""
        ordered = member.order.activate if member.order is not None else None
        if ordered is None or ordered == member.serves or (to is not None and ordered == to.manifest_digest):
            return ordered
        is_moot = ordered not in self.course.places or member.gave_up(ordered, attempt_of(self.memory))
        return None if is_moot else ordered

    def _moved_in(self, member: Member, activate: Digest | None) -> int | None:
        """Note who was taken from serving. A pod that is away because of us stays so when it is sent elsewhere."""
        standing = member.order
        if standing is not None and standing.activate == activate:
            return standing.moved_in
        is_taken = activate is not None and member.is_ready and member.serves not in (None, activate)
        return self.memory.revision if is_taken or member.is_away(self.memory.revision) else None

    def _releases(self, member: Member, to: Release | None, activate: Digest | None) -> tuple[Release, ...]:
        """Name at most two: what is served (or will be) and what must be ready beside it."""
        served = activate or member.serves
        first = self._release(member, served) if served is not None else None
        room = 2 if served is None or first is not None else 1  # what it serves takes a place, known to us or not
        chosen: dict[Digest, Release] = {}
        for release in (first, to, *self._beside(member)):
            if release is not None and len(chosen) < room and self._may_hold(release, served):
                chosen.setdefault(release.manifest_digest, release)
        return tuple(chosen.values())

    def _may_hold(self, release: Release, served: Digest | None) -> bool:
        """Refuse what is below the floor to whoever does not serve it."""
        return release.manifest_digest == served or release.manifest_digest not in self.course.barred

    def _beside(self, member: Member) -> Iterator[Release | None]:
        """Name the canary's other side, under steps; then what a serving pod held before, for an instant return."""
        target, standing = self.course.target, member.order.releases if member.order is not None else ()
        if not self.course.is_direct and target is not None:
            if not is_failed(self.memory, target.manifest_digest) or target in standing:
                yield target
            yield self.course.home
        if self.course.keeps_previous and member.order is not None and member.order.activate is not None:
            yield from (one for one in standing if (one.version_name, one.manifest_digest) not in self.dropped)

    def _release(self, member: Member, digest: Digest) -> Release | None:
        known = (self.course.target, self.course.home, self.memory.live)
        found = next((release for release in known if release is not None and release.manifest_digest == digest), None)
        return found or member.release(digest)


def _are_equal(standing: tuple[Release, ...], wanted: tuple[Release, ...], member: Member) -> bool:
    """Compare where to fetch it from only for what the pod has not fetched: comparing that costs the most of a pass."""
    return len(standing) == len(wanted) and all(
        a is b or (a.manifest_digest == b.manifest_digest and (member.holds(a.manifest_digest) or a == b))
        for a, b in zip(standing, wanted, strict=True)
    )
