"""What a rollout remembers, and how each pass brings it forward: every change of the status but its conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from datetime import datetime
from typing import Any, Literal

from modelparams.api.release import Release
from modelparams.api.rollout import FailedVersion, PodCounts, PodFailure, Revision, RolloutSpec, RolloutStatus
from modelparams.digest import Digest
from modelparams.names import Version
from modelparams_operator.core.fleet import Fleet
from modelparams_operator.core.gates import approvals_of, is_expedited
from modelparams_operator.core.model import Desired, VersionView
from modelparams_operator.core.selection import FAILED_LIMIT, Choice, is_out_of_range

HISTORY_LIMIT = 20

Outcome = Literal["Promoted", "RolledBack", "Failed", "Superseded"]


def changed(memory: RolloutStatus, **fields: Any) -> RolloutStatus:
    """Copy `memory` with `fields` replaced; the same object when nothing differs."""
    if all(getattr(memory, name) == value for name, value in fields.items()):
        return memory
    return memory.model_copy(update=fields)


def is_same(one: Release | None, other: Release | None) -> bool:
    """Tell whether both are the same bytes, or both absent."""
    if one is None or other is None:
        return one is other
    return one.manifest_digest == other.manifest_digest


def attempt_of(memory: RolloutStatus) -> str:
    """Name the try that orders carry, so that pods can tell another try from the old one."""
    return str(memory.attempt) if memory.attempt else ""


def is_failed(memory: RolloutStatus, digest: Digest) -> bool:
    """Tell whether a version is not to be ordered again until the retry token changes."""
    return any(failed.manifest_digest == digest for failed in memory.failed_versions)


def is_at_rest(memory: RolloutStatus) -> bool:
    """Tell whether nothing else than what is live is wanted."""
    return memory.target is not None and is_same(memory.live, memory.target)


def well_since(memory: RolloutStatus) -> datetime | None:
    """Since when, as far as the last pass saw, the pods of the present step are looked at; None: they are not."""
    return memory.step_reached_at if memory.step_reached_at is not None else memory.last_ready_at


def refreshed(memory: RolloutStatus, desired: Desired, versions: Sequence[VersionView]) -> RolloutStatus:
    """Take in what people and the check of versions said since.

    The floor only rises. A new retry token forgets all failures; a withdrawn version's is forgotten too, so that
    activating it again is a new try. A live or target release whose object was made again is read from there once it
    is verified there, since its source may have moved while its bytes have not.
    """
    floor = max([memory.floor, *(view.facts.floor for view in versions if view.facts is not None)])
    token, last = desired.spec.retry_token, memory.last_handled_retry_token
    withdrawn = {(view.name, view.digest) for view in versions if view.is_withdrawn}
    failed = tuple(f for f in memory.failed_versions if (f.version_name, f.manifest_digest) not in withdrawn)
    is_retried = token is not None and token != last
    attempt = memory.attempt + (1 if is_retried or failed != memory.failed_versions else 0)
    return changed(
        memory,
        floor=floor,
        attempt=attempt,
        fallen=memory.fallen if attempt == memory.attempt else (),  # another try is judged by its own falls
        failed_versions=() if is_retried else _with_room(failed, memory, desired, versions),
        last_handled_retry_token=token if token is not None else last,
        live=_current(memory.live, versions),
        live_sequence=_sequence_of(memory.live.manifest_digest, versions, memory) if memory.live is not None else 0,
        target=_current(memory.target, versions),
    )


def _with_room(
    failed: tuple[FailedVersion, ...], memory: RolloutStatus, desired: Desired, versions: Sequence[VersionView]
) -> tuple[FailedVersion, ...]:
    """Forget failures once there is no room for another one.

    Of versions that are gone; and then of the lowest ones that this rollout does not come to by itself: out of its
    range, or below the version to which it would go back; never of what is pinned. Of the newer ones none is forgotten:
    it would be tried again at once, and so all of them, in a circle.
    """
    if len(failed) < FAILED_LIMIT:
        return failed
    there, policy = {view.digest: view.version for view in versions}, desired.spec.version_policy
    kept = tuple(one for one in failed if one.manifest_digest in there)
    least = _to_go_back_to(memory, desired, {one.manifest_digest for one in kept}, versions)

    def is_out_of_the_way(one: FailedVersion) -> bool:
        version = there[one.manifest_digest]
        is_below = least is not None and version < least
        return one.version_name != policy.version_name and (is_below or is_out_of_range(version, policy))

    passed = sorted(filter(is_out_of_the_way, kept), key=lambda one: there[one.manifest_digest])
    forgotten = passed[: max(0, len(kept) - FAILED_LIMIT + 1)]
    return tuple(one for one in kept if one not in forgotten)


def _to_go_back_to(
    memory: RolloutStatus, desired: Desired, bad: Set[Digest], versions: Sequence[VersionView]
) -> Version | None:
    """Find the highest version below what is live that is good whatever the time is, else live itself."""
    live, policy = memory.live, desired.spec.version_policy
    if live is None:
        return None
    good = (
        view.version
        for view in versions
        if view.facts is not None
        and view.facts.not_after is None
        and view.facts.sequence >= memory.floor
        and view.is_standing
        and not view.spec.suspend
        and view.digest not in bad
        and view.version < live.version
        and not is_out_of_range(view.version, policy)
    )
    return max(good, default=live.version)


def _current(release: Release | None, versions: Sequence[VersionView]) -> Release | None:
    if release is None:
        return None
    found = next((v for v in versions if v.is_of(release) and v.facts is not None and not v.deleting), None)
    return release if found is None or found.release == release else found.release


def found_live(
    memory: RolloutStatus, desired: Desired, choice: Choice, fleet: Fleet, versions: Sequence[VersionView]
) -> RolloutStatus:
    """Learn from the pods what is live, when nothing is remembered but they serve something else than the choice.

    So a rollout that was deleted and made again goes on with its canary, and a first version that was replaced before
    it reached all pods is what the next one is compared with. The version of most pods counts, the older one of two.
    A pod whose label was changed still has the other model's order, which says nothing of this one; and a newer version
    whose object is gone was taken back, if there is another one to have.
    """
    chosen = choice.release
    if memory.live is not None or (chosen is None and memory.target is not None):
        return memory
    # Where a target is remembered and nothing live, who is not ready on it may be so because of it.
    counted = (m for m in fleet.members if m.is_ready or memory.target is None)
    served = Counter(m.serves for m in counted if m.serves is not None)
    if chosen is not None:
        del served[chosen.manifest_digest]
    known = {digest: release for digest in served if (release := _release_of(digest, fleet, versions, memory))}
    usable = [
        digest
        for digest, it in known.items()
        if it.model_name == desired.spec.model_name
        and not is_failed(memory, digest)
        and (chosen is None or it.version < chosen.version or any(view.is_of(it) for view in versions))
    ]
    if not usable:
        return memory
    found = min(usable, key=lambda digest: (-served[digest], known[digest].version))
    sequence = _sequence_of(found, versions, memory)
    # Without a live version there were no steps to take, and the memory is past them all.
    memory = changed(
        memory, live=known[found], live_sequence=sequence, step_index=0, steps_hash="", step_reached_at=None
    )
    return memory if chosen is not None else changed(memory, target=known[found], target_sequence=sequence)


def _sequence_of(digest: Digest, versions: Sequence[VersionView], memory: RolloutStatus) -> int:
    """Look a sequence up; 0 if nobody knows it any more, which is below any floor."""
    known = next((v.facts.sequence for v in versions if v.digest == digest and v.facts is not None), None)
    if known is not None:
        return known
    for release, sequence in ((memory.live, memory.live_sequence), (memory.target, memory.target_sequence)):
        if release is not None and release.manifest_digest == digest:
            return sequence
    return 0


def _release_of(digest: Digest, fleet: Fleet, versions: Sequence[VersionView], memory: RolloutStatus) -> Release | None:
    """Find a release: what stands in an order was verified when it was written; an object's release only once it is."""
    if memory.target is not None and memory.target.manifest_digest == digest:
        return memory.target
    verified = next((v for v in versions if v.digest == digest and v.facts is not None), None)
    if verified is not None:
        return None if verified.is_withdrawn else verified.release
    ordered = next((release for member in fleet.members if (release := member.release(digest))), None)
    return None if ordered is not None and any(v.is_of(ordered) for v in versions) else ordered


