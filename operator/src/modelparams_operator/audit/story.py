"""Events in order → what a reader asks of them: what was served, who did what, what was denied, what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, groupby, pairwise

from modelparams.api import assignment, rollout, version
from modelparams.api.base import Wire
from modelparams.errors import InvalidSpec
from modelparams_operator.audit import acts, gaps
from modelparams_operator.audit.acts import Act
from modelparams_operator.audit.denials import Denial, denials
from modelparams_operator.audit.events import RESOURCES, Event
from modelparams_operator.audit.gaps import Gap, Kind, WithoutBody
from modelparams_operator.audit.ledger import Account, Ledger, by_time
from modelparams_operator.audit.served import Orders, Served, served
from modelparams_operator.audit.shelf import Shelf

_OF = {version.PLURAL: acts.of_version, rollout.PLURAL: acts.of_rollout}
_SPECS: dict[str, type[Wire]] = {
    version.PLURAL: version.VersionSpec,
    rollout.PLURAL: rollout.RolloutSpec,
    assignment.PLURAL: assignment.AssignmentSpec,
}
_STATUSES: dict[str, type[Wire]] = {version.PLURAL: version.VersionStatus, rollout.PLURAL: rollout.RolloutStatus}
"""A pod's answer that cannot be used is none, as the operator has it."""


@dataclass(frozen=True, slots=True)
class Story:
    """All that a log tells, by time."""

    first: datetime | None
    last: datetime | None
    events: int
    served: tuple[Account, ...] = ()
    acts: tuple[Act, ...] = ()
    denied: tuple[Denial, ...] = ()
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """Filled while the shelf is read."""

    served: list[Account] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    without_body: WithoutBody = field(default_factory=WithoutBody)


def tell(shelf: Shelf) -> Story:
    """Read what was put on a shelf, however it came there: in any order, and twice."""
    found = _Found()
    for _, events in groupby(shelf.stored(), key=lambda one: one.namespace):
        _tell_namespace(found, shelf, events)
    refused, left_out = denials(shelf.refused())
    missing = [*found.gaps, *found.without_body.gaps(), *gaps.in_the_log(shelf)]
    return Story(
        first=shelf.first,
        last=shelf.last,
        events=shelf.count,
        served=tuple(sorted(found.served, key=lambda one: (one.served.since, one.served.pod, one.served.digest))),
        acts=tuple(sorted(found.acts, key=lambda act: (*by_time(act), act.namespace, act.resource, act.name))),
        denied=refused,
        gaps=tuple(missing),
        notes=tuple(_notes(shelf, left_out)),
    )


def _tell_namespace(found: _Found, shelf: Shelf, events: Iterable[Event]) -> None:
    """Versions and rollouts come before the orders, whose times they account for."""
    here = Ledger()
    for (resource, _), named in groupby(events, key=lambda one: (one.resource, one.name)):
        if resource in RESOURCES:
            _tell_name(found, shelf, here, named)
        else:
            here.enter(map(acts.of_guard, named))
    found.acts += here.acts


def _tell_name(found: _Found, shelf: Shelf, here: Ledger, events: Iterable[Event]) -> None:
    """All objects that had one name, one after another."""
    lives, times, orders = list[tuple[Event, Event]](), list[Served](), Orders()
    for uid, life in groupby(events, key=lambda one: one.uid):
        if not uid:
            for event in life:
                found.without_body.add(event)
            continue
        ends = list[Event]()
        walked = _walked(found, shelf, life, ends)
        times += _served_or_done(walked, here, orders)
        deque(walked, maxlen=0)  # what came after its deletion
        lives.append((ends[0], ends[-1]))
    found.served += [here.account(orders.with_order(one)) for one in times]
    lives.sort(key=lambda one: (one[0].resource_version, one[0].at))
    gone = (gaps.left_in_place(before[1], after[0]) for before, after in pairwise(lives))
    found.gaps += [gap for gap in gone if gap]


def _served_or_done(events: Iterator[Event], here: Ledger, orders: Orders) -> Iterator[Served]:
    """The times of an order; of other objects none, but the acts are entered."""
    first = next(events, None)
    whole = chain([first], events) if first else ()
    if first and first.resource == assignment.PLURAL:
        yield from served(whole, orders)
    else:
        here.enter(_done(whole))


def _done(events: Iterable[Event]) -> Iterator[Act]:
    """What the writes to one version or rollout did."""
    for before, after in pairwise(_from_nothing(events)):
        for act in _OF[after.resource](before, after) if after else ():
            yield acts.in_doubt(act, after) if after and after.follows_gap else act


def _from_nothing(events: Iterable[Event]) -> Iterator[Event | None]:
    yield None
    yield from events


def _walked(found: _Found, shelf: Shelf, events: Iterable[Event], ends: list[Event]) -> Iterator[Event]:
    """The events as they come; on the way what is missing between them is found, and the first and last kept."""
    is_after_gap = False
    for event in events:
        gap = gaps.between(ends[-1], event) if ends else gaps.begins_too_late(event, shelf.first)
        if gap and gap.since and gap.until:
            gap = gaps.explained(gap, shelf.in_doubt(event, gap.since, gap.until))
        found.gaps += [gap] if gap else []
        is_after_gap = is_after_gap or (gap is not None and bool(ends))
        last = _carried(ends[-1], event) if ends else event
        ends[:] = ends[0] if ends else last, last
        if unknown := _unknown(event):
            found.gaps.append(unknown)
            is_after_gap = True
            continue
        yield last.model_copy(update={"follows_gap": is_after_gap}) if is_after_gap else last
        is_after_gap = False


def _unknown(event: Event) -> Gap | None:
    """A gap where an object is none that this release knows: it says nothing then."""
    if event.deletes:
        return None
    try:
        _SPECS[event.resource].parse(event.spec)
        if event.resource in _STATUSES:
            _STATUSES[event.resource].parse(event.status)
    except InvalidSpec as error:
        message = f"what was written is none that this release knows: {error.message}"
        return Gap(Kind.UNREADABLE, event.at, event.at, message, event.namespace, event.resource, event.name)
    return None


def _carried(before: Event, after: Event) -> Event:
    """A bare deletion says nothing of versions; its model is its object's."""
    return after if after.resource_version else after.model_copy(update={"model": after.model or before.model})


def _notes(shelf: Shelf, left_out: int) -> Iterator[str]:
    if left_out:
        yield f"{left_out} more refused requests are not shown: narrow the log down"
    if next(shelf.beats(), None) is None:
        yield (
            "the log has no renewal of the operator's Lease, so a time that is missing as a whole cannot be seen: "
            "operator/deploy/audit-policy.yaml records them"
        )
