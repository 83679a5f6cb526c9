"""An audit event as an API server writes it → what it tells about one of our objects. Parsed once, here, at the edge.

The stored object is the one of the response, whatever the request was: a merge patch, a JSON patch, server-side apply.
A request's `Audit-ID` is a header that any client may choose, so it identifies nothing: events are the same only when
all of them is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from modelparams.api import GROUP, MODEL_LABEL, assignment, rollout, version
from modelparams.api.base import utc
from modelparams_operator.shell.kube import FIELD_MANAGER

JSON = Mapping[str, Any]
RESOURCES = (version.PLURAL, rollout.PLURAL, assignment.PLURAL)
POLICIES = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
KINDS = "customresourcedefinitions"
ALL = (*RESOURCES, *POLICIES, KINDS)
"""The last three guard the others: a log of a time without them is worth less."""
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_COMPLETE, _STAGES = "ResponseComplete", frozenset({"RequestReceived", "ResponseComplete", "Panic"})
_POD, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_CONFLICT = 409
_NAMES = 253


class Frozen(BaseModel):
    """A value; its JSON is how it is put on a shelf."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class Who(Frozen):
    """Whom the API server took the request for."""

    name: str = ""
    impersonated_by: str = ""
    pod: str = ""
    """Of the pod that the token is bound to; nothing of one who impersonates: the claim is then his own."""
    pod_uid: str = ""


class Event(Frozen):
    """One answered request that wrote to one of our objects, or tried to."""

    at: datetime
    mark: str
    """The same for the same event, however often it was logged."""
    who: Who
    verb: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    code: int
    message: str = ""
    is_dry_run: bool = False
    tried: tuple[str, ...] = ()
    """What our policies said about it in the log."""
    model: str = ""
    resource_version: int = 0
    generation: int = 0
    read_at: int | None = None
    """The resourceVersion that the writer had read and the server compared; the write before was that one."""
    created_at: datetime | None = None
    creates: bool = False
    deletes: bool = False
    spec: dict[str, Any] = Field(default_factory=dict)
    status: dict[str, Any] = Field(default_factory=dict)
    follows_gap: bool = False
    """Found when the events are in order: a write is missing between this one and the one before it."""

    @property
    def is_stored(self) -> bool:
        """Whether anything was changed."""
        return 200 <= self.code < 300 and not self.is_dry_run

    @property
    def is_denied(self) -> bool:
        """Refused for what it is or who asked: not let in, no right, against a rule. A conflict is tried again."""
        return self.code in (400, 401, 403, 422)

    @property
    def is_in_doubt(self) -> bool:
        """The server failed, or whoever asked was gone: it may have been stored nonetheless."""
        return self.code >= 500 and not self.is_dry_run

    @property
    def has_body(self) -> bool:
        """Whether the log holds what was stored; of a deletion, which object it was."""
        return bool(self.uid)

    @property
    def writes_status(self) -> bool:
        """Whether it can change the status and nothing else."""
        return self.subresource == "status"


class Beat(Frozen):
    """A renewal of the operator's Lease: it comes every few seconds, so that a missing time is seen."""

    at: datetime
    lease: str
    holder: str = ""
    term: int = 0
    seconds: float = 15
    """How long the holder may be silent."""


class _User(Frozen):
    username: str = ""
    extra: dict[str, list[str]] = Field(default_factory=dict)


class _Ref(Frozen):
    group: str = Field("", alias="apiGroup")
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class _Answer(Frozen):
    code: int = 0
    message: str = ""


