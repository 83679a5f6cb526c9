"""A story for people and for programs. Names and messages are strangers' words: shown, never obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelparams.cli.harmless import harmless
from modelparams.cli.output import table
from modelparams_operator.audit.acts import Act
from modelparams_operator.audit.denials import Denial
from modelparams_operator.audit.events import Who
from modelparams_operator.audit.gaps import Gap
from modelparams_operator.audit.ledger import Account
from modelparams_operator.audit.served import Ended
from modelparams_operator.audit.story import Story

Row = TypeVar("Row")
_Columns = Sequence[tuple[str, Callable[[Row], str]]]
_UNKNOWN = "not in the log"
_HOW = {Ended.OPEN: "the log's end", Ended.ORDER_DELETED: " (order deleted)", Ended.CHANGED: ""}


def render(story: Story, *, only_denied: bool = False) -> RenderableType:
    """What was served, who did what, what was denied, what is missing; last, what the log covers."""
    told: list[RenderableType | None] = []
    if not only_denied:
        told += [
            _table("Served", _SERVED, story.served),
            *(_said(f"{_line(one.served.pod)}: {words}") for one in story.served for words in _doubts(one)),
            _table("Versions", _VERSIONS, _versions(story)),
            _table("Acts", _ACTS, story.acts),
        ]
    told += [_table("Denied", _DENIED, story.denied), _table("Gaps", _GAPS, story.gaps)]
    told += [_said(words) for words in (*story.notes, covered(story))]
    return Group(*(one for one in told if one is not None))


def covered(story: Story) -> str:
    """What the log covers."""
    count = len(story.gaps)
    found = f"{count} gap{'s' if count > 1 else ''}: what is told may not be all" if count else "no gap was found"
    return f"{story.events} events from {time(story.first)} to {time(story.last)}; {found}"


def time(at: datetime | None) -> str:
    """To the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if at else "before"


def _by(who: Who | None) -> str:
    if who is None:
        return _UNKNOWN
    return (who.name or "nobody") + (f" (in truth {who.impersonated_by})" if who.impersonated_by else "")


def _doer(act: Act | None) -> str:
    if act is None or act.who is None:
        return _UNKNOWN
    return _by(act.who) + ("" if act.is_sure else ", or a write that is missing")


def _until(one: Account) -> str:
    how = one.served.ended
    return _HOW[how] if how is Ended.OPEN else time(one.served.until) + _HOW[how]


def _approvers(one: Account) -> str:
    passed = [f"{act.approved_by} (step {act.through_step})" for act in one.approved]
    return ", ".join([*passed, *([f"{_doer(one.expedited)} (expedited)"] if one.expedited else [])])


def _doubts(one: Account) -> Iterator[str]:
    """What is not as it is where all policies are in force."""
    served = one.served
    if served.since_is_known and not served.by_the_pod:
        yield f"its word was written by {_by(served.reported_by)}, not by a token of that pod"
    if served.has_gap:
        yield f"a write to its order is missing while it served {served.version_name}, or just before or after"
    if served.order is None:
        yield f"no order to serve {served.version_name} is in the log"
    for act in one.approved:
        if act.who and act.who.name != act.approved_by:
            yield f"the approval of {act.approved_by} was written by {_by(act.who)}"


class _Version(NamedTuple):
    namespace: str
    name: str
    digest: str
    published: Act | None


def _versions(story: Story) -> list[_Version]:
    """Those that were published or served; one that was made anew with other bytes is another one."""
    known = [_Version(o.served.namespace, o.served.version_name, o.served.digest, o.published) for o in story.served]
    known += [_Version(act.namespace, act.name, act.digest, act) for act in story.acts if act.does == "Published"]
    found = {one[:3]: one for one in sorted(known, key=lambda one: one.published is not None)}
    return [found[key] for key in sorted(found)]


_SERVED: _Columns[Account] = (
    ("namespace", lambda one: one.served.namespace),
    ("pod", lambda one: one.served.pod),
    ("version", lambda one: one.served.version_name),
    ("from", lambda one: ("" if one.served.since_is_known else "before ") + time(one.served.since)),
    ("until", _until),
    ("released by", lambda one: _doer(one.released)),
    ("approved by", _approvers),
)
_VERSIONS: _Columns[_Version] = (
    ("version", lambda one: _path(one.namespace, one.name)),
    ("digest", lambda one: one.digest),
    ("published by", lambda one: _doer(one.published)),
    ("at", lambda one: time(one.published.at) if one.published else _UNKNOWN),
)
_ACTS: _Columns[Act] = (
    ("at", lambda one: time(one.at)),
    ("who", _doer),
    ("rollout or version", lambda one: _path(one.namespace, one.name)),
    ("what", lambda one: one.what),
)
_DENIED: _Columns[Denial] = (
    ("at", lambda one: time(one.at) + (f" ×{one.count}" if one.count > 1 else "")),
    ("who", lambda one: _by(one.who)),
    ("tried", lambda one: _tried(one)),
    ("why not", lambda one: one.message.rpartition("denied request: ")[2] or str(one.code)),
)
_GAPS: _Columns[Gap] = (
    ("gap", lambda one: one.kind),
    ("from", lambda one: time(one.since) if one.since else ""),
    ("until", lambda one: time(one.until) if one.until else ""),
    ("of", lambda one: _path(one.resource, one.namespace, one.name) if one.name else ""),
    ("what", lambda one: one.message),
)


def _tried(one: Denial) -> str:
    place = _path(one.resource, one.namespace, one.name, one.subresource)
    words = [f"{one.verb} {place}", *one.tried] + (["(dry run)"] if one.is_dry_run else [])
    return "; ".join(words)


def _path(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _table(title: str, columns: _Columns[Row], rows: Sequence[Row]) -> Table | None:
    if not rows:
        return None
    made = table(title, *(heading for heading, _ in columns))
    for row in rows:
        made.add_row(*(Text(_line(cell(row))) for _, cell in columns))
    return made


def _said(words: str) -> RenderableType:
    return Padding(Text(_line(words)), (0, 0, 0, 2), expand=False)


def _line(words: str) -> str:
    return harmless(" ".join(words.split()))


def wire(story: Story) -> dict[str, Any]:
    """The form of `--output json`; field names are API."""
    return {
        "log": {"since": _plain(story.first), "until": _plain(story.last), "events": story.events},
        "served": [_account(one) for one in story.served],
        "acts": _all(story.acts),
        "denied": _all(story.denied),
        "gaps": _all(story.gaps),
        "notes": list(story.notes),
    }


def _account(one: Account) -> dict[str, Any]:
    will = {"published": one.published, "released": one.released, "expedited": one.expedited}
    return {**_plain(one.served), **{key: _plain(act) for key, act in will.items()}, "approved": _all(one.approved)}


def _all(found: Iterable[object]) -> list[Any]:
    return [_plain(one) for one in found]


def _plain(found: Any) -> Any:
    if isinstance(found, BaseModel):
        return {_camel(key): value for key, value in found.model_dump().items() if value or key == "name"}
    if is_dataclass(found) and not isinstance(found, type):
        return {_camel(one.name): _plain(getattr(found, one.name)) for one in fields(found)}
    if isinstance(found, datetime):
        return found.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return list(found) if isinstance(found, tuple) else found


@cache
def _camel(name: str) -> str:
    head, *rest = name.removeprefix("is_").split("_")
    return head + "".join({"uid": "UID"}.get(part, part.capitalize()) for part in rest)
