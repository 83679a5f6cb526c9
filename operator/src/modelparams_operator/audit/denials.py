"""What was tried and refused, each once however often. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from modelparams_operator.audit.events import Event, Who

DENIALS_MAX = 10_000
"""Whoever may send requests may have as many refused as he likes."""


@dataclass(frozen=True, slots=True)
class Denial:
    """What was tried and refused; `count` times in the same words by the same."""

    at: datetime
    last: datetime
    count: int
    who: Who
    verb: str
    namespace: str
    resource: str
    subresource: str
    name: str
    model: str
    code: int
    is_dry_run: bool
    tried: tuple[str, ...]
    message: str


def denials(events: Iterable[Event]) -> tuple[tuple[Denial, ...], int]:
    """What was refused, by time, and how many refusals are left out."""
    found, left_out = dict[tuple[object, ...], Denial](), 0
    for event in events:
        if not event.is_denied:
            continue
        one = _denial(event)
        key = (one.who, one.verb, one.namespace, one.resource, one.subresource, one.name, one.message, one.is_dry_run)
        if key in found:
            found[key] = replace(found[key], count=found[key].count + 1, last=one.at)
        elif len(found) < DENIALS_MAX:
            found[key] = one
        else:
            left_out += 1
    return tuple(found.values()), left_out


def _denial(event: Event) -> Denial:
    return Denial(
        at=event.at,
        last=event.at,
        count=1,
        who=event.who,
        verb=event.verb,
        namespace=event.namespace,
        resource=event.resource,
        subresource=event.subresource,
        name=event.name,
        model=event.model,
        code=event.code,
        is_dry_run=event.is_dry_run,
        tried=event.tried,
        message=event.message,
    )
