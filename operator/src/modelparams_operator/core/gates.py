"""What holds a step that is done: time, or a person; and who may let a version pass.

An approval is bound to a version, its bytes and a step: one that was left behind waves no other version through, nor
one that was made again under the same name. It opens the pauses that wait for a person, and shortens none that has a
duration: looking takes its time. `expedite` skips both.
"""

from __future__ import annotations

from datetime import datetime

from modelparams.api.release import Release
from modelparams.api.rollout import Approval, RolloutSpec
from modelparams_operator.core.steps import hash_of, pause_ends


def is_expedited(spec: RolloutSpec, release: Release) -> bool:
    """Tell whether a person wants it on all pods without steps."""
    return spec.expedite is not None and spec.expedite.is_for(release)


def approvals_of(spec: RolloutSpec, release: Release) -> tuple[Approval, ...]:
    """List who approved steps of `release` in this plan; approvals of other versions or plans say nothing of it."""
    return tuple(one for one in spec.approvals if one.is_for(release) and _is_in_plan(one, spec))


def _is_in_plan(one: Approval, spec: RolloutSpec) -> bool:
    return one.steps_hash is None or one.steps_hash == hash_of(spec.strategy.steps)


def waits_for_a_person(spec: RolloutSpec, release: Release, index: int) -> bool:
    """Tell whether step `index` (from 0) has a pause without a duration that nobody has approved for `release`."""
    steps = spec.strategy.steps
    pause = steps[index].pause if index < len(steps) else None
    if pause is None or pause.duration_seconds is not None:
        return False
    return all(one.through_step <= index for one in approvals_of(spec, release))


def passed_over(spec: RolloutSpec, release: Release) -> tuple[str, ...]:
    """Say of each approval why it does not open the pause at which `release` waits."""
    return tuple(f"that of {one.approved_by} {_what_is_approved(one, release, spec)}" for one in spec.approvals)


def _what_is_approved(one: Approval, release: Release, spec: RolloutSpec) -> str:
    if one.is_for(release) and not _is_in_plan(one, spec):
        return f"is for another plan, {one.steps_hash}"
    if one.is_for(release):
        return f"goes through step {one.through_step}"
    if one.version_name != release.version_name:
        return f"is for {one.version_name}"
    return f"is for other bytes of that name, {one.manifest_digest.short}"


def is_held(spec: RolloutSpec, release: Release, index: int, reached_at: datetime, now: datetime) -> bool:
    """Tell whether the rollout stays in step `index`, whose pods were all live at `reached_at`."""
    ends = pause_ends(spec.strategy.steps, index, reached_at)
    return (ends is not None and now < ends) or waits_for_a_person(spec, release, index)
