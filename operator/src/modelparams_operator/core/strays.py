"""Pods on a version that was given up: who they are, and where they go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelparams.api.release import Release
from modelparams.api.rollout import RolloutSpec, RolloutStatus
from modelparams.digest import Digest
from modelparams_operator.core.course import Course, home_of, homes_of, is_without_steps
from modelparams_operator.core.fleet import Fleet, Member
from modelparams_operator.core.memory import attempt_of, is_same
from modelparams_operator.core.model import VersionView


def strays(memory: RolloutStatus, course: Course, fleet: Fleet) -> tuple[Member, ...]:
    """Find the ready pods that are on their way from a version that was given up; not those that refused to go."""
    return _astray(course.refuge, course.homes, attempt_of(memory), (m for m in fleet.members if m.is_ready))


def leaving(memory: RolloutStatus, spec: RolloutSpec, versions: Sequence[VersionView], fleet: Fleet) -> int:
    """Count them under steps, ready or not: one that flaps makes no progress by that.

    As long as there are some, no ready pod may have been sent to the target yet.
    """
    if is_without_steps(memory, spec):
        return 0  # who has not come to the target yet is on its way there
    home = home_of(memory, versions)
    if is_same(home, memory.target):
        return 0  # so it is here
    return len(_astray(home, homes_of(memory, home, is_direct=False), attempt_of(memory), fleet.members))


def lost(memory: RolloutStatus, course: Course, fleet: Fleet) -> tuple[Member, ...]:
    """Find strays that have no home: who was sent there is not well, and somebody is on the target. They wait for that.

    Not before anybody has come there.
    """
    target, home = course.target, course.home
    if target is None or home is None or fleet.settled_on(home.manifest_digest):
        return ()
    if not any(member.side == home.manifest_digest == member.serves for member in fleet.members):
        return ()
    return strays(memory, course, fleet) if fleet.settled_on(target.manifest_digest) else ()


def place_outside(member: Member, memory: RolloutStatus, course: Course) -> Release | None:
    """Leave a pod on what is live, though new ones may not get it; one that cannot go home waits for the target."""
    live, home = course.live, course.home
    if live is not None and member.side == live.manifest_digest and member.serves == member.side:
        return live
    if home is None or member.serves is None or not member.gave_up(home.manifest_digest, attempt_of(memory)):
        return home
    # Not while the target is held: an order without home would hide what the pod said of that, and it would be sent
    # there again.
    return course.target if course.is_open else home


def _astray(
    home: Release | None, homes: frozenset[Digest], attempt: str, members: Iterable[Member]
) -> tuple[Member, ...]:
    found = (m for m in members if m.is_outside(homes))
    return tuple(m for m in found if home is None or not m.gave_up(home.manifest_digest, attempt))
