"""Observations of a rollout: a test names only what it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from modelparams.api.assignment import AssignmentSpec, AssignmentStatus, HeldRelease, PodState, ReleaseFailure
from modelparams.api.release import Encryption, KeyReference, Release, S3Source, Source
from modelparams.api.rollout import (
    Approval,
    Expedite,
    FailedVersion,
    Pause,
    Revision,
    RollbackWindow,
    RolloutSpec,
    RolloutStatus,
    Step,
    Strategy,
    VersionPolicy,
)
from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.digest import Digest
from modelparams.failure import Failure
from modelparams.names import ModelName, Version
from modelparams.reasons import Reason
from modelparams_operator.core.model import Desired, Observed, PodView, VersionView

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
MODEL = ModelName("chat")
ROLLOUT = "chat"


def digest(version: str) -> Digest:
    """The manifest digest of a made-up version; one version has one."""
    return Digest("sha256:" + hashlib.sha256(version.encode()).hexdigest())


def approval(version: str, through: int, by: str, *, content: str = "") -> Approval:
    """Of these bytes of a version, through a step."""
    return Approval(
        version_name=f"chat-{version}",
        manifest_digest=digest(content or version),
        through_step=through,
        approved_by=by,
    )


def hurry(version: str, *, content: str = "") -> Expedite:
    """Expedite these bytes of a version."""
    return Expedite(version_name=f"chat-{version}", manifest_digest=digest(content or version))


def release(version: str, *, content: str = "") -> Release:
    return version_spec(version, content=content).release()


def version_spec(version: str, *, content: str = "", **fields: Any) -> VersionSpec:
    return VersionSpec(
        model_name=MODEL,
        version=Version(version),
        source=Source(s3=S3Source(bucket="params", prefix="chat")),
        manifest_digest=digest(content or version),
        encryption=Encryption(key_ref=KeyReference(name="chat-key")),
        **fields,
    )


def sequence_of(version: str) -> int:
    """The sequence of a version that was published in its natural order: 1.2.0 → 120."""
    major, minor, patch = version.split("-")[0].split(".")
    return int(major) * 100 + int(minor) * 10 + int(patch)


def facts(
    version: str,
    *,
    sequence: int | None = None,
    floor: int = 0,
    content: str = "",
    not_after: datetime | None = None,
) -> VerifiedFacts:
    return VerifiedFacts(
        manifest_digest=digest(content or version),
        sequence=sequence_of(version) if sequence is None else sequence,
        floor=floor,
        blobs=3,
        size_bytes=1000,
        signers=("key-1",),
        not_after=not_after,
        verified_at=NOW,
    )


def final(reason: Reason = Reason.BLOB_DIGEST_MISMATCH, message: str = "blob 3 differs") -> Failure:
    return Failure(reason, message, None)


def transient(reason: Reason = Reason.SOURCE_UNAVAILABLE, message: str = "the store is away") -> Failure:
    return Failure(reason, message, timedelta(seconds=2))


def version(
    number: str,
    *,
    verified: bool = True,
    failure: Failure | None = None,
    deleting: bool = False,
    sequence: int | None = None,
    floor: int = 0,
    content: str = "",
    not_after: datetime | None = None,
    **fields: Any,
) -> VersionView:
    """A version's object; `fields` go to its spec (`lifecycle="Withdrawn"`, `suspend=True`)."""
    found = facts(number, sequence=sequence, floor=floor, content=content, not_after=not_after)
    known = found if verified and failure is None else None
    spec = version_spec(number, content=content, **fields)
    return VersionView(f"chat-{number}", spec, verified=known, failure=failure, deleting=deleting)


def withdrawn(number: str) -> VersionView:
    return version(number, lifecycle="Withdrawn")


def order(
    *releases: str,
    activate: str | None = None,
    term: int = 1,
    uid: str = "",
    moved_in: int | None = None,
    attempt: str = "",
    rollout: str = ROLLOUT,
) -> AssignmentSpec:
    return AssignmentSpec(
        rollout_name=rollout,
        pod_uid=uid,
        releases=tuple(release(number) for number in releases),
        activate=digest(activate) if activate else None,
        term=term,
        attempt=attempt,
        moved_in=moved_in,
    )


def held(number: str) -> HeldRelease:
    return HeldRelease(version_name=f"chat-{number}", version=Version(number), manifest_digest=digest(number))


def failure(
    number: str, reason: Reason = Reason.SWAP_FAILED, *, is_final: bool = True, attempt: str = ""
) -> ReleaseFailure:
    return ReleaseFailure(
        version_name=f"chat-{number}",
        manifest_digest=digest(number),
        reason=reason,
        message="it did not work",
        attempt=attempt,
        final=is_final,
        time=NOW,
    )


