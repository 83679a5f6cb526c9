"""A mirror of one kind of object: list, then watch, and every list replaces what was known.

So a deletion whose event was lost is found by the next list, which kopf's own watching never does. What follows a
fault is in one table, `Mirror.run`: a cut stream goes on from where it was; anything else lists anew; both with
growing waits. Source of the protocol: kubernetes.io, "Efficient detection of changes".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, NoReturn, TypeVar

from modelparams import errors
from modelparams_operator.shell import metrics
from modelparams_operator.shell.backoff import Backoff
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.ports import JSON, OPENED, KubernetesAPI, ObjectKey, Resource, pages

T = TypeVar("T")
_QUICK = 1.0
_LONG = 60.0
_GAP = 5.0
"""Seconds without a stream that still count as having watched."""


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What we keep of an object: its identity and the parsed part."""

    uid: str
    resource_version: str
    value: T


class Mirror(Generic[T]):
    """The present objects of one kind, of one namespace or of the whole cluster.

    Args:
        labels: a label selector, for the server.
        parse: keep of an object what is needed; one that it refuses (InvalidSpec) is left out and logged.
        changed: told the key of each object that came, changed or went.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str = "",
        parse: Callable[[JSON], T],
        changed: Callable[[ObjectKey, T], None],
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._resource, self._namespace, self._labels = api, resource, namespace, labels
        self._parse, self._changed, self._sleep = parse, changed, sleep
        self._backoff = backoff or Backoff(first=0.5, last=30)
        self._known: defaultdict[str, dict[str, Known[T]]] = defaultdict(dict)
        self._since: str | None = None
        self._told_at = "0"
        """The newest number that the server told of, by lists and streams."""
        self._lost_at: float | None = 0.0
        self.tried, self.synced = asyncio.Event(), asyncio.Event()
        """The first list was asked for, with whatever outcome; and one is complete."""
        self.heard_at = 0.0
        """The loop's time when the server last told us anything, bookmarks included."""
        self.blind_since: datetime | None = None
        """Since when the server does not let us follow; None while it does."""
        self.watching_since: datetime | None = None
        """Since when nothing can have been missed for longer than a few seconds."""

    def of(self, namespace: str) -> Mapping[str, Known[T]]:
        """What is in a namespace, by name. Do not keep it over an await."""
        return self._known.get(namespace, {})

    def values(self, namespace: str) -> dict[str, T]:
        """The same without the identities, as a copy to keep."""
        return {name: known.value for name, known in self.of(namespace).items()}

    def note(self, subject: JSON) -> None:
        """Take an object that a write of ours gave back, so that the next pass sees it at once."""
        self._put(subject)

    async def run(self) -> NoReturn:
        """Follow for ever."""
        while True:
            try:
                if self._since is None:
                    await self._list()
                await self._follow()
                continue
            except errors.APIUnavailable as error:  # the place in the stream is still good
                problem: errors.APIError = error
            except errors.APIError as error:  # 410 and whatever else: only a list tells the truth now
                problem, self._since = error, None
            await self._wait(problem)

    async def _wait(self, problem: errors.APIError) -> None:
        self.tried.set()
        self.blind_since = self.blind_since or datetime.now(UTC).replace(microsecond=0)
        if self._lost_at is None:
            self._lost_at = _now()
        pause = self._backoff.next()
        logger.info(
            "Watch interrupted",
            kind=self._resource.kind,
            reason=problem.reason,
            problem=str(problem),
            pause=round(pause, 2),
        )
        await self._sleep(pause)

    async def _list(self) -> None:
        metrics.RELISTS.labels(self._resource.kind).inc()
        present, version = set[ObjectKey](), ""
        async for page in pages(self._api, self._resource, self._namespace, labels=self._labels):
            if not version and _is_newer(self._told_at, page.resource_version):
                self._drop_all_but(set())  # the server was put back to a backup: no number of before counts
            for subject in page.items:
                present.add(_key(subject))
                self._put(subject, listed_at=page.resource_version)
            version = page.resource_version
        self._drop_all_but(present, listed_at=version)
        self._since = self._told_at = version
        self._heard()
        self.tried.set()
        self.synced.set()

    async def _follow(self) -> None:
        """One stream, to its orderly end."""
        metrics.WATCH_RESTARTS.labels(self._resource.kind).inc()
        started, since = _now(), self._since or ""
        try:
            stream = self._api.watch(self._resource, self._namespace, labels=self._labels, since=since)
            async for kind, subject in stream:
                self._take(kind, subject)
        finally:
            if _now() - started > _LONG:  # whatever ended it, the server is no busier than it was
                self._backoff.reset()
        if _now() - started < _QUICK:  # a server that ends streams at once must not make us spin
            await self._sleep(self._backoff.next())

    def _heard(self) -> None:
        self.heard_at = _now()
        if self._lost_at is not None:
            if self.watching_since is None or self.heard_at - self._lost_at > _GAP:
                self.watching_since = datetime.now(UTC)
            self._lost_at = self.blind_since = None

    def _take(self, kind: str, subject: JSON) -> None:
        if kind == OPENED:
            self._heard()
            return
        self._backoff.reset()
        self._since = self._told_at = subject["metadata"]["resourceVersion"]
        self._heard()
        if kind == "DELETED":
            self._drop(_key(subject), subject["metadata"]["uid"])
        elif kind != "BOOKMARK":
            self._put(subject)

    def _drop_all_but(self, present: Set[ObjectKey], listed_at: str | None = None) -> None:
        """Drop what is gone; not what is newer than the list: we wrote it since."""
        gone = [
            (ObjectKey(namespace, name), known.uid)
            for namespace, names in self._known.items()
            for name, known in names.items()
            if ObjectKey(namespace, name) not in present
            and (listed_at is None or not _is_newer(known.resource_version, listed_at))
        ]
        for key, uid in gone:
            self._drop(key, uid)

    def _put(self, subject: JSON, *, listed_at: str | None = None) -> None:
        """Take an object; from a list also one with an older number, unless we know of a change after the list.

        A backup that is put back has the numbers of its time, and lists that are newer than all before.
        """
        key, metadata = _key(subject), subject["metadata"]
        before = self._known[key.namespace].get(key.name)
        if before and not _is_newer(listed_at or metadata["resourceVersion"], before.resource_version):
            return
        try:
            value = self._parse(subject)
        except (ValueError, errors.ModelParamsError) as error:
            logger.warning(
                "Object left out",
                kind=self._resource.kind,
                namespace=key.namespace,
                name=key.name,
                problem=str(error)[:500],
            )
            self._drop(key, metadata["uid"])
            return
        self._known[key.namespace][key.name] = Known(metadata["uid"], metadata["resourceVersion"], value)
        if before is None or before.value != value:
            self._changed(key, value)

    def _drop(self, key: ObjectKey, uid: str) -> None:
        names = self._known[key.namespace]
        known = names.get(key.name)
        if known is not None and known.uid == uid:  # the late deletion of a namesake's earlier life is none of this one
            del names[key.name]
            self._changed(key, known.value)
        if not names:
            del self._known[key.namespace]


class Mirrors(Generic[T]):
    """One kind in all watched namespaces."""

    def __init__(self, mirrors: Mapping[str | None, Mirror[T]]) -> None:
        self._mirrors = mirrors

    def in_namespace(self, namespace: str) -> Mirror[T]:
        """The mirror that covers `namespace`."""
        return self._mirrors.get(namespace) or self._mirrors[None]

    def all(self) -> tuple[Mirror[T], ...]:
        """Each of them, to run."""
        return tuple(self._mirrors.values())


def _key(subject: JSON) -> ObjectKey:
    return ObjectKey(subject["metadata"].get("namespace", ""), subject["metadata"]["name"])


def _is_newer(version: str, than: str) -> bool:
    """Compare resource versions, which are numbers that grow (KEP-5504); unequal text otherwise means newer."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than


def _now() -> float:
    return asyncio.get_running_loop().time()
