"""What one write changed in a version or a rollout, told from the object before it and after it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from modelparams.api.release import Release
from modelparams.api.rollout import Approval, Expedite, Revision, RolloutSpec, RolloutStatus
from modelparams.api.version import VersionSpec, VersionStatus
from modelparams_operator.audit.events import KINDS, Event, Who
from modelparams_operator.core.memory import Outcome


@dataclass(frozen=True, slots=True)
class Act:
    """Something that somebody did. `does` is a word for programs, `what` a sentence's rest for people.

    Attributes:
        at: absent of what was there already when the log begins.
        who: absent likewise.
        version_name: which version it is about, if it is about one.
        digest: of its manifest.
        approved_by: the name in an approval; with the policies in force it is `who`'s.
        is_sure: false when a write just before is missing, which may have done it.
    """

    at: datetime | None
    who: Who | None
    does: str
    what: str
    namespace: str
    resource: str
    name: str
    model: str
    version_name: str = ""
    digest: str = ""
    through_step: int = 0
    approved_by: str = ""
    is_sure: bool = True


def of_version(before: Event | None, after: Event) -> Iterator[Act]:
    """What a write did to a version; `before` is the object's last one that the log has.

    Raises:
        InvalidSpec: the object is none that this release knows.
    """
    if after.deletes:
        if not (before and before.deletes):
            yield _act(after, "Deleted", f"deletes {after.name}", version_name=after.name)
        return
    now, digest = VersionSpec.parse(after.spec), str(after.spec.get("manifestDigest", ""))
    known = {"version_name": after.name, "digest": digest}
    if after.creates:
        yield _act(after, "Published", f"publishes {after.name}", **known)
    elif before is None:
        yield _there_already(after, "Published", f"{after.name} was published", **known)
    was = VersionSpec.parse(before.spec) if before else (None if after.creates else now)
    if now.lifecycle != (was.lifecycle if was else None):
        does, what = ("Withdrawn", "withdraws") if now.lifecycle else ("BroughtBack", "brings back")
        yield _act(after, does, f"{what} {after.name}", **known)
    if now.suspend != (was.suspend if was else False):
        does, what = ("Suspended", "suspends") if now.suspend else ("Unsuspended", "lets be chosen again")
        yield _act(after, does, f"{what} {after.name}", **known)
    verified = VersionStatus.parse(after.status).verified
    if verified and not (before and VersionStatus.parse(before.status).verified == verified) and after.writes_status:
        signers = ", ".join(signer[:12] for signer in verified.signers)
        what = f"found {after.name} as signed by {signers or 'nobody'}"
        yield _act(after, "Verified", what, version_name=after.name, digest=str(verified.manifest_digest))


def of_rollout(before: Event | None, after: Event) -> Iterator[Act]:
    """What a write did to a rollout.

    Raises:
        InvalidSpec: the object is none that this release knows.
    """
    if after.deletes:
        if not (before and before.deletes):
            yield _act(after, "Deleted", f"deletes the rollout {after.name}")
        return
    now = RolloutSpec.parse(after.spec)
    was = RolloutSpec.parse(before.spec) if before else None
    if was is None and not after.creates:
        yield from _found(after, now)
        was = now
    yield from _released(after, was, now)
    yield from _approved(after, was, now)
    yield from _steered(after, was, now)
    if after.writes_status and before:
        yield from _decided(after, RolloutStatus.parse(before.status), RolloutStatus.parse(after.status))


def of_guard(event: Event) -> Act:
    """A write to a policy or a kind of ours: the log need not say what was written."""
    word = "Kind" if event.resource == KINDS else "Policy"
    done = (
        ("Deleted", "deletes")
        if event.verb.startswith("delete")
        else ("Written", f"{event.verb}s".replace("chs", "ches"))
    )
    return _act(event, word + done[0], f"{done[1]} {event.resource}/{event.name or '*'}")


def chosen(spec: RolloutSpec) -> str:
    """What a rollout's policy lets be served, in words."""
    policy = spec.version_policy
    return policy.version_name or f"{spec.model_name} {policy.range}"


def _found(event: Event, spec: RolloutSpec) -> Iterator[Act]:
    """What stands in a rollout whose beginning the log does not have."""
    yield _there_already(event, "Released", f"{chosen(spec)} was released")
    for one in spec.approvals:
        what = f"{one.approved_by} had approved {_reach(one)}"
        yield _there_already(event, "Approved", what, **_of(one))
    if spec.expedite:
        what = f"{spec.expedite.version_name} was expedited"
        yield _there_already(event, "Expedited", what, **_bytes_of(spec.expedite))


