"""Objects as the API server sends them, parsed once, where they enter; what is not needed is dropped here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from modelparams.api import MODEL_LABEL
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus, answer_of
from modelparams.api.base import Wire
from modelparams.api.rollout import RolloutSpec, RolloutStatus
from modelparams.api.version import VersionSpec, VersionStatus
from modelparams.errors import InvalidSpec, ModelParamsError
from modelparams_operator.shell.kube import FIELD_MANAGER
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.ports import JSON, ObjectKey

DEFAULT_LABELS = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
"""What a rollout that we made carries."""

SpecT = TypeVar("SpecT", bound=Wire)
StatusT = TypeVar("StatusT", bound=Wire)


@dataclass(frozen=True, slots=True)
class Pod:
    """A serving pod; `finished` ones (evicted, completed) serve nothing any more."""

    name: str
    uid: str
    model: str
    labels: Mapping[str, str]
    ready: bool
    deleting: bool
    finished: bool
    ready_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """An order with its answer."""

    uid: str
    model: str
    spec: AssignmentSpec
    status: AssignmentStatus


@dataclass(frozen=True, slots=True)
class Custom(Generic[SpecT, StatusT]):
    """One of our objects: a version or a rollout."""

    key: ObjectKey
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    spec: SpecT
    status: StatusT
    is_default: bool = False


VersionObject = Custom[VersionSpec, VersionStatus]
RolloutObject = Custom[RolloutSpec, RolloutStatus]


def pod(subject: JSON) -> Pod:
    """Keep eight fields of some nine kilobytes."""
    metadata, status = subject["metadata"], subject.get("status") or {}
    labels = metadata.get("labels") or {}
    told: JSON = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
    is_ready = told.get("status") == "True"
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        model=labels.get(MODEL_LABEL, ""),
        labels=labels,
        ready=is_ready,
        deleting="deletionTimestamp" in metadata,
        finished=status.get("phase") in ("Succeeded", "Failed"),
        ready_since=_time(told.get("lastTransitionTime")) if is_ready else None,
    )


def _time(text: str | None) -> datetime | None:
    """Read a time as the API server writes it; whatever else stands there says nothing."""
    try:
        found = datetime.fromisoformat(text or "")
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None


def assignment(subject: JSON) -> Assignment:
    """Raise InvalidSpec when the order cannot be used; an answer that cannot is none, and the order stands."""
    return Assignment(
        uid=subject["metadata"]["uid"],
        model=(subject["metadata"].get("labels") or {}).get(MODEL_LABEL, ""),
        spec=_parsed(AssignmentSpec, subject.get("spec"), "spec"),
        status=_answer(subject),
    )


def _answer(subject: JSON) -> AssignmentStatus:
    answer, problem = answer_of(subject.get("status"))
    if problem:
        key = key_of(subject)
        logger.warning("Answer left out", namespace=key.namespace, pod=key.name, problem=problem)
    return answer


def version(subject: JSON) -> VersionObject:
    """Raise InvalidSpec when its spec or status cannot be used."""
    return _custom(subject, VersionSpec, VersionStatus)


def rollout(subject: JSON) -> RolloutObject:
    """Raise InvalidSpec when its spec or status cannot be used."""
    return _custom(subject, RolloutSpec, RolloutStatus)


def key_of(subject: JSON) -> ObjectKey:
    """Namespace and name."""
    return ObjectKey(subject["metadata"]["namespace"], subject["metadata"]["name"])


def _custom(subject: JSON, spec: type[SpecT], status: type[StatusT]) -> Custom[SpecT, StatusT]:
    metadata = subject["metadata"]
    return Custom(
        key=key_of(subject),
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        spec=_parsed(spec, subject.get("spec"), "spec"),
        status=_parsed(status, subject.get("status"), "status"),
        is_default=_is_default(metadata, subject.get("spec") or {}),
    )


def _is_default(metadata: JSON, spec: JSON) -> bool:
    """We made it, and nobody has made it theirs since.

    Whoever writes to it does, but for its status, and for what people on call patch: another try, or a hold that is
    over. A hold that stands is somebody's will, and does not end because a file arrives.
    """
    if any((metadata.get("labels") or {}).get(key) != value for key, value in DEFAULT_LABELS.items()):
        return False
    controls = {"f:retryToken"} | {f"f:{hold}" for hold in ("paused", "suspend") if not spec.get(hold)}
    return all(_fields(entry) <= controls for entry in metadata.get("managedFields") or () if _is_others(entry))


def _is_others(entry: JSON) -> bool:
    return entry.get("manager") != FIELD_MANAGER and entry.get("subresource") != "status"


def _fields(entry: JSON) -> set[str]:
    """What a manager owns of an object: names in its spec, and whole parts beside it."""
    fields = dict(entry.get("fieldsV1") or {"?": {}})
    return {*fields.pop("f:spec", {}), *fields}


def _parsed(kind: type[SpecT], data: object, part: str) -> SpecT:
    try:
        return kind.parse(data or {})
    except ModelParamsError as error:
        raise InvalidSpec(f"its {part} cannot be used: {error.message}") from None
