"""Facts of a version → its status: what `kubectl get mpv` shows, whatever rollouts use it or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, carried_over, find
from modelparams.api.rollout import RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams.errors import InvalidVersion
from modelparams.names import VersionRange
from modelparams.reasons import Reason
from modelparams.wording import counted
from modelparams_operator.core.memory import is_at_rest
from modelparams_operator.core.model import Desired, VersionView
from modelparams_operator.core.rollout_status import Verdict
from modelparams_operator.core.selection import Choice, choose, is_inside, is_sequence_too_low

_WAITS_FOR_A_PERSON = (Reason.AWAITING_APPROVAL, Reason.PAUSED, Reason.SUSPENDED)


@dataclass(frozen=True, slots=True)
class RolloutUse:
    """One rollout of the version's model, as it is after its plan."""

    desired: Desired
    status: RolloutStatus
    choice: Choice
    """What it would choose now: made once for all versions, since it looks at all of them."""
    timeless: Choice
    """The same if no version's time were over."""

    @classmethod
    def of(cls, desired: Desired, status: RolloutStatus, versions: Sequence[VersionView], now: datetime) -> RolloutUse:
        """As `versions`, all of the model's, leave the choice."""
        choice = _choice(desired, status, versions, now)
        has_ended = any(view.is_expired(now) for view in versions)
        return cls(desired, status, choice, _choice(desired, status, versions, None) if has_ended else choice)


def judge(view: VersionView, rollouts: Sequence[RolloutUse], old: VersionStatus, now: datetime) -> VersionStatus:
    """Sum up what is known about a version.

    It is Ready when there is nothing to wait for: it is live, or superseded, or standing by, or withdrawn. Between its
    check and the moment when a rollout takes it up it is not Ready yet, so that a wait for it is a wait for the pods.
    """
    verdict = _verdict(view, rollouts, now)
    found = [(ConditionType.READY, verdict.ready, verdict.reason, verdict.message), _verified(view)]
    if verdict.beside is not None:
        found.append((ConditionType(verdict.beside), ConditionStatus.TRUE, verdict.reason, verdict.message))
    made = (
        Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            observed_generation=view.generation,
            last_transition_time=now,
        )
        for kind, status, reason, message in found
    )
    users = (use.desired.name for use in rollouts if _has(use.status, view))
    return VersionStatus(
        observed_generation=view.generation,
        verified=view.facts,
        used_by=tuple(sorted(users)),
        conditions=carried_over(made, old.conditions),
    )


def _has(status: RolloutStatus, view: VersionView) -> bool:
    return any(release is not None and view.is_of(release) for release in (status.live, status.target))


def _verified(view: VersionView) -> tuple[ConditionType, ConditionStatus, Reason, str]:
    facts, failure = view.facts, view.failure
    if facts is not None:
        counts = (counted(facts.blobs, "blob"), counted(facts.size_bytes, "byte"))
        message = ", ".join((*counts, counted(len(facts.signers), "trusted signature"), f"sequence {facts.sequence}"))
        return ConditionType.VERIFIED, ConditionStatus.TRUE, Reason.VERIFIED, message
    if failure is None:
        return ConditionType.VERIFIED, ConditionStatus.UNKNOWN, Reason.VERIFYING, "the check has not ended"
    status = ConditionStatus.FALSE if failure.is_final else ConditionStatus.UNKNOWN
    return ConditionType.VERIFIED, status, failure.reason, failure.message


def _verdict(view: VersionView, rollouts: Sequence[RolloutUse], now: datetime) -> Verdict:
    failure = view.failure
    if view.is_withdrawn:
        return _ready(Reason.WITHDRAWN, "a person took it out: it is not chosen")
    if view.facts is None and failure is not None and failure.is_final:
        return Verdict(ConditionStatus.FALSE, "Stalled", failure.reason, failure.message)
    if view.facts is None and view.spec.suspend:
        return Verdict(ConditionStatus.UNKNOWN, None, Reason.SUSPENDED, "spec.suspend is set: it is not checked")
    if not rollouts:
        message = f"no usable rollout names {view.spec.model_name}: pods keep what they serve; apply one"
        return Verdict(ConditionStatus.UNKNOWN, None, Reason.NO_ROLLOUT, message)
    if view.facts is None and failure is not None:
        return Verdict(ConditionStatus.FALSE, "Reconciling", failure.reason, failure.message)
    if view.facts is None:
        return Verdict(ConditionStatus.UNKNOWN, "Reconciling", Reason.VERIFYING, "its manifest and blobs are checked")
    said = _used(view, rollouts) or _wanted(view, rollouts)
    if view.facts.not_after is not None and view.is_expired(now):
        return _expired(view, view.facts.not_after, said, rollouts)
    return said or _idle(view, rollouts)


def _expired(view: VersionView, limit: datetime, said: Verdict | None, rollouts: Sequence[RolloutUse]) -> Verdict:
    """Speak of a version whose time is over; what is wrong with it besides goes first."""
    if said is not None and said.beside == "Stalled":
        return said
    until = f"it was to be served until {limit:%Y-%m-%dT%H:%M:%SZ}"
    if any(use.status.live is not None and view.is_of(use.status.live) for use in rollouts):
        message = f"{until}: pods that serve it go on, others refuse it; publish a new version"
    elif said is not None or any(_is_choice(use.timeless, view) for use in rollouts):
        message = f"{until}: it is not taken up any more; publish a new version"
    else:
        return _ready(Reason.EXPIRED, f"{until}; no rollout wants it now")
    return Verdict(ConditionStatus.FALSE, "Stalled", Reason.EXPIRED, message)


