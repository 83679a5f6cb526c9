"""A namespace's acts, and by whose will a pod served what it did. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from modelparams.api import rollout, version
from modelparams_operator.audit.acts import Act
from modelparams_operator.audit.served import Served


@dataclass(frozen=True, slots=True)
class Account:
    """A time of a pod, and by whose will it was so; each absent where the log does not say.

    Attributes:
        published: who made the version, with that digest.
        released: who wrote the policy that chose it.
        approved: who let it pass steps, while the pod served it or before.
        expedited: who took it past all steps.
    """

    served: Served
    published: Act | None
    released: Act | None
    approved: tuple[Act, ...]
    expedited: Act | None


def by_time(act: Act) -> tuple[bool, float]:
    """What was there already when the log begins comes first."""
    return act.at is not None, act.at.timestamp() if act.at else 0


class Ledger:
    """Takes the acts in, then accounts for times."""

    def __init__(self) -> None:
        self._acts = defaultdict[tuple[str, str], list[Act]](list)

    @property
    def acts(self) -> list[Act]:
        """All of them."""
        return [act for acts in self._acts.values() for act in acts]

    def enter(self, acts: Iterable[Act]) -> None:
        """Take in what one write did."""
        for act in acts:
            about = self._acts[act.resource, act.name]
            about.append(act)
            if len(about) > 1 and by_time(about[-2]) > by_time(act):  # another object of that name, of another life
                about.sort(key=by_time)

    def account(self, one: Served) -> Account:
        """By whose will: the policy in force when the rollout turned to it, and all approvals until it ended."""
        about = self._acts.get((rollout.PLURAL, one.rollout), [])
        made = self._acts.get((version.PLURAL, one.version_name), [])
        ordered = one.order.at if one.order else one.since
        turned = _last(about, ordered, does="Targeted", digest=one.digest)
        chosen = turned.at if turned and turned.at else ordered
        return Account(
            served=one,
            published=_last(made, one.since, does="Published", digest=one.digest),
            released=_last(about, chosen, does="Released"),
            approved=tuple(_approvals(about, one)),
            expedited=_last(about, ordered, does="Expedited", version_name=one.version_name, digest=one.digest),
        )


def _last(acts: Iterable[Act], until: datetime, **wanted: str) -> Act | None:
    """The last one until a moment of which all that is as wanted."""
    found = None
    for act in acts:
        if (act.at is None or act.at <= until) and all(getattr(act, key) == value for key, value in wanted.items()):
            found = act
    return found


def _approvals(about: Iterable[Act], one: Served) -> Iterator[Act]:
    """Those of its version, with these very bytes, that stood at some moment of that time."""
    standing = dict[tuple[str, int], Act]()
    for act in about:
        key = (act.approved_by, act.through_step)
        is_its = (act.version_name, act.digest) == (one.version_name, one.digest)
        if not is_its or (one.until and act.at and act.at > one.until):
            continue
        if act.does == "Approved":
            standing[key] = act
        elif act.does == "ApprovalRemoved" and act.at and act.at <= one.since:
            standing.pop(key, None)
    yield from standing.values()