def stopped(memory: RolloutStatus, failure: PodFailure) -> RolloutStatus:
    """Remember that the target failed."""
    entry = FailedVersion(
        version_name=failure.version_name,
        manifest_digest=failure.manifest_digest,
        reason=failure.reason,
        message=f"pod {failure.pod_name}: {failure.message}",
    )
    known = tuple(f for f in memory.failed_versions if f.manifest_digest != failure.manifest_digest)
    return changed(memory, failed_versions=(*known, entry)[-FAILED_LIMIT:], last_failure=failure)


def turned(memory: RolloutStatus, choice: Choice, now: datetime) -> RolloutStatus:
    """Head for the choice. An unfinished rollout ends here: failed, taken back or superseded."""
    if choice.release is None:
        return memory
    if is_same(memory.target, choice.release):
        return changed(memory, target=choice.release, target_sequence=choice.sequence)
    history = memory.history
    if memory.target is not None and not is_at_rest(memory):
        outcome = _outcome(memory, memory.target, choice.release)
        history = _recorded(memory, memory.target, memory.target_sequence, outcome, now)
    return changed(
        memory,
        target=choice.release,
        target_sequence=choice.sequence,
        history=history,
        step_index=0,
        steps_hash="",
        step_reached_at=None,
        last_ready_at=None,
        fallen=(),
        started_at=now,
        progressed_at=None,
        pods=PodCounts(),
    )


