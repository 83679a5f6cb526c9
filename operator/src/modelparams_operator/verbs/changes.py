"""A verb and the object as it is → the change of its spec. Pure: what may be done is the API server's to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelparams.api.rollout import APPROVALS_MAX, Approval, Expedite, RolloutSpec
from modelparams.errors import UsageError
from modelparams_operator.core.memory import is_at_rest
from modelparams_operator.core.steps import hash_of
from modelparams_operator.shell.views import RolloutObject, VersionObject

_SEE = "see where it stands: modelparams status"


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch of one object's spec, and what it does in words."""

    spec: dict[str, Any]
    said: str

    @property
    def is_needed(self) -> bool:
        """False when the object says so already."""
        return bool(self.spec)


def approved(rollout: RolloutObject, who: str, through: int | None) -> Change:
    """Let what is being rolled out pass the pauses for a person, through a step (default: the present one).

    It takes the place of what `who` approved before: an approval is about what is looked at now.

    Raises:
        UsageError: nothing is being rolled out, or the rollout has no such step, or no room for one more approval.
    """
    status, steps = rollout.status, len(rollout.spec.strategy.steps)
    target = status.target
    if target is None or is_at_rest(status):
        raise UsageError(f"{rollout.key.name} rolls nothing out that could be approved", hint=_SEE)
    step = through or status.step_index + 1
    if step > steps:
        raise UsageError(
            f"{rollout.key.name} has {steps} steps before the last one, and nothing waits in step {step}", hint=_SEE
        )
    said = f"{who} approves {target.version_name} through step {step} of {steps + 1} in {rollout.key.name}"
    mine = [one for one in rollout.spec.approvals if one.approved_by == who]
    plan = hash_of(rollout.spec.strategy.steps)
    mine_now = Approval(
        version_name=target.version_name,
        manifest_digest=target.manifest_digest,
        through_step=step,
        steps_hash=plan,
        approved_by=who,
    )
    if any(one.is_for(target) and one.steps_hash in (None, plan) and one.through_step >= step for one in mine):
        return Change({}, said)
    all_now = [*(one for one in rollout.spec.approvals if one.approved_by != who), mine_now]
    if len(all_now) > APPROVALS_MAX:
        raise UsageError(
            f"{rollout.key.name} has {APPROVALS_MAX} approvals and no room for another one",
            hint="take those out of spec.approvals whose versions are done",
        )
    return Change({"approvals": [one.wire() for one in all_now]}, said)


def expedited(rollout: RolloutObject, named: VersionObject | None) -> Change:
    """Take a version (default: what is being rolled out) to all pods without steps and pauses.

    Raises:
        UsageError: nothing is being rolled out, and no version is named.
    """
    status = rollout.status
    target = status.target if not is_at_rest(status) else None
    release = named.spec.release() if named is not None else target
    if release is None:
        raise UsageError(f"{rollout.key.name} rolls nothing out", hint="name the version that is to come: --version")
    said = f"{rollout.key.name} takes {release.version_name} to all pods without steps"
    if rollout.spec.expedite is not None and rollout.spec.expedite.is_for(release):
        return Change({}, said)
    wish = Expedite(version_name=release.version_name, manifest_digest=release.manifest_digest)
    return Change({"expedite": wish.wire()}, said)


def held(rollout: RolloutObject) -> Change:
    """Hold it at its step."""
    said = f"{rollout.key.name} is held at its step; rolling back still happens"
    return Change({} if rollout.spec.paused else {"paused": True}, said)


def resumed(rollout: RolloutObject) -> Change:
    """Let it go on."""
    return Change({"paused": None} if rollout.spec.paused else {}, f"{rollout.key.name} goes on")


def retried(rollout: RolloutObject, token: str) -> Change:
    """Give what failed another chance.

    Raises:
        UsageError: nothing has failed.
    """
    failed = [one.version_name for one in rollout.status.failed_versions]
    if not failed:
        raise UsageError(f"nothing has failed in {rollout.key.name}", hint=_SEE)
    return Change({"retryToken": token}, f"{rollout.key.name} tries again: {', '.join(failed)}")


def withdrawn(version: VersionObject) -> Change:
    """Take it out: it is chosen no more, and pods that serve it go back."""
    said = f"{version.key.name} is withdrawn"
    return Change({} if version.spec.lifecycle == "Withdrawn" else {"lifecycle": "Withdrawn"}, said)


def brought_back(version: VersionObject) -> Change:
    """Have it chosen again."""
    return Change({"lifecycle": None} if version.spec.lifecycle else {}, f"{version.key.name} may be chosen again")


def full_name(spec: RolloutSpec, version: str) -> str:
    """Take a version's number for its name."""
    prefix = f"{spec.model_name}-"
    return version if version.startswith(prefix) else prefix + version