class _Envelope(Frozen):
    """What we read of `audit.k8s.io/v1` Event."""

    audit_id: str = Field("", alias="auditID")
    stage: str
    uri: str = Field("", alias="requestURI")
    verb: str = ""
    user: _User = _User()
    impersonated: _User | None = Field(None, alias="impersonatedUser")
    agent: str = Field("", alias="userAgent")
    ref: _Ref = Field(_Ref(), alias="objectRef")
    answer: _Answer = Field(_Answer(), alias="responseStatus")
    asked: Any = Field(None, alias="requestObject")
    given: Any = Field(None, alias="responseObject")
    at: Annotated[AwareDatetime, AfterValidator(utc)] = Field(
        validation_alias=AliasChoices("requestReceivedTimestamp", "stageTimestamp")
    )
    annotations: dict[str, str] = Field(default_factory=dict)


class _Metadata(Frozen):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = Field("", alias="resourceVersion")
    generation: int = 0
    created_at: AwareDatetime | None = Field(None, alias="creationTimestamp")
    deleted_at: AwareDatetime | None = Field(None, alias="deletionTimestamp")
    finalizers: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)


class Read(Frozen):
    """What one document tells: when, and what of it is about us."""

    at: datetime
    events: tuple[Event, ...] = ()
    beat: Beat | None = None
    asked: str = ""
    """Of a write that the log holds no answer to so far: what answers it says the same in `answered`."""
    answered: str = ""


def read(document: object) -> Read:
    """Read one document of a log.

    Raises:
        ValueError: it is no audit event, or none that an API server writes.
    """
    if not isinstance(document, dict) or document.get("kind") != "Event":
        raise ValueError("is no audit event")
    if not str(document.get("apiVersion", "")).startswith("audit.k8s.io/"):
        raise ValueError("is no event of audit.k8s.io")
    if not _is_ours(document):
        return Read(at=_when(document))
    try:
        return _read(_Envelope.model_validate(document), _mark(document))
    except (ValidationError, UnicodeEncodeError, RecursionError):
        raise ValueError("is no event that an API server writes") from None


def _is_ours(document: JSON) -> bool:
    ref = document.get("objectRef")
    if not isinstance(ref, dict) or document.get("verb") not in _WRITES:
        return False
    ours = ref.get("apiGroup") == GROUP and ref.get("resource") in RESOURCES
    is_beat = ref.get("resource") == "leases" and document.get("userAgent") == FIELD_MANAGER
    is_guard = not ref.get("subresource") and _is_guard(str(ref.get("resource")), str(ref.get("name", "")))
    return ours or is_beat or is_guard


def _is_guard(resource: str, name: str) -> bool:
    """A policy or a kind of ours; a deletion of many names none."""
    if resource in POLICIES:
        return not name or name.startswith("modelparams-")
    return resource == KINDS and (not name or name.endswith(f".{GROUP}"))


def _when(document: JSON) -> datetime:
    """Of what is not about us: nothing else of it is looked at."""
    text = document.get("requestReceivedTimestamp") or document.get("stageTimestamp")
    try:
        found = datetime.fromisoformat(text)  # type: ignore[arg-type]  # whatever stands there
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("says no time")


