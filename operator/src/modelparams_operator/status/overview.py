"""Objects as the API server gives them → what is worth showing, and one outcome for a script. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from modelparams.api.assignment import AssignmentStatus, PodState, answer_of
from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, find
from modelparams.api.rollout import PodCounts, RolloutStatus
from modelparams.api.version import VersionStatus
from modelparams.errors import InvalidVersion
from modelparams.names import Version

JSON = Mapping[str, Any]


class Outcome(IntEnum):
    """How it stands, worst last; the value is the exit code (below 10: errors, `modelparams.cli.exits`)."""

    READY = 0
    MOVING = 10
    FAILED = 11


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout. `live` and `target` are version numbers, empty while there is none."""

    namespace: str
    name: str
    model: str
    live: str
    target: str
    step: str
    pods: PodCounts
    reason: str
    message: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version."""

    namespace: str
    name: str
    model: str
    version: str
    is_verified: bool
    reason: str
    message: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class PodRow:
    """One pod's answer. `beside` is what it holds besides what is live; `pause_microseconds` is of its last swap."""

    namespace: str
    name: str
    rollout: str
    live: str
    beside: tuple[str, ...]
    state: PodState
    progress: str
    pause_microseconds: int | None
    failure: str
    message: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All that one call found, sorted by namespace and name; versions by number."""

    rollouts: tuple[RolloutRow, ...]
    versions: tuple[VersionRow, ...]
    pods: tuple[PodRow, ...]

    @property
    def is_empty(self) -> bool:
        """True when there is neither a rollout nor a version."""
        return not self.rollouts and not self.versions

    @property
    def outcome(self) -> Outcome:
        """The worst of what counts: rollouts, versions on their way, and a failure of one above what is live or comes.

        A version that failed below that is history, and must not spoil a script for ever.
        """
        counted = [row.outcome for row in self.rollouts]
        counted += [row.outcome for row in self.versions if row.outcome is Outcome.MOVING or self._is_news(row)]
        return max(counted, default=Outcome.READY)

    def _is_news(self, row: VersionRow) -> bool:
        rollouts = [r for r in self.rollouts if (r.namespace, r.model) == (row.namespace, row.model)]
        number, reached = _number(row.version), [_number(text) for r in rollouts for text in (r.live, r.target)]
        return number is None or all(other is None or other < number for other in reached)

    def wire(self) -> dict[str, Any]:
        """The form of `--output json`; field names are API."""
        return {
            "outcome": self.outcome.name.capitalize(),
            "rollouts": [_wire(row) | {"pods": row.pods.wire()} for row in self.rollouts],
            "versions": [_wire(row) for row in self.versions],
            "pods": [_wire(row) for row in self.pods],
        }


def overview(
    rollouts: Iterable[JSON], versions: Iterable[JSON], assignments: Iterable[JSON], model: str = ""
) -> Overview:
    """Read lists of objects, those of one model if it is named."""
    rows = [_rollout(item) for item in rollouts if model in ("", item["spec"].get("modelName"))]
    names = {(row.namespace, row.name) for row in rows}
    return Overview(
        rollouts=tuple(sorted(rows, key=lambda row: (row.namespace, row.name))),
        versions=_by_number(_version(item) for item in versions if model in ("", item["spec"].get("modelName"))),
        pods=_by_name(row for row in map(_pod, assignments) if not model or (row.namespace, row.rollout) in names),
    )


def _by_number(rows: Iterable[VersionRow]) -> tuple[VersionRow, ...]:
    return tuple(sorted(rows, key=lambda r: (r.namespace, r.model, _number(r.version) or Version("0.0.0"))))


def _by_name(rows: Iterable[PodRow]) -> tuple[PodRow, ...]:
    return tuple(sorted(rows, key=lambda row: (row.namespace, row.rollout, row.name)))


def _number(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _rollout(item: JSON) -> RolloutRow:
    status = RolloutStatus.parse(item.get("status", {}))
    reason, message, outcome = _judged(item, status.observed_generation, status.conditions)
    return RolloutRow(
        **_place(item),
        model=item["spec"].get("modelName", ""),
        live=str(status.live.version) if status.live else "",
        target=str(status.target.version) if status.target else "",
        step=status.step,
        pods=status.pods,
        reason=reason,
        message=message,
        outcome=outcome,
    )


def _version(item: JSON) -> VersionRow:
    status = VersionStatus.parse(item.get("status", {}))
    reason, message, outcome = _judged(item, status.observed_generation, status.conditions)
    return VersionRow(
        **_place(item),
        model=item["spec"].get("modelName", ""),
        version=item["spec"].get("version", ""),
        is_verified=status.verified is not None,
        reason=reason,
        message=message,
        outcome=outcome,
    )


def _pod(item: JSON) -> PodRow:
    spec = item["spec"]
    status, problem = answer_of(item.get("status"))
    if status.pod_uid != spec.get("podUID"):  # an answer of another life is none
        status = AssignmentStatus()
    failure = status.last_failure
    return PodRow(
        **_place(item),
        rollout=spec.get("rolloutName", ""),
        live=str(status.live.version) if status.live else "",
        beside=tuple(str(held.version) for held in status.staged if held != status.live),
        state=status.state,
        progress=status.progress,
        pause_microseconds=status.pause_microseconds,
        failure=str(failure.reason) if failure else "",
        message=failure.message if failure else problem,
    )


def _place(item: JSON) -> dict[str, str]:
    metadata = item["metadata"]
    return {"namespace": metadata.get("namespace", ""), "name": metadata["name"]}


def _judged(item: JSON, observed: int, conditions: Sequence[Condition]) -> tuple[str, str, Outcome]:
    """Reason, message and outcome of an object, as kstatus would have it, but that Ready=False is never fine."""
    ready = find(conditions, ConditionType.READY)
    if ready is None or observed != item["metadata"].get("generation", observed):
        return "", "not seen by the operator yet", Outcome.MOVING
    return str(ready.reason), ready.message, _outcome(ready, conditions)


def _outcome(ready: Condition, conditions: Sequence[Condition]) -> Outcome:
    if find(conditions, ConditionType.STALLED) is not None:
        return Outcome.FAILED
    if ready.status is ConditionStatus.TRUE:
        return Outcome.READY
    is_tried_again = find(conditions, ConditionType.RECONCILING) is not None
    return Outcome.FAILED if ready.status is ConditionStatus.FALSE and not is_tried_again else Outcome.MOVING


def _wire(row: RolloutRow | VersionRow | PodRow) -> dict[str, Any]:
    found = asdict(row)
    if "outcome" in found:
        found["outcome"] = found["outcome"].name.capitalize()
    return {_camel(key): value for key, value in found.items()}


def _camel(name: str) -> str:
    head, *rest = name.removeprefix("is_").split("_")
    return head + "".join(part.capitalize() for part in rest)