def in_doubt(act: Act, after: Event) -> Act:
    """What differs since before a missing write may be its doing; of a spec that a status was written beside, it is."""
    is_of_status = act.does in ("Targeted", "Verified", *get_args(Outcome))
    if after.writes_status and not is_of_status:
        return replace(act, who=None, is_sure=False)
    return replace(act, is_sure=False)


def _released(event: Event, was: RolloutSpec | None, now: RolloutSpec) -> Iterator[Act]:
    if was is None or was.version_policy != now.version_policy:
        name = now.version_policy.version_name or ""
        yield _act(event, "Released", f"releases {chosen(now)}", version_name=name)
    if was is not None and was.strategy != now.strategy:
        yield _act(event, "PlanChanged", f"changes the plan: {_steps(was)} becomes {_steps(now)}")


def _steps(spec: RolloutSpec) -> str:
    steps = [
        f"{one.pods}{' (approval)' if one.pause and one.pause.duration_seconds is None else ''}"
        for one in spec.strategy.steps
    ]
    return ", ".join([*steps, "all"])


def _approved(event: Event, was: RolloutSpec | None, now: RolloutSpec) -> Iterator[Act]:
    before = was.approvals if was else ()
    for one in now.approvals:
        if one not in before:
            yield _act(event, "Approved", f"approves {_reach(one)}{_forged(event, one)}", **_of(one))
    for one in before:
        if one not in now.approvals:
            what = f"takes back that {one.approved_by} approved {_reach(one)}"
            yield _act(event, "ApprovalRemoved", what, **_of(one))


def _reach(one: Approval) -> str:
    return f"{one.version_name} through step {one.through_step}"


def _forged(event: Event, one: Approval) -> str:
    """What a policy forbids; it may not have been in force."""
    return "" if event.who.name == one.approved_by else f" in the name of {one.approved_by}"


def _of(one: Approval) -> dict[str, str | int]:
    return {**_bytes_of(one), "through_step": one.through_step, "approved_by": one.approved_by}


def _bytes_of(one: Approval | Expedite | Release | Revision) -> dict[str, str | int]:
    return {"version_name": one.version_name, "digest": str(one.manifest_digest)}


def _steered(event: Event, was: RolloutSpec | None, now: RolloutSpec) -> Iterator[Act]:
    unsteered = {"paused": False, "suspend": False, "expedite": None, "retry_token": None}
    old = was or now.model_copy(update=unsteered)
    if now.expedite and now.expedite != old.expedite:
        yield _act(event, "Expedited", f"expedites {now.expedite.version_name}", **_bytes_of(now.expedite))
    elif old.expedite and not now.expedite:
        what = f"no longer expedites {old.expedite.version_name}"
        yield _act(event, "ExpediteRemoved", what, **_bytes_of(old.expedite))
    if now.retry_token is not None and now.retry_token != old.retry_token:
        yield _act(event, "Retried", f"tries again what failed, by the token {now.retry_token}")
    if now.paused != old.paused:
        yield _act(event, *(("Held", "holds the rollout") if now.paused else ("Resumed", "lets the rollout go on")))
    if now.suspend != old.suspend:
        does, what = ("Suspended", "suspends the rollout") if now.suspend else ("Unsuspended", "ends the suspension")
        yield _act(event, does, what)


def _decided(event: Event, was: RolloutStatus, now: RolloutStatus) -> Iterator[Act]:
    """What the operator made of it."""
    target = now.target
    if target and (was.target is None or was.target.manifest_digest != target.manifest_digest):
        yield _act(event, "Targeted", f"begins to roll out {target.version_name}", **_bytes_of(target))
    for one in reversed(now.history):
        if one not in was.history:
            yield _act(event, one.outcome, f"ends the rollout of {one.version_name}: {one.outcome}", **_bytes_of(one))


def _act(event: Event, does: str, what: str, **more: str | int) -> Act:
    return Act(
        event.at,
        event.who,
        does,
        what,
        event.namespace,
        event.resource,
        event.name,
        event.model,
        **more,  # type: ignore[arg-type]  # each of its own type
    )


def _there_already(event: Event, does: str, what: str, **more: str | int) -> Act:
    return Act(
        None,
        None,
        does,
        what,
        event.namespace,
        event.resource,
        event.name,
        event.model,
        **more,  # type: ignore[arg-type]  # each of its own type
    )