def _outcome(memory: RolloutStatus, target: Release, choice: Release) -> Outcome:
    if is_failed(memory, target.manifest_digest):
        return "Failed"
    return "Superseded" if choice.version > target.version else "RolledBack"


def _recorded(
    memory: RolloutStatus, release: Release, sequence: int, outcome: Outcome, now: datetime
) -> tuple[Revision, ...]:
    entry = Revision(
        version_name=release.version_name,
        version=release.version,
        manifest_digest=release.manifest_digest,
        sequence=sequence,
        outcome=outcome,
        started_at=memory.started_at or now,
        finished_at=now,
    )
    return _remembered((entry, *memory.history))


def _remembered(history: tuple[Revision, ...]) -> tuple[Revision, ...]:
    """Forget the oldest beyond the limit; what was live, to which the way back is short, after what was not."""
    if len(history) <= HISTORY_LIMIT:
        return history
    lesser = [one for one in history[1:] if one.outcome != "Promoted"]
    oldest = (lesser or history)[-1]
    return tuple(one for one in history if one is not oldest)


def promoted(memory: RolloutStatus, target: Release, spec: RolloutSpec, now: datetime) -> RolloutStatus:
    """Make the target, which all pods serve, what is live from now on; and note who let it pass.

    What it displaces was live, though perhaps never promoted here: one pod was sick then, or another rollout did it.
    It is noted now, so that the way back to it is as short.
    """
    before = memory.live
    if before is not None and not is_same(before, target) and not _was_promoted(memory, before):
        known = changed(memory, started_at=now)
        memory = changed(memory, history=_recorded(known, before, memory.live_sequence, "Promoted", now))
    newest, *others = _recorded(memory, target, memory.target_sequence, "Promoted", now)
    by = tuple(sorted({one.approved_by for one in approvals_of(spec, target)}))
    is_fast = before is not None and is_expedited(spec, target)
    return changed(
        memory,
        live=target,
        live_sequence=memory.target_sequence,
        history=(newest.model_copy(update={"approved_by": by, "expedited": is_fast}), *others),
        step_reached_at=None,
        last_ready_at=None,
        fallen=(),
        progressed_at=None,
        revision=memory.revision + 1,
    )


def _was_promoted(memory: RolloutStatus, release: Release) -> bool:
    return any(r.outcome == "Promoted" and r.manifest_digest == release.manifest_digest for r in memory.history)
