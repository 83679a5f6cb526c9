"""What the shell needs of the world around, in as few calls as it can do with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from modelparams.api import API_VERSION, GROUP, assignment, rollout, version

JSON = dict[str, Any]
"""An object as the API server sends it. It is parsed once, where it enters."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object and where its collection is."""

    group: str
    version: str
    plural: str
    kind: str
    page: int = 100
    """So many are listed at once, and in memory together as the server sent them: users may make each a MB."""

    @property
    def api_version(self) -> str:
        """As objects name it: `v1`, `modelparams.dev/v1alpha1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL's path; of the collection without a name, of the whole cluster without a namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if namespace else ""
        return root + where + "".join(f"/{part}" for part in (self.plural, name, subresource) if part)


PODS = Resource("", "v1", "pods", "Pod", page=16)
SECRETS = Resource("", "v1", "secrets", "Secret")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
OPENED = "OPENED"
"""What a watch gives first, of nothing: the server took the request."""
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
VERSIONS = Resource(GROUP, API_VERSION, version.PLURAL, version.KIND)
ROLLOUTS = Resource(GROUP, API_VERSION, rollout.PLURAL, rollout.KIND)
ASSIGNMENTS = Resource(GROUP, API_VERSION, assignment.PLURAL, assignment.KIND)


class ObjectKey(NamedTuple):
    """An object's place."""

    namespace: str
    name: str


class ModelKey(NamedTuple):
    """A model in a namespace: its versions, its rollouts and its pods have one loop."""

    namespace: str
    model: str


class Page(NamedTuple):
    """A part of a list; `token` asks for the next one."""

    items: list[JSON]
    resource_version: str
    token: str | None


class KubernetesAPI(Protocol):
    """The API server. Every call has a time limit and raises only `modelparams.errors.APIError` and its kinds."""

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
        """A page of a collection, selected by labels and fields; APIGone when `token` is too old."""

    def watch(
        self, resource: Resource, namespace: str | None, *, labels: str, since: str
    ) -> AsyncIterator[tuple[str, JSON]]:
        """Changes after `since` as (type, object), bookmarks among them; ends when the server ends it.

        Before them OPENED with nothing: the server took the request.

        Raises:
            APIGone: only a list tells the truth: `since` is no longer known, or the stream was silent for too long.
            APIUnavailable: the stream was cut.
        """

    async def get(self, resource: Resource, key: ObjectKey) -> JSON:
        """One object; APIMissing when it is not there."""

    async def create(self, resource: Resource, namespace: str, body: JSON) -> JSON:
        """Make an object; APIConflict when it exists."""

    async def replace(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        """Write all of an object; APIConflict when its resourceVersion is not the present one."""

    async def apply(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        """Server-side apply as our field manager, which takes over exactly the fields in `body`."""

    async def write_status(self, resource: Resource, key: ObjectKey, read_at: str, status: JSON) -> JSON:
        """Write all of an object's status, whoever wrote what of it before: a restore has a field manager of its own.

        Raises:
            APIConflict: `read_at` is not the object's present resourceVersion.
        """

    async def merge(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        """Merge-patch an object."""

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        """Delete that very object; nothing happens when it is gone already."""


async def pages(
    api: KubernetesAPI, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
) -> AsyncIterator[Page]:
    """All pages of a collection, one after another: whoever keeps little of each object needs little memory."""
    token = None
    while True:
        page = await api.list_page(resource, namespace, labels=labels, fields=fields, limit=resource.page, token=token)
        yield page
        token = page.token
        if not token:
            return