def _mark(document: JSON) -> str:
    """What stands for the whole event; raises UnicodeEncodeError for half a character, which Go never writes."""
    whole = json.dumps(document, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.blake2b(whole, digest_size=16).hexdigest()


def _read(told: _Envelope, mark: str) -> Read:
    request = f"{told.audit_id} {told.verb} {told.uri}"
    if told.stage != _COMPLETE:
        is_write = told.stage in _STAGES and told.ref.group == GROUP
        return Read(at=told.at, asked=request if is_write else "")
    if told.ref.resource == "leases":
        return Read(at=told.at, beat=_beat(told))
    return Read(at=told.at, events=tuple(_events(told, mark)), answered=request)


def _beat(told: _Envelope) -> Beat | None:
    if not 200 <= told.answer.code < 300:
        return None
    spec = _part(told.asked, "spec")
    return Beat(
        at=told.at,
        lease=f"{told.ref.namespace}/{told.ref.name}",
        holder=str(spec.get("holderIdentity") or ""),
        term=spec.get("leaseTransitions") or 0,
        seconds=spec.get("leaseDurationSeconds") or Beat.model_fields["seconds"].default,
    )


def _events(told: _Envelope, mark: str) -> Iterator[Event]:
    """One, but for a deletion of many: one of each."""
    objects = told.given.get("items") if told.verb == "deletecollection" and isinstance(told.given, dict) else None
    if not isinstance(objects, list) or told.answer.code >= 300:
        yield _event(told, mark, told.given)
        return
    for index, one in enumerate(objects):
        yield _event(told, f"{mark}.{index}", one)


def _event(told: _Envelope, mark: str, given: object) -> Event:
    is_good, metadata = 200 <= told.answer.code < 300, _Metadata()
    if is_good:
        metadata = _Metadata.model_validate(_part(given, "metadata"))
    gone = _part(given, "details").get("uid") if is_good else ""
    return Event(
        at=told.at,
        mark=mark,
        who=_who(told),
        verb=told.verb,
        resource=told.ref.resource,
        subresource=told.ref.subresource,
        namespace=told.ref.namespace[:_NAMES],
        name=(told.ref.name or metadata.name)[:_NAMES],
        uid=metadata.uid or str(gone or ""),
        code=told.answer.code,
        message=told.answer.message,
        is_dry_run=_is_dry_run(told),
        tried=_tried(told.annotations),
        model=metadata.labels.get(MODEL_LABEL) or _model(given) or _model(told.asked),
        resource_version=_number(metadata.resource_version),
        generation=metadata.generation,
        read_at=_read_at(told.asked),
        created_at=metadata.created_at,
        creates=told.answer.code == 201,
        deletes=_deletes(told, metadata),
        spec=_part(given, "spec") if is_good else {},
        status=_part(given, "status") if is_good else {},
    )


def _deletes(told: _Envelope, metadata: _Metadata) -> bool:
    """Whether the object is gone thereafter: finalizers keep it, and who takes the last one away ends it."""
    if told.verb in ("delete", "deletecollection"):
        return not metadata.finalizers
    return metadata.deleted_at is not None and not metadata.finalizers


def _who(told: _Envelope) -> Who:
    if told.impersonated is not None:
        return Who(name=told.impersonated.username, impersonated_by=told.user.username)
    extra = told.user.extra
    pod, uid = (next(iter(extra.get(key) or ()), "") for key in (_POD, _POD_UID))
    return Who(name=told.user.username, pod=pod, pod_uid=uid)


def _is_dry_run(told: _Envelope) -> bool:
    """A deletion says so in its body."""
    asked = told.asked.get("dryRun") if told.verb.startswith("delete") and isinstance(told.asked, dict) else None
    return bool(asked) or bool(parse_qs(urlsplit(told.uri).query).get("dryRun"))


def _tried(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """What admission policies noted; the API server's own notes have its domain."""
    notes = ((key, text) for key, text in annotations.items() if not key.partition("/")[0].endswith("k8s.io"))
    return tuple(text for _, text in sorted(notes))


def _model(given: object) -> str:
    found = _part(given, "spec").get("modelName")
    return found if isinstance(found, str) else ""


def _read_at(asked: object) -> int | None:
    """What the server compared: in an object, in a JSON patch of ours, or in a deletion's preconditions."""
    if isinstance(asked, list):
        paths = (one for one in asked if isinstance(one, dict) and one.get("path") == "/metadata/resourceVersion")
        found = next((one.get("value") for one in paths), None)
    else:
        found = _part(asked, "metadata").get("resourceVersion")
        found = found or _part(asked, "preconditions").get("resourceVersion")
    return (_number(found) or None) if isinstance(found, str) else None  # 0: whichever is there


def _number(text: str) -> int:
    """A resourceVersion, by which the API server lets objects be compared; 0 for what is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def _part(given: object, name: str) -> dict[str, Any]:
    found = given.get(name) if isinstance(given, dict) else None
    return found if isinstance(found, dict) else {}
