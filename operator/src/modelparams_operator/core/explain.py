"""A plan in words, and the JSON form of what it was made from, so that an incident can be replayed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ConfigDict, TypeAdapter

from modelparams.api.conditions import ConditionType, find
from modelparams_operator.core.events import of_rollout
from modelparams_operator.core.model import Action, Assign, Desired, Observed, Plan, Verify
from modelparams_operator.core.plan import plan


@dataclass(frozen=True)
class Snapshot:
    """One pass's whole input."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    desired: Desired
    observed: Observed


_SNAPSHOT: TypeAdapter[Snapshot] = TypeAdapter(Snapshot)


def to_json(snapshot: Snapshot) -> str:
    """Write a snapshot; `from_json` gives back an equal one."""
    return _SNAPSHOT.dump_json(snapshot, indent=2, by_alias=True).decode()


def from_json(text: str | bytes) -> Snapshot:
    """Read a snapshot.

    Raises:
        pydantic.ValidationError: the text is none.
    """
    return _SNAPSHOT.validate_json(text)


def explain(snapshot: Snapshot) -> str:
    """Plan from a snapshot and say, a line each: the decisions, the actions, what the status and the events will be."""
    return "\n".join(_lines(snapshot, plan(snapshot.desired, snapshot.observed)))


def _lines(snapshot: Snapshot, result: Plan) -> Iterator[str]:
    yield f"rollout {snapshot.desired.name} at {snapshot.observed.now:%Y-%m-%dT%H:%M:%SZ}"
    yield from (f"  {line}" for line in result.why)
    yield "actions:" if result.actions else "actions: none"
    yield from (f"  {_action(action)}" for action in result.actions)
    ready = find(result.status.conditions, ConditionType.READY)
    if ready is not None:
        is_new = result.status != snapshot.observed.status
        yield f"status{'' if is_new else ', unchanged'}: Ready={ready.status} {ready.reason}: {ready.message}"
    yield from (f"event: {e.type} {e.reason}: {e.message}" for e in of_rollout(snapshot.observed.status, result.status))
    if result.wake_at is not None:
        yield f"time changes it next at {result.wake_at:%Y-%m-%dT%H:%M:%SZ}"


def _action(action: Action) -> str:
    match action:
        case Verify(version_name):
            return f"verify {version_name}"
        case Assign(pod_name, _, order):
            held = ", ".join(release.version_name for release in order.releases)
            served = next((r.version_name for r in order.releases if r.manifest_digest == order.activate), None)
            return f"order {pod_name}: hold {held}; " + (f"serve {served}" if served else "serve on as before")
