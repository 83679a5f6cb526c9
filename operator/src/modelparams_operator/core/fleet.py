"""The rollout's pods as the planner counts them: who is ours, what each serves, who is away because of us."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from modelparams.api.assignment import AssignmentSpec, AssignmentStatus, ReleaseFailure
from modelparams.api.release import Release
from modelparams.digest import Digest
from modelparams_operator.core.model import Desired, Observed, PodView


@dataclass(frozen=True, slots=True)
class Member:
    """One pod of ours, with what belongs to this life of it."""

    name: str
    uid: str
    is_ready: bool
    order: AssignmentSpec | None
    answer: AssignmentStatus | None
    serves: Digest | None
    """What the pod reports live."""
    side: Digest | None
    """What it was ordered to serve; without an order, what it serves."""
    is_settled: bool
    """Ready, and serving what it was ordered to."""
    resident: frozenset[Digest]
    """What it can serve at once."""
    ready_since: datetime | None = None

    @classmethod
    def of(cls, pod: PodView) -> Member:
        """Leave out an order to, or an answer of, an earlier pod of the same name."""
        order = pod.order if pod.order is not None and pod.order.pod_uid == pod.uid else None
        answer = pod.answer if pod.answer is not None and pod.answer.pod_uid == pod.uid else None
        serves = answer.live.manifest_digest if answer is not None and answer.live is not None else None
        side = order.activate if order is not None and order.activate is not None else serves
        is_settled = pod.ready and serves is not None and serves == side
        resident = frozenset(held.manifest_digest for held in answer.staged) if answer is not None else frozenset()
        if serves is not None and serves not in resident:
            resident |= {serves}
        return cls(pod.name, pod.uid, pod.ready, order, answer, serves, side, is_settled, resident, pod.ready_since)

    @property
    def obeyed_term(self) -> int:
        """The highest term that it obeyed: it ignores any order with a lower one."""
        return self.answer.term if self.answer is not None else 0

    def holds(self, digest: Digest) -> bool:
        """Tell whether the pod has it resident."""
        return digest in self.resident

    def failure(self, digest: Digest, attempt: str) -> ReleaseFailure | None:
        """Why it could not take `digest`, if that is its last word on this attempt."""
        failure = self.answer.last_failure if self.answer is not None else None
        if failure is None or failure.attempt != attempt or failure.manifest_digest != digest or self.serves == digest:
            return None
        return failure

    def gave_up(self, digest: Digest, attempt: str) -> bool:
        """Tell whether it will not try `digest` again by itself."""
        failure = self.failure(digest, attempt)
        return failure is not None and failure.final

    @property
    def was_taken(self) -> bool:
        """Tell whether we took it from serving, for what it is ordered to serve or on the way there."""
        return self.order is not None and self.order.moved_in is not None

    @property
    def is_lost(self) -> bool:
        """Tell whether it is not well where we sent it, whenever that was."""
        return self.was_taken and not self.is_settled

    def is_away(self, revision: int) -> bool:
        """Tell whether we took it from serving since the fleet was last at rest, and it is not back.

        One that refused for good is back: it serves on as before.
        """
        order = self.order
        if self.is_settled or order is None or order.moved_in != revision:
            return False
        refused = order.activate is not None and self.gave_up(order.activate, order.attempt)
        return not (refused and self.is_ready and self.serves is not None)

    def is_outside(self, homes: frozenset[Digest]) -> bool:
        """Tell whether it serves, or was ordered to serve, none of `homes`."""
        return (self.serves is not None and self.serves not in homes) or (
            self.side is not None and self.side not in homes
        )

    def release(self, digest: Digest) -> Release | None:
        """Find the release of that digest in its order."""
        ordered = self.order.releases if self.order is not None else ()
        return next((release for release in ordered if release.manifest_digest == digest), None)


ANSWERED_TERM_MAX = 2**30
"""Of the terms that pods answer, those that still leave the Lease as many: a pod may write any, and end no leading."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All pods that this rollout may order, by name."""

    members: tuple[Member, ...]
    claimed_twice: tuple[tuple[str, str], ...] = ()
    """Pods that another rollout names too, each with the other's name, whether they are ours or not."""
    highest_term: int = 0

    @classmethod
    def of(cls, desired: Desired, observed: Observed) -> Fleet:
        """Leave out pods that go away, and those named by two rollouts unless this one has them already."""
        pods = sorted((pod for pod in observed.pods if not pod.deleting), key=lambda pod: pod.name)
        seen = [Member.of(pod) for pod in pods]
        ours = tuple(
            member
            for member in seen
            if not observed.other_claims.get(member.name)
            or (member.order is not None and member.order.rollout_name == desired.name)
        )
        claims = [(member.name, observed.other_claims.get(member.name, ())) for member in seen]
        return cls(
            ours,
            tuple((pod, others[0]) for pod, others in claims if others),
            max((member.order.term for member in ours if member.order is not None), default=0),
        )

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.members)

    def beyond(self, term: int) -> tuple[Member, ...]:
        """Find the pods that ignore orders of `term`, since they obeyed a higher one."""
        return tuple(member for member in self.members if member.obeyed_term > term)

    def within(self, term: int) -> Fleet:
        """Leave those out."""
        return replace(self, members=tuple(member for member in self.members if member.obeyed_term <= term))

    def serves_alone(self, release: Release) -> bool:
        """Tell whether it is what pods serve, and all that serve anything."""
        return {member.serves for member in self.members} - {None} == {release.manifest_digest}

    def settled_on(self, digest: Digest) -> int:
        """Count those that are ready and serve `digest` as ordered."""
        return sum(1 for member in self.members if member.is_settled and member.side == digest)

    def taken_to(self, digest: Digest) -> int:
        """Count those that we took from serving to `digest`, and that are well on it."""
        return sum(1 for m in self.members if m.was_taken and m.is_settled and m.side == digest)

    def unwell(self, digest: Digest, revision: int | None = None) -> tuple[Member, ...]:
        """Find those that we took to `digest`, since `revision` if given, that serve it and are not ready on it."""
        taken = (m for m in self.members if (m.was_taken if revision is None else m.is_away(revision)))
        return tuple(m for m in taken if m.side == m.serves == digest and not m.is_ready)

    def unwell_on(self, digest: Digest, revision: int | None = None) -> int:
        """Count them."""
        return len(self.unwell(digest, revision))

    def away(self, revision: int) -> int:
        """Count those that are unavailable, or may be at any moment, because of us."""
        return sum(1 for member in self.members if member.is_away(revision))

    def failures(self, digest: Digest, attempt: str) -> tuple[tuple[Member, ReleaseFailure], ...]:
        """Name the pods that could not take `digest`, each with its reason."""
        found = ((member, member.failure(digest, attempt)) for member in self.members)
        return tuple((member, failure) for member, failure in found if failure is not None)