def pod(
    name: str,
    serving: str | None = None,
    *,
    staged: Iterable[str] = (),
    ordered: str | None = "",
    holds: Iterable[str] | None = None,
    ready: bool | None = None,
    deleting: bool = False,
    failed: ReleaseFailure | None = None,
    moved_in: int | None = None,
    progress: str = "",
    answers: bool = True,
    attempt: str = "",
    rollout: str = ROLLOUT,
    uid: str = "",
    obeyed: int = 1,
) -> PodView:
    """A pod that serves `serving`, holds `staged` beside it, and was ordered `ordered` (by default what it serves).

    Its order's releases are `holds`, by default what it serves and has staged. `ordered=None`: it has no order.
    """
    uid = uid or f"uid-{name}"
    activate = serving if ordered == "" else ordered
    beside = [number for number in staged if number != serving]
    there = [number for number in (serving, *beside) if number is not None]
    kept = list(dict.fromkeys(holds if holds is not None else [*([activate] if activate else []), *there]))[:2]
    spec = (
        order(*kept, activate=activate, uid=uid, moved_in=moved_in, attempt=attempt, rollout=rollout)
        if kept or activate
        else None
    )
    status = AssignmentStatus(
        observed_generation=1,
        pod_uid=uid,
        term=obeyed,
        state=PodState.LIVE if serving else PodState.STAGING,
        live=held(serving) if serving else None,
        staged=tuple(held(number) for number in there),
        progress=progress,
        last_failure=failed,
    )
    return PodView(
        name=name,
        uid=uid,
        ready=serving is not None if ready is None else ready,
        deleting=deleting,
        order=None if ordered is None else spec,
        answer=status if answers else None,
    )


def pods(count: int, serving: str | None = None, **fields: Any) -> tuple[PodView, ...]:
    """`count` alike pods, p00, p01, …"""
    return tuple(pod(f"p{index:02}", serving, **fields) for index in range(count))


def step(pods: int | str, pause: int | None = None) -> Step:
    return Step(pods=pods, pause=Pause(duration_seconds=pause) if pause is not None else None)


def desired(
    *,
    inside: str | None = ">=1.0.0 <2.0.0",
    pin: str | None = None,
    steps: Iterable[Step] = (Step(pods=1), Step(pods="25%")),
    max_unavailable: int | str = 1,
    on_failure: str = "Rollback",
    deadline: int = 600,
    window: int = 3,
    min_ready_seconds: int = 0,
    keep_previous_seconds: int | None = None,
    generation: int = 1,
    **fields: Any,
) -> Desired:
    policy = (
        VersionPolicy(type="Pinned", version_name=f"chat-{pin}")
        if pin
        else VersionPolicy(type="HighestSemver", range=inside)
    )
    strategy = Strategy(
        steps=tuple(steps),
        max_unavailable=max_unavailable,
        progress_deadline_seconds=deadline,
        on_failure=on_failure,  # type: ignore[arg-type]  # pydantic checks it
        rollback_window=RollbackWindow(revisions=window),
        min_ready_seconds=min_ready_seconds,
        keep_previous_seconds=keep_previous_seconds,
    )
    spec = RolloutSpec(model_name=MODEL, version_policy=policy, strategy=strategy, **fields)
    return Desired(ROLLOUT, spec, generation)


def revision(number: str, outcome: str = "Promoted") -> Revision:
    return Revision(
        version_name=f"chat-{number}",
        version=Version(number),
        manifest_digest=digest(number),
        sequence=sequence_of(number),
        outcome=outcome,  # type: ignore[arg-type]  # pydantic checks it
        started_at=NOW,
        finished_at=NOW,
    )


def failed(number: str, reason: Reason = Reason.SWAP_FAILED, message: str = "") -> FailedVersion:
    return FailedVersion(version_name=f"chat-{number}", manifest_digest=digest(number), reason=reason, message=message)


def status(live: str | None = None, target: str | None = None, **fields: Any) -> RolloutStatus:
    """A rollout's memory; at rest on `live` if no target is given."""
    target = target or live
    known: dict[str, Any] = {
        "observed_generation": 1,
        "live": release(live) if live else None,
        "live_sequence": sequence_of(live) if live else 0,
        "target": release(target) if target else None,
        "target_sequence": sequence_of(target) if target else 0,
        "step_index": 2 if target == live else 0,
    }
    return RolloutStatus(**{**known, **fields})


def observed(*parts: PodView | VersionView, memory: RolloutStatus | None = None, **fields: Any) -> Observed:
    """What is seen: pods and versions in any order."""
    return Observed(
        now=fields.pop("now", NOW),
        status=memory or RolloutStatus(),
        versions=tuple(part for part in parts if isinstance(part, VersionView)),
        pods=tuple(part for part in parts if isinstance(part, PodView)),
        term=fields.pop("term", 1),
        **fields,
    )
