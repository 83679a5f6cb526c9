"""`KubernetesAPI` in memory; does what no real server does on demand: 410, ERROR events, cut streams, lost news."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from modelparams import errors
from modelparams_operator.shell.ports import JSON, OPENED, ObjectKey, Page, Resource

T = TypeVar("T")
_END = object()


class FakeAPI:
    """Keeps objects, counts resource versions, tells watchers.

    `faults[verb]` is a list of errors that the next calls of that verb raise, one each; `faults["verb Kind"]` is
    the same for those of one kind.
    """

    def __init__(self) -> None:
        self.objects: defaultdict[str, dict[ObjectKey, JSON]] = defaultdict(dict)
        self.faults: defaultdict[str, list[Exception]] = defaultdict(list)
        self.calls: list[tuple[str, str, str]] = []
        self.watches: list[tuple[str, str]] = []
        self._streams: defaultdict[str, list[asyncio.Queue[Any]]] = defaultdict(list)
        self._numbers = itertools.count(100)
        self.last = 99

    # What a test does to the world.

    def put(self, resource: Resource, subject: JSON, *, is_told: bool = True) -> JSON:
        """Create or change an object; without `is_told`, watchers miss it."""
        subject = copy.deepcopy(subject)
        key = ObjectKey(subject["metadata"].setdefault("namespace", "ns"), subject["metadata"]["name"])
        known = self.objects[resource.plural].get(key)
        subject["metadata"].setdefault("uid", known["metadata"]["uid"] if known else f"uid-{next(self._numbers)}")
        self.last = next(self._numbers)
        subject["metadata"]["resourceVersion"] = str(self.last)
        self.objects[resource.plural][key] = subject
        if is_told:
            self._tell(resource, "MODIFIED" if known else "ADDED", subject)
        return copy.deepcopy(subject)

    def drop(self, resource: Resource, key: ObjectKey, *, is_told: bool = True) -> None:
        """Delete an object; without `is_told`, watchers miss it."""
        subject = self.objects[resource.plural].pop(key)
        self.last = next(self._numbers)
        subject["metadata"]["resourceVersion"] = str(self.last)
        if is_told:
            self._tell(resource, "DELETED", subject)

    def restore(self, resource: Resource, *subjects: JSON, last: int) -> None:
        """Put the server back to a backup of when its numbers were lower; watchers are told nothing."""
        self.objects[resource.plural].clear()
        self._numbers = itertools.count(last)
        for subject in subjects:
            self.put(resource, subject, is_told=False)

    def bookmark(self, resource: Resource) -> None:
        """Tell watchers how far they are."""
        self._tell(resource, "BOOKMARK", {"metadata": {"resourceVersion": str(self.last)}})

    def cut(self, resource: Resource, error: Exception | None = None) -> None:
        """End all streams: in order, or by an error."""
        for stream in self._streams.pop(resource.plural, []):
            stream.put_nowait(error or _END)

    def at(self, resource: Resource, name: str, namespace: str = "ns") -> JSON | None:
        """The object as it is."""
        return self.objects[resource.plural].get(ObjectKey(namespace, name))

    def writes(self) -> list[tuple[str, str, str]]:
        """Calls that change something: verb, kind, name."""
        return [
            call for call in self.calls if call[0] in ("create", "apply", "write_status", "replace", "merge", "delete")
        ]

    # What the operator does.

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 500,
        token: str | None = None,
    ) -> Page:
        await self._called("list", resource, "")
        name, _, wanted = fields.partition("=")
        found = [
            copy.deepcopy(o)
            for key, o in self.objects[resource.plural].items()
            if namespace in (None, key.namespace) and (not name or o["spec"].get(name.removeprefix("spec.")) == wanted)
        ]
        start = int(token or 0)
        rest = str(start + limit) if start + limit < len(found) else None
        return Page(found[start : start + limit], str(self.last), rest)

    async def watch(
        self, resource: Resource, namespace: str | None, *, labels: str, since: str
    ) -> AsyncIterator[tuple[str, JSON]]:
        stream: asyncio.Queue[Any] = asyncio.Queue()
        try:
            await self._called("watch", resource, "")
            self._streams[resource.plural].append(stream)
        finally:
            self.watches.append((resource.plural, since))
        yield OPENED, {}
        for subject in list(self.objects[resource.plural].values()):
            if int(subject["metadata"]["resourceVersion"]) > int(since):
                yield "MODIFIED", copy.deepcopy(subject)
        while (event := await stream.get()) is not _END:
            if isinstance(event, Exception):
                raise event
            yield event

    async def get(self, resource: Resource, key: ObjectKey) -> JSON:
        await self._called("get", resource, key.name)
        return copy.deepcopy(self._known(resource, key))

    async def create(self, resource: Resource, namespace: str, body: JSON) -> JSON:
        key = ObjectKey(namespace, body["metadata"]["name"])
        await self._called("create", resource, key.name)
        if key in self.objects[resource.plural]:
            raise errors.APIConflict(f"{key.name} exists")
        return self.put(resource, body)

    async def replace(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        await self._called("replace", resource, key.name)
        self._require_present(self._known(resource, key), body)
        return self.put(resource, body)

    async def apply(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        await self._called("apply", resource, key.name)
        known = self.objects[resource.plural].get(key)
        if known is None:
            return self.put(resource, {**body, "metadata": {**body.get("metadata", {}), **key._asdict()}})
        metadata = {**known["metadata"], **body.get("metadata", {})}
        return self.put(resource, {**known, "metadata": metadata, "spec": body["spec"]})

    async def write_status(self, resource: Resource, key: ObjectKey, read_at: str, status: JSON) -> JSON:
        await self._called("write_status", resource, key.name)
        known = self._known(resource, key)
        self._require_present(known, {"metadata": {"resourceVersion": read_at}})
        return self.put(resource, {**known, "status": status})

    async def merge(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        await self._called("merge", resource, key.name)
        known = self._known(resource, key)
        return self.put(resource, {**known, **body, "metadata": {**known["metadata"], **body.get("metadata", {})}})

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        await self._called("delete", resource, key.name)
        known = self.objects[resource.plural].get(key)
        if known is not None and known["metadata"]["uid"] == uid:
            self.drop(resource, key)

    async def _called(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((verb, resource.kind, name))
        await asyncio.sleep(0)
        for faults in (self.faults[verb], self.faults[f"{verb} {resource.kind}"]):
            if faults:
                raise faults.pop(0)

    def _known(self, resource: Resource, key: ObjectKey) -> JSON:
        if key not in self.objects[resource.plural]:
            raise errors.APIMissing(f"{key.name} is not there")
        return self.objects[resource.plural][key]

    def _require_present(self, known: JSON, body: JSON) -> None:
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, known["metadata"]["resourceVersion"]):
            raise errors.APIConflict("the object has changed")

    def _tell(self, resource: Resource, kind: str, subject: JSON) -> None:
        for stream in self._streams[resource.plural]:
            stream.put_nowait((kind, copy.deepcopy(subject)))


def running(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's coroutine to its end, with a limit."""

    async def limited() -> T:
        async with asyncio.timeout(20):
            return await test()

    return asyncio.run(limited())


async def until(holds: Callable[[], object], what: str) -> None:
    """Let others run until it holds."""
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0 if _ < 1000 else 0.005)
    raise AssertionError(f"never happened: {what}")
