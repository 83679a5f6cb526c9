"""What a rollout takes over from those before it and beside it: it may be one of them itself, under its former name."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from modelparams.api.rollout import RolloutStatus
from modelparams.digest import Digest
from modelparams_operator.core.fleet import Fleet
from modelparams_operator.core.memory import changed
from modelparams_operator.core.model import Desired, Lessons, Observed
from modelparams_operator.core.selection import FAILED_LIMIT

_ATTEMPT_DIGITS = 10


def inherited(memory: RolloutStatus, before: RolloutStatus) -> RolloutStatus:
    """Take over what `before`, a rollout that gives way, knows of the same pods; doing it twice changes nothing.

    What failed stays failed, and orders go on with its attempt: another one would have pods try again. Target and step
    are not taken over: this rollout chooses by its own policy, and goes by its own steps.
    """
    memory = _having_learned(memory, _of_one(before))
    fields: dict[str, Any] = {
        "last_failure": memory.last_failure or before.last_failure,
        "revision": max(memory.revision, before.revision),
        "history": memory.history or before.history,
        "last_handled_retry_token": memory.last_handled_retry_token or before.last_handled_retry_token,
    }
    if memory.live is None and before.live is not None:
        # Without a live version there were no steps to take, and the memory is past them all.
        place: dict[str, Any] = {"step_index": 0, "steps_hash": "", "step_reached_at": None}
        fields |= {"live": before.live, "live_sequence": before.live_sequence, **place}
    return changed(memory, **fields)


def lessons(memories: Sequence[RolloutStatus]) -> Lessons:
    """Sum up what rollouts of one model know of failures."""
    all_of_them = functools.reduce(_having_learned, map(_of_one, memories), RolloutStatus())
    tokens = Counter(one.last_handled_retry_token for one in memories if one.last_handled_retry_token is not None)
    live = tuple({one.live.manifest_digest: None for one in memories if one.live is not None})
    return Lessons(all_of_them.failed_versions, live, all_of_them.floor, all_of_them.attempt, tokens)


def _of_one(memory: RolloutStatus) -> Lessons:
    return Lessons(memory.failed_versions, (), memory.floor, memory.attempt)


def begun(memory: RolloutStatus, desired: Desired, observed: Observed, fleet: Fleet) -> RolloutStatus:
    """Have a rollout that has not had a pod yet know what becomes of those that another one had.

    It goes on from the memory of those that name its pods still: one of them may be itself under its former name. Where
    none is left, what failed in the model's other rollouts is not tried again, unless it is live in one of them. What
    these pods serve works in any case. A retry token that another one acted on asks for nothing more. And pods that
    were taken from serving, by an order that still stands, are away by this rollout's count too; at an attempt in which
    they gave something up they would not try it again.
    """
    if memory.live is not None or memory.pods.total:
        return memory
    token, last, known = desired.spec.retry_token, memory.last_handled_retry_token, observed.lessons
    moves = (m.order.moved_in for m in fleet.members if m.order is not None and m.order.moved_in is not None)
    if observed.predecessors:
        memory = functools.reduce(inherited, observed.predecessors, memory)
    elif last is None or _is_of_another(last, memory, known):
        own = memory.last_failure.manifest_digest if memory.last_failure is not None else None
        memory = _but(_having_learned(memory, known), {*known.live} - {own})
    memory = _but(memory, (member.serves for member in fleet.members))
    withdrawn = {(view.name, view.digest) for view in observed.versions if view.is_withdrawn}  # forgotten anyway
    failed = tuple(f for f in memory.failed_versions if (f.version_name, f.manifest_digest) not in withdrawn)
    return changed(
        memory,
        failed_versions=failed,
        last_handled_retry_token=token if token is not None and _is_of_another(token, memory, known) else last,
        revision=max([memory.revision, *moves]),
        attempt=max([memory.attempt, *_attempts(fleet)]),
    )


def _attempts(fleet: Fleet) -> Iterator[int]:
    """Find the tries that pods know: at the same one again, they would answer with their refusal of then."""
    for member in fleet.members:
        failure = member.answer.last_failure if member.answer is not None else None
        for name in (member.order.attempt if member.order is not None else "", failure.attempt if failure else ""):
            if name.isascii() and name.isdigit() and len(name) < _ATTEMPT_DIGITS:  # a pod may say any
                yield int(name)


def _is_of_another(token: str, memory: RolloutStatus, known: Lessons) -> bool:
    """Tell whether another rollout acted on a retry token: what is known of all of them is known of this one too."""
    return known.retry_tokens.get(token, 0) > (memory.last_handled_retry_token == token)


def _but(memory: RolloutStatus, these: Iterable[Digest | None]) -> RolloutStatus:
    """Without the failures of `these`."""
    left_out = set(these)
    failed = tuple(one for one in memory.failed_versions if one.manifest_digest not in left_out)
    return changed(memory, failed_versions=failed)


def _having_learned(memory: RolloutStatus, known: Lessons) -> RolloutStatus:
    """Take over what failed, and the attempt that it failed in: pods would try again at another one."""
    mine = {failed.manifest_digest for failed in memory.failed_versions}
    new = tuple(failed for failed in known.failed_versions if failed.manifest_digest not in mine)
    return changed(
        memory,
        failed_versions=(*new, *memory.failed_versions)[-FAILED_LIMIT:],
        floor=max(memory.floor, known.floor),
        attempt=max(memory.attempt, known.attempt),
    )
