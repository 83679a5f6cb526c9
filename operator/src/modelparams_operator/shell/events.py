"""Kubernetes Events: one object for each thing that happened to an object, counted when it happens again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from modelparams import errors
from modelparams_operator.shell import metrics
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.ports import EVENTS, JSON, KubernetesAPI, ObjectKey, Resource

COMPONENT = "modelparams-operator"
_NOTE_MAX = 1000  # bytes; the API's limit is 1 KiB
_REMEMBERED = 4096
_QUIET = 60.0


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an event is about."""

    resource: Resource
    key: ObjectKey
    uid: str


@dataclass(frozen=True, slots=True)
class Happened:
    """What happened. `reason` is that of the condition; `action` is what we did: a CamelCase verb."""

    type: str
    reason: str
    note: str
    action: str = "Reconcile"


class EventRecorder:
    """Writes events beside the work, never in its way: one that cannot be written is counted and logged.

    The same event within a minute is dropped; later it raises the count of the one that is there. Names follow
    from the content, so a restarted operator counts on too.
    """

    def __init__(self, api: KubernetesAPI, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._instance, self._clock = api, instance, clock
        self._written: OrderedDict[str, float] = OrderedDict()

    async def record(self, regarding: Regarding, happened: Happened) -> bool:
        """Write or count one event. False: it was dropped, as the same within a minute."""
        name = _name(regarding, happened)
        now = self._clock()
        if now - self._written.get(name, -_QUIET) < _QUIET:
            return False
        self._remember(name, now)
        try:
            await self._write(regarding, happened, name)
        except errors.APIError as error:
            metrics.EVENTS_DROPPED.inc()
            logger.warning("Event not written", name=regarding.key.name, reason=happened.reason, problem=str(error))
        return True

    async def _write(self, regarding: Regarding, happened: Happened, name: str) -> None:
        namespace = regarding.key.namespace
        try:
            await self._api.create(EVENTS, namespace, _body(regarding, happened, name, self._instance))
        except errors.APIConflict:
            await self._count(ObjectKey(namespace, name))

    async def _count(self, key: ObjectKey) -> None:
        known = await self._api.get(EVENTS, key)
        count = (known.get("series") or {}).get("count", 1) + 1
        await self._api.merge(EVENTS, key, {"series": {"count": count, "lastObservedTime": _now()}})

    def _remember(self, name: str, now: float) -> None:
        self._written[name] = now
        self._written.move_to_end(name)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)


async def record_all(recorder: EventRecorder, regarding: Regarding, happened: tuple[Happened, ...]) -> None:
    """Write several, in order of their happening."""
    for one in happened:
        await recorder.record(regarding, one)
        await asyncio.sleep(0)


def _name(regarding: Regarding, happened: Happened) -> str:
    content = "\0".join((regarding.uid, happened.type, happened.reason, happened.action, happened.note))
    start = regarding.key.name[:200].rstrip("-.")  # what is cut may end as no part of a name may
    return f"{start}.{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _body(regarding: Regarding, happened: Happened, name: str, instance: str) -> JSON:
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": name, "namespace": regarding.key.namespace},
        "eventTime": _now(),
        "reportingController": COMPONENT,
        "reportingInstance": instance[:128],
        "action": happened.action,
        "reason": happened.reason,
        "type": happened.type,
        "note": happened.note.encode()[:_NOTE_MAX].decode(errors="ignore"),
        "regarding": {
            "apiVersion": regarding.resource.api_version,
            "kind": regarding.resource.kind,
            "namespace": regarding.key.namespace,
            "name": regarding.key.name,
            "uid": regarding.uid,
        },
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
