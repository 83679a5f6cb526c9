"""What one order's writes say of its pod: which digest it served, from when to when. Pure.

A pod says what is live in the status of its order, with a token that is bound to it. What ends a time is its next word,
or the order's deletion: the garbage collector takes it with the pod. The times are those of the requests, by the API
server's clock; the pod's own `swappedAt` lies a moment before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from modelparams.api.assignment import AssignmentSpec, AssignmentStatus, HeldRelease, answer_of
from modelparams_operator.audit.events import Event, Who
from modelparams_operator.audit.gaps import SKEW


class Ended(StrEnum):
    """Why a time ended. Open: it had not, when the log ends."""

    CHANGED = "Changed"
    ORDER_DELETED = "OrderDeleted"
    OPEN = "Open"


@dataclass(frozen=True, slots=True)
class Order:
    """Who told the pod to serve it. The operator, where the policies are in force."""

    at: datetime
    by: Who
    term: int


@dataclass(frozen=True, slots=True)
class Served:
    """One pod and one digest, from when to when.

    Attributes:
        since: when the pod said so; when `since_is_known` is false, it did before: that word is not in the log.
        reported_by: whose word it is.
        by_the_pod: whether the token was bound to that very pod, by name and UID.
        ended_by: who wrote what ended it.
        has_gap: whether a write to its order is missing within this time or at one of its ends.
        order: absent when the log does not hold an order to serve this digest.
    """

    namespace: str
    pod: str
    pod_uid: str
    model: str
    rollout: str
    version_name: str
    digest: str
    tensors_digest: str
    since: datetime
    since_is_known: bool
    reported_by: Who
    by_the_pod: bool
    swapped_at: datetime | None
    order: Order | None = None
    until: datetime | None = None
    ended: Ended = Ended.OPEN
    ended_by: Who | None = None
    has_gap: bool = False


class Orders:
    """What a pod was told, by digest. It outlives the object: who deletes an order stops no pod."""

    def __init__(self) -> None:
        self._told = defaultdict[tuple[str, str], list[Order]](list)

    def add(self, spec: AssignmentSpec, order: Order) -> None:
        """Take one in, in any order."""
        told = self._told[spec.pod_uid, str(spec.activate)]
        told.append(order)
        told.sort(key=lambda one: one.at)

    def with_order(self, one: Served) -> Served:
        """The time with the last order before the pod's word, or by another server's clock just after it."""
        told = [order for order in self._told.get((one.pod_uid, one.digest), ()) if order.at <= one.since + SKEW]
        before = [order for order in told if order.at <= one.since] or told[:1]
        return replace(one, order=before[-1] if before else None)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an order so far."""

    spec: AssignmentSpec | None = None
    open: Served | None = None


def served(events: Iterable[Event], orders: Orders) -> Iterator[Served]:
    """The times of one order's pod; `events` are all writes to that one object, in order.

    What the pod was told is put into `orders`, which gives each time its order once all of the pod's objects are read.
    """
    known = _Known()
    for event in events:
        if known.open and event.follows_gap:
            known = replace(known, open=replace(known.open, has_gap=True))
        if event.deletes:
            if known.open:
                yield _ended(known.open, event, Ended.ORDER_DELETED)
            return
        is_followed = event.creates or known.spec is not None
        known = _with_order(known, event, orders, is_followed=is_followed)
        found = _live(event)
        if known.open and not _is_still(known.open, found):
            yield _ended(known.open, event, Ended.CHANGED)
            known = replace(known, open=None)
        known = replace(known, open=_now(known, event, found, is_followed=is_followed))
    if known.open:
        yield known.open


def _with_order(known: _Known, event: Event, orders: Orders, *, is_followed: bool) -> _Known:
    """Take in what the pod is told, and by whom, if this write told it."""
    spec = AssignmentSpec.parse(event.spec)
    was = known.spec
    is_as_before = was is not None and (was.activate, was.pod_uid) == (spec.activate, spec.pod_uid)
    if not is_as_before and spec.activate is not None and not event.writes_status and is_followed:
        orders.add(spec, Order(event.at, event.who, spec.term))
    return replace(known, spec=spec)


def _live(event: Event) -> tuple[HeldRelease, AssignmentStatus] | None:
    """What the pod says; an answer of a namesake's, or one that cannot be used, is none."""
    status, _ = answer_of(event.status)
    is_own = status.pod_uid == event.spec.get("podUID")
    return (status.live, status) if status.live and is_own else None


def _is_still(now: Served, found: tuple[HeldRelease, AssignmentStatus] | None) -> bool:
    if found is None:
        return False
    live, status = found
    same = (str(live.manifest_digest), status.pod_uid) == (now.digest, now.pod_uid)
    return same and (not now.tensors_digest or live.tensors_digest in ("", now.tensors_digest))


def _now(
    known: _Known, event: Event, found: tuple[HeldRelease, AssignmentStatus] | None, *, is_followed: bool
) -> Served | None:
    """What is served after this write: begun with it, or before."""
    if found is None or known.spec is None:
        return None
    live, status = found
    if known.open:
        return replace(known.open, tensors_digest=known.open.tensors_digest or live.tensors_digest)
    digest = str(live.manifest_digest)
    release = next((one for one in known.spec.releases if one.manifest_digest == live.manifest_digest), None)
    return Served(
        namespace=event.namespace,
        pod=event.name,
        pod_uid=status.pod_uid,
        model=str(release.model_name) if release else event.model,
        rollout=known.spec.rollout_name,
        version_name=live.version_name,
        digest=digest,
        tensors_digest=live.tensors_digest,
        since=event.at,
        since_is_known=event.writes_status and is_followed and not event.follows_gap,
        has_gap=event.follows_gap,
        reported_by=event.who,
        by_the_pod=event.writes_status and (event.who.pod, event.who.pod_uid) == (event.name, status.pod_uid),
        swapped_at=status.swapped_at,
    )


def _ended(open_: Served, event: Event, how: Ended) -> Served:
    return replace(open_, until=event.at, ended=how, ended_by=event.who)