def _is_choice(choice: Choice, view: VersionView) -> bool:
    return choice.release is not None and view.is_of(choice.release)


def _ready(reason: Reason, message: str) -> Verdict:
    return Verdict(ConditionStatus.TRUE, None, reason, message)


def _used(view: VersionView, rollouts: Sequence[RolloutUse]) -> Verdict | None:
    """Speak of a version that pods serve or shall serve, or that they could not."""
    for use in rollouts:
        failed = next((f for f in use.status.failed_versions if f.manifest_digest == view.digest), None)
        if failed is not None:
            where = f": {failed.message}" if failed.message else ""
            message = f"it failed in rollout {use.desired.name}{where}"
            return Verdict(ConditionStatus.FALSE, "Stalled", failed.reason, message)
    coming = [use for use in rollouts if _is_coming(view, use.status)]
    moving = next((use for use in coming if not _has_no_pods(use.status)), None)
    if moving is not None:
        return Verdict(ConditionStatus.UNKNOWN, "Reconciling", _why_under_way(moving), _how_far(moving))
    live = [use.desired.name for use in rollouts if use.status.live is not None and view.is_of(use.status.live)]
    if live:
        return _ready(Reason.LIVE, f"it is live in rollout {', '.join(sorted(live))}")
    if coming:
        message = f"rollout {coming[0].desired.name} selects no pod; it is rolled out when there are some"
        return _ready(Reason.NO_PODS, message)
    return None


def _is_coming(view: VersionView, status: RolloutStatus) -> bool:
    return status.target is not None and view.is_of(status.target) and not is_at_rest(status)


def _has_no_pods(status: RolloutStatus) -> bool:
    """Tell whether a pass counted none, whatever else it found to say."""
    return find(status.conditions, ConditionType.READY) is not None and not status.pods.total


def _why_under_way(use: RolloutUse) -> Reason:
    """Say that it waits for a person where its rollout does: whoever waits for the version should know for what."""
    ready = find(use.status.conditions, ConditionType.READY)
    return ready.reason if ready is not None and ready.reason in _WAITS_FOR_A_PERSON else Reason.ROLLING_OUT


def _how_far(use: RolloutUse) -> str:
    """Say how far its pods are, and what holds them up."""
    said = f"rollout {use.desired.name}: {use.status.pods.summary} pods, step {use.status.step}"
    ready = find(use.status.conditions, ConditionType.READY)
    if ready is None or ready.status is not ConditionStatus.FALSE or ready.reason is Reason.ROLLING_BACK:
        return said
    return f"{said}; {ready.reason}: {ready.message}"


def _wanted(view: VersionView, rollouts: Sequence[RolloutUse]) -> Verdict | None:
    """Speak of a version that a rollout will take up in its next pass, or that it may not."""
    for use in rollouts:
        choice = use.choice
        if _is_choice(choice, view):
            message = f"rollout {use.desired.name} takes it up"
            return Verdict(ConditionStatus.UNKNOWN, "Reconciling", Reason.ROLLING_OUT, message)
        if choice.reason is Reason.VERIFYING and use.status.target is None:
            message = f"rollout {use.desired.name}: {choice.message}"
            return Verdict(ConditionStatus.UNKNOWN, "Reconciling", Reason.VERIFYING, message)
    for use in rollouts:
        is_pinned = use.desired.spec.version_policy.type == "Pinned"
        if view.facts is None or not is_sequence_too_low(view, use.status, is_pinned=is_pinned):
            continue
        if view.facts.sequence < use.status.floor or _is_in_policy(view, use.desired):
            least = max(use.status.floor, use.status.live_sequence)
            message = f"its sequence {view.facts.sequence} is below {least}; publish it again to give it a higher one"
            return Verdict(ConditionStatus.FALSE, "Stalled", Reason.SEQUENCE_TOO_LOW, message)
    return None


def _is_in_policy(view: VersionView, desired: Desired) -> bool:
    """Tell whether the rollout would ever choose it: of one outside of its range its sequence is no trouble."""
    policy = desired.spec.version_policy
    if policy.type == "Pinned":
        return policy.version_name == view.name
    try:
        return is_inside(VersionRange(policy.range or ""), view.version)
    except InvalidVersion:
        return False


def _choice(desired: Desired, status: RolloutStatus, versions: Sequence[VersionView], now: datetime | None) -> Choice:
    """Say what the rollout would choose now, if it chose."""
    if desired.spec.suspend:
        return Choice(None, reason=Reason.SUSPENDED)
    try:
        return choose(desired.spec, versions, status, now)
    except InvalidVersion:
        return Choice(None, reason=Reason.INVALID_SPEC)


def _idle(view: VersionView, rollouts: Sequence[RolloutUse]) -> Verdict:
    """Speak of a version that nobody wants now."""
    was_live = any(r.manifest_digest == view.digest for use in rollouts for r in use.status.history)
    is_older = any(use.status.live is not None and view.version < use.status.live.version for use in rollouts)
    if was_live and is_older:
        return _ready(Reason.SUPERSEDED, "a newer version is live")
    return _ready(Reason.STANDBY, "verified; no rollout wants it now")
