"""Which version a rollout should have: the rules of choice.

None prefers a version by a clock. One is closed by it: a manifest's notAfter is the publisher's signed word that the
version is not to be taken up afterwards, and pods refuse it then. What is live stays live.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from modelparams.api.release import Release
from modelparams.api.rollout import RolloutSpec, RolloutStatus, VersionPolicy
from modelparams.digest import Digest
from modelparams.errors import InvalidVersion
from modelparams.names import Version, VersionRange
from modelparams.reasons import Reason
from modelparams_operator.core.model import VersionView

FAILED_LIMIT = 50
"""So many failures are remembered. Who has as many standing versions that failed needs a person, not the next one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer. No release is no order: pods keep what they serve, and nobody is moved."""

    release: Release | None
    sequence: int = 0
    reason: Reason = Reason.PROMOTED
    """PROMOTED for an ordinary choice, else what stands in the way of one."""
    message: str = ""
    stalls: bool = False
    """True when only a person can help."""
    is_transient: bool = False
    """True when it is being tried again."""


def choose(
    spec: RolloutSpec, versions: Sequence[VersionView], memory: RolloutStatus, now: datetime | None = None
) -> Choice:
    """Choose by the rollout's policy among the versions of its model.

    Identity is the digest with the name. An unverified version is never chosen, and a version that failed in pods is
    not chosen again while `memory.failed_versions` names it. One whose notAfter is before `now` is not chosen unless
    it is live; None asks what would be chosen if no time ended.

    Raises:
        InvalidVersion: `spec.version_policy.range` is no range, or none can be in it.
    """
    court = _Court(
        spec, tuple(v for v in versions if v.spec.model_name == spec.model_name and not v.deleting), memory, now
    )
    if spec.version_policy.type == "Pinned":
        return court.pinned(spec.version_policy.version_name or "")
    wanted = VersionRange(spec.version_policy.range or "")
    if wanted.is_empty:
        raise InvalidVersion(
            f"no version can be in the range {wanted}",
            hint="write the lower bound first and a higher one after it, such as '>=1.4.0 <2.0.0'",
        )
    return court.highest(wanted)


def is_sequence_too_low(view: VersionView, memory: RolloutStatus, *, is_pinned: bool = False) -> bool:
    """Tell whether the manifest is older than its number says.

    Below the highest floor that any verified manifest states: always. Below what is live, though the version is
    higher: unless a person pinned it, since a fix of an old line may be published after a new one.
    """
    facts, live = view.facts, memory.live
    if facts is None:
        return False
    if facts.sequence < memory.floor:
        return True
    is_behind = facts.sequence < memory.live_sequence  # first: comparing versions costs a hundred times as much
    return is_behind and not is_pinned and live is not None and view.version > live.version


@functools.lru_cache(maxsize=4096)
def is_inside(wanted: VersionRange, version: Version) -> bool:
    """Tell whether `version` is in the range; remembered, since every pass asks again."""
    return version in wanted


def is_out_of_range(version: Version, policy: VersionPolicy) -> bool:
    """Tell whether a policy that has a range would never choose it."""
    try:
        return policy.range is not None and not is_inside(VersionRange(policy.range), version)
    except InvalidVersion:
        return False


_TRY_AGAIN = "; set spec.retryToken to try it again, or pin another one"


@dataclass(frozen=True, slots=True)
class _Court:
    spec: RolloutSpec
    versions: tuple[VersionView, ...]
    memory: RolloutStatus
    now: datetime | None

    def highest(self, wanted: VersionRange) -> Choice:
        live = self.memory.live
        eligible = [v for v in self.versions if is_inside(wanted, v.version) and self._is_eligible(v)]
        ranked = sorted(
            (v for v in eligible if not self._is_over(v)), key=lambda view: view.version.parsed, reverse=True
        )
        best = next((v for v in ranked if self._is_verified(v)), None)
        if best is None:
            return self._abort() or self._nothing(wanted, ranked, eligible)
        if live is not None and best.version < live.version and self._stands(live):
            return self._keep(live, best)
        awaited = next((v for v in ranked if v.facts is None and v.failure is None and v.version > best.version), None)
        if awaited is not None and not self._has(best) and not self._was_taken_out(live):
            return _unverified(awaited)
        return self._held_up(wanted, best) or self._choice(best)

    def pinned(self, name: str) -> Choice:
        view = next((v for v in self.versions if v.name == name), None)
        if view is None:
            return self._remembered(name)
        if view.is_withdrawn:
            return self._last_good(view, Reason.PINNED_VERSION_WITHDRAWN, f"{name} is pinned and withdrawn")
        failed = next((f for f in self.memory.failed_versions if f.manifest_digest == view.digest), None)
        if failed is not None and not self._is_held(view):
            why = f": {failed.message.rstrip('.')}" if failed.message else ""
            return self._last_good(view, failed.reason, f"{name} is pinned and has failed{why}", _TRY_AGAIN)
        if view.is_refused and view.failure is not None:
            return Choice(None, reason=view.failure.reason, message=view.failure.message, stalls=True)
        if is_sequence_too_low(view, self.memory, is_pinned=True):
            return Choice(None, reason=Reason.SEQUENCE_TOO_LOW, message=f"{name} is below the floor", stalls=True)
        if self._is_over(view):
            return self._last_good(view, Reason.EXPIRED, f"{name} is pinned, and {_over(view)}")
        if view.spec.suspend and not self._has(view):
            return Choice(None, reason=Reason.SUSPENDED, message=f"{name} is pinned and suspended")
        if not self._is_verified(view):
            return _unverified(view)
        return self._choice(view)

    def _is_over(self, view: VersionView) -> bool:
        """Tell whether it may not be taken up any more; one that is being rolled out goes back to what is live."""
        live = self.memory.live
        return self.now is not None and view.is_expired(self.now) and not (live is not None and view.is_of(live))

    def _is_eligible(self, view: VersionView) -> bool:
        """Tell whether it is a candidate but for its time, verified or not yet."""
        return self._is_sound(view) and not self._is_one_too_many(view)

    def _is_sound(self, view: VersionView) -> bool:
        return not (
            view.is_withdrawn
            or view.is_refused
            or (view.spec.suspend and not self._has(view))
            or (self._has_failed(view.digest) and not self._is_held(view))
            or is_sequence_too_low(view, self.memory)
        )

    def _is_verified(self, view: VersionView) -> bool:
        return view.facts is not None or self._has(view)

    def _has(self, view: VersionView) -> bool:
        """Tell whether it is live or being rolled out: it was verified when it was chosen."""
        return any(r is not None and view.is_of(r) for r in (self.memory.live, self.memory.target))

    def _has_failed(self, digest: Digest) -> bool:
        return any(failed.manifest_digest == digest for failed in self.memory.failed_versions)

    def _is_one_too_many(self, view: VersionView) -> bool:
        """Tell whether its failure could not be remembered. The way back to a lower version is always open."""
        is_full, live = len(self.memory.failed_versions) >= FAILED_LIMIT, self.memory.live
        return is_full and not self._has(view) and (live is None or view.version > live.version)

    def _held_up(self, wanted: VersionRange, best: VersionView) -> Choice | None:
        """Say on what is live which newer version waits until people have looked after the many that failed."""
        live = self.memory.live
        if live is None or not best.is_of(live):
            return None
        newer = [v for v in self.versions if self._is_one_too_many(v) and self._is_sound(v)]
        first = max((v for v in newer if is_inside(wanted, v.version)), key=lambda v: v.version.parsed, default=None)
        if first is None:
            return None
        message = f"{first.name} {self._fault(first)}; {live.version_name} stays"
        return Choice(live, self.memory.live_sequence, Reason.NO_VERSION_SELECTED, message, stalls=True)

    def _is_held(self, view: VersionView) -> bool:
        """Under `onFailure: Pause` a failed target stays the target, so that a person can look at it."""
        target = self.memory.target
        return self.spec.strategy.on_failure == "Pause" and target is not None and view.is_of(target)

    def _stands(self, release: Release) -> bool:
        """Deny it when its object is gone or withdrawn, or when it has failed."""
        there = any(v.is_of(release) and not v.is_withdrawn for v in self.versions)
        return there and not self._has_failed(release.manifest_digest)

    def _was_taken_out(self, release: Release | None) -> bool:
        """Tell whether a person withdrew it, or it failed: it has to be left at once."""
        if release is None:
            return False
        withdrawn = any(v.is_of(release) and v.is_withdrawn for v in self.versions)
        return withdrawn or self._has_failed(release.manifest_digest)

    def _abort(self) -> Choice | None:
        """Go back to what is live if the target was taken out and nothing else is to be had."""
        live, target = self.memory.live, self.memory.target
        if live is None or not self._was_taken_out(target) or self._is_unusable(live):
            return None
        return Choice(live, self.memory.live_sequence)

    def _is_unusable(self, live: Release) -> bool:
        return self._was_taken_out(live) or self.memory.live_sequence < self.memory.floor

    def _keep(self, live: Release, best: VersionView) -> Choice:
        if self.memory.live_sequence < self.memory.floor:
            return self._kept(live)
        refusal = next((v.failure for v in self.versions if v.is_of(live) and v.is_refused), None)
        why = f"was refused when it was made again: {refusal.message}" if refusal is not None else "not in the range"
        message = f"{live.version_name} is live and {why}; withdraw it or pin {best.name} to go back"
        return Choice(live, self.memory.live_sequence, Reason.NO_VERSION_SELECTED, message)

    def _kept(self, release: Release) -> Choice:
        """Leave what is below the floor where it is served; no other pod gets it."""
        message = f"{release.version_name} is below the floor {self.memory.floor}: publish a new version"
        return Choice(None, reason=Reason.SEQUENCE_TOO_LOW, message=message, stalls=True)

    def _nothing(self, wanted: VersionRange, ranked: Sequence[VersionView], eligible: Sequence[VersionView]) -> Choice:
        """Say, when there is no candidate, what comes nearest to one."""
        live = self.memory.live
        if ranked:
            return _unverified(ranked[0])
        if live is not None and self._stands(live) and self.memory.live_sequence < self.memory.floor:
            return self._kept(live)
        if eligible:  # all of them, since none is ranked
            last = max(eligible, key=lambda v: v.version.parsed)
            message = f"{last.name}: {_over(last)}; publish a new version; pods keep what they serve"
            return Choice(None, reason=Reason.EXPIRED, message=message, stalls=True)
        inside = [v for v in self.versions if is_inside(wanted, v.version)]
        refused = max((v for v in inside if v.is_refused), key=lambda v: v.version.parsed, default=None)
        if refused is not None and refused.failure is not None and live is None:
            message = f"{refused.name} was refused: {refused.failure.message}"
            return Choice(None, reason=refused.failure.reason, message=message, stalls=True)
        message = f"{self._why_none(wanted, inside)}; pods keep what they serve"
        return Choice(None, reason=Reason.NO_VERSION_SELECTED, message=message)

    def _why_none(self, wanted: VersionRange, inside: Sequence[VersionView]) -> str:
        highest = max(inside or self.versions, key=lambda v: v.version.parsed, default=None)
        if highest is None:
            return f"there is no version of {self.spec.model_name}"
        if inside:
            return f"{highest.name}, the highest in the range {wanted}, {self._fault(highest)}"
        known = f"the highest of {len(self.versions)} is {highest.name}"
        return f"no version of {self.spec.model_name} is in the range {wanted}; {known}"

    def _fault(self, view: VersionView) -> str:
        """Say why it is no candidate, as a person would mend it."""
        if view.is_withdrawn:
            return "is withdrawn"
        if view.is_refused and view.failure is not None:
            return f"was refused: {view.failure.message.rstrip('.')}"
        if self._has_failed(view.digest):
            return "has failed: publish a new version, or set spec.retryToken"
        if self._is_one_too_many(view):
            return f"waits: {FAILED_LIMIT} others have failed: delete their objects, or set spec.retryToken"
        return "is suspended" if view.spec.suspend else "has too low a sequence: publish it again"

    def _remembered(self, name: str) -> Choice:
        """Stay with a pinned version whose object was pruned while it is live or under way."""
        for release, sequence in (
            (self.memory.target, self.memory.target_sequence),
            (self.memory.live, self.memory.live_sequence),
        ):
            if release is not None and release.version_name == name and not self._was_taken_out(release):
                if sequence < self.memory.floor:
                    return self._kept(release)
                message = (
                    f"{name} is pinned and its object is gone; its orders stand; apply it again, or pin another one"
                )
                return Choice(release, sequence, Reason.PINNED_VERSION_MISSING, message)
        return Choice(None, reason=Reason.PINNED_VERSION_MISSING, message=f"{name} is pinned and does not exist")

    def _last_good(self, bad: VersionView, reason: Reason, what: str, next_step: str = "") -> Choice:
        live = self.memory.live
        if live is not None and not bad.is_of(live) and not self._is_unusable(live):
            message = f"{what}; {live.version_name} stays{next_step}"
            return Choice(live, self.memory.live_sequence, reason, message, stalls=True)
        promoted = (r.manifest_digest for r in self.memory.history if r.outcome == "Promoted")
        good = next((v for digest in promoted for v in self._usable(digest) if v.name != bad.name), None)
        if good is None or good.facts is None:
            return Choice(None, reason=reason, message=f"{what}; nothing to go back to{next_step}", stalls=True)
        return Choice(
            good.release, good.facts.sequence, reason, f"{what}; going back to {good.name}{next_step}", stalls=True
        )

    def _usable(self, digest: Digest) -> Iterable[VersionView]:
        return (
            v
            for v in self.versions
            if v.digest == digest and v.facts is not None and self._is_eligible(v) and not self._is_over(v)
        )

    def _choice(self, view: VersionView) -> Choice:
        """Order it as it was verified: an object made again is not read from before its own check."""
        if view.facts is not None:
            return Choice(view.release, view.facts.sequence)
        live = self.memory.live
        if live is not None and view.is_of(live):
            return Choice(live, self.memory.live_sequence)
        return Choice(self.memory.target, self.memory.target_sequence)


def _over(view: VersionView) -> str:
    limit = view.facts.not_after if view.facts is not None else None
    return f"its notAfter {limit:%Y-%m-%dT%H:%M:%SZ} has passed" if limit is not None else "its notAfter has passed"


def _unverified(view: VersionView) -> Choice:
    if view.failure is None:
        return Choice(None, reason=Reason.VERIFYING, message=f"waiting for the check of {view.name}", is_transient=True)
    return Choice(None, reason=view.failure.reason, message=f"{view.name}: {view.failure.message}", is_transient=True)
