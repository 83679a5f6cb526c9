"""When pods that we took from serving are waited for no longer: they are back, or had their time."""

from __future__ import annotations

from modelparams.api.rollout import RolloutStatus
from modelparams_operator.core.course import Course
from modelparams_operator.core.fleet import Fleet
from modelparams_operator.core.memory import changed, is_at_rest
from modelparams_operator.core.strays import strays


def rested(memory: RolloutStatus, course: Course, fleet: Fleet, *, is_overdue: bool) -> RolloutStatus:
    """Begin a new revision, by which nobody counts as away: when all that moved are back, or one had its time.

    So a pod that is sick for reasons of its own keeps the others neither where they may not stay nor from a newer one;
    only one that still serves, ready, what was given up does: a third version would be live.
    """
    if fleet.away(memory.revision):
        is_over = is_overdue and _may_give_up(memory, course, fleet)
        return changed(memory, revision=memory.revision + 1, progressed_at=None) if is_over else memory
    was_moved = any(m.order is not None and m.order.moved_in == memory.revision for m in fleet.members)
    is_back = was_moved and is_at_rest(memory) and not strays(memory, course, fleet)
    return changed(memory, revision=memory.revision + 1) if is_back else memory


def _may_give_up(memory: RolloutStatus, course: Course, fleet: Fleet) -> bool:
    """Tell whether the others go on without who is not back.

    One may be sick for reasons of its own: as many follow. When those do in vain, it is the version. How many that we
    sent there are well is no evidence: they may have come when it still made its pods well. Nor is who is sick where it
    was sent once, and nobody is to go any more. The last ready pods do not follow to where one fell over.
    """
    home = course.refuge if strays(memory, course, fleet) else None
    goals = {release.manifest_digest for release in (home, course.target) if release is not None}
    are_last = sum(1 for m in fleet.members if m.is_ready) <= course.allowance
    if are_last and any(fleet.unwell_on(digest) for digest in goals):
        return False
    return sum(1 for m in fleet.members if m.is_lost and m.side in goals) <= course.allowance
