"""The API server through `kubernetes.aio`, by raw requests: the typed API's models alone would cost 100 MB.

The library gives what is hard about a connection (kubeconfig, token refresh, TLS, the pool); objects stay JSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from modelparams import errors
from modelparams_operator.shell import kubeconfig, metrics
from modelparams_operator.shell.ports import JSON, OPENED, KubernetesAPI, ObjectKey, Page, Resource

FIELD_MANAGER = "modelparams-operator"
_JSON, _APPLY, _MERGE = "application/json", "application/apply-patch+yaml", "application/merge-patch+json"
_PATCH = "application/json-patch+json"
_Body = JSON | list[JSON] | None
_REQUEST = aiohttp.ClientTimeout(total=20, connect=5)
# The server ends a watch after 290 s; bookmarks come every minute, so 70 s of silence is a dead stream.
_WATCH_SECONDS = 290
_WATCH = aiohttp.ClientTimeout(total=None, connect=5, sock_read=70)

_KINDS: dict[int, type[errors.APIError]] = {
    400: errors.APIInvalid,
    401: errors.APIDenied,
    403: errors.APIDenied,
    404: errors.APIMissing,
    409: errors.APIConflict,
    410: errors.APIGone,
    415: errors.APIInvalid,
    422: errors.APIInvalid,
}


class Kube:
    """`ports.KubernetesAPI` on a real server. An async context manager.

    Args:
        connection: of the library.
        manager: whose the fields are that are written.
    """

    def __init__(self, connection: client.ApiClient, manager: str = FIELD_MANAGER) -> None:
        self._connection, self._manager = connection, manager

    @classmethod
    async def connect(cls) -> Self:
        """From the service account in a pod, else from $KUBECONFIG.

        Raises:
            UsageError: neither is there.
        """
        settings = client.Configuration()
        try:
            await _log_in(settings)
        except (config.ConfigException, OSError) as error:
            raise errors.UsageError(
                f"no way to reach an API server: {error}", hint="run it in a pod, or set KUBECONFIG"
            ) from None
        settings.retries = None  # retries are ours: the library's would hide for how long the server is away
        return cls(client.ApiClient(settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

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
        """See `ports.KubernetesAPI`."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit), "continue": token or ""}
        answer = await self._call("GET", resource.path(namespace), query)
        metadata = answer["metadata"]
        return Page(answer.get("items") or [], metadata["resourceVersion"], metadata.get("continue") or None)

    async def watch(
        self, resource: Resource, namespace: str | None, *, labels: str, since: str
    ) -> AsyncIterator[tuple[str, JSON]]:
        """See `ports.KubernetesAPI`."""
        path = resource.path(namespace)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": since,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            response = await self._send("GET", path, query, None, _JSON, _WATCH)
            async with response:
                await _checked(response, "GET", path)
                yield OPENED, {}
                async for line in _lines(response.content):
                    yield _event(line, path)
        except json.JSONDecodeError:
            raise errors.APIGone(f"watch {path}: an event cannot be read") from None  # nor could it be the next time
        except aiohttp.SocketTimeoutError:  # what buffers answers or hangs may do it again, without end
            raise errors.APIGone(f"watch {path}: not even a bookmark for {_WATCH.sock_read:.0f} s") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _unreachable(error, "watch", path) from None

    async def get(self, resource: Resource, key: ObjectKey) -> JSON:
        """See `ports.KubernetesAPI`."""
        return await self._call("GET", resource.path(*key))

    async def review(self, path: str) -> JSON:
        """Ask the server something about ourselves."""
        return await self._call("POST", path, None, {})

    async def create(self, resource: Resource, namespace: str, body: JSON) -> JSON:
        """See `ports.KubernetesAPI`."""
        return await self._call("POST", resource.path(namespace), {"fieldManager": self._manager}, body)

    async def replace(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        """See `ports.KubernetesAPI`."""
        return await self._call("PUT", resource.path(*key), {"fieldManager": self._manager}, body)

    async def apply(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        """See `ports.KubernetesAPI`."""
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        full["metadata"] = {**body.get("metadata", {}), "name": key.name, "namespace": key.namespace}
        # force: only the fields that we send are ours, and those are nobody else's to hold
        query = {"fieldManager": self._manager, "force": "true"}
        return await self._call("PATCH", resource.path(*key), query, full, _APPLY)

    async def write_status(self, resource: Resource, key: ObjectKey, read_at: str, status: JSON) -> JSON:
        """See `ports.KubernetesAPI`."""
        patch: list[JSON] = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": read_at},  # the server compares it
            {"op": "add", "path": "/status", "value": status},  # RFC 6902 §4.1: in place of one that is there
        ]
        query = {"fieldManager": self._manager}
        return await self._call("PATCH", resource.path(*key, "status"), query, patch, _PATCH)

    async def merge(self, resource: Resource, key: ObjectKey, body: JSON) -> JSON:
        """See `ports.KubernetesAPI`."""
        return await self._call("PATCH", resource.path(*key), {"fieldManager": self._manager}, body, _MERGE)

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        """See `ports.KubernetesAPI`."""
        try:
            await self._call("DELETE", resource.path(*key), None, {"preconditions": {"uid": uid}})
        except (errors.APIMissing, errors.APIConflict):  # gone, or another object of that name by now
            return

    async def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: _Body = None, kind: str = _JSON
    ) -> JSON:
        try:
            response = await self._send(method, path, query or {}, body, kind, _REQUEST)
            async with response:
                await _checked(response, method, path)
                answer: JSON = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _unreachable(error, method, path) from None

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: _Body,
        kind: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": _JSON, "Content-Type": kind, "User-Agent": self._manager}
        connection = self._connection
        # The name of the one scheme that the library knows; it reads a projected token again every minute.
        await connection.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{connection.configuration.host}{path}?{urlencode({k: v for k, v in query.items() if v})}"
        send = connection.rest_client.request
        answer = await send(method, url, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response


async def _log_in(settings: client.Configuration) -> None:
    """By the same rule as kopf, which has a session of its own: a pod's account first."""
    if Path(SERVICE_TOKEN_FILENAME).exists():  # noqa: ASYNC240 - once, at the start
        config.load_incluster_config(settings)
    else:
        await kubeconfig.load(settings)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length. `readline` refuses those beyond its buffer, and any pod's owner can make one.

    A pod may have 1.5 MB, of which JSON in an event makes six times as much.
    """
    begun = bytearray()
    async for piece in content.iter_any():
        *ended, rest = piece.split(b"\n")
        for line in ended:
            yield bytes(begun + line)
            begun.clear()
        begun += rest
    if begun:
        raise aiohttp.ClientPayloadError("the stream ends within a line")


def _event(line: bytes, path: str) -> tuple[str, JSON]:
    event = json.loads(line)
    kind, subject = event["type"], event["object"]
    if kind == "ERROR":
        raise _refused(subject.get("code", 500), subject, "watch", path)
    return kind, subject


async def _checked(response: aiohttp.ClientResponse, method: str, path: str) -> None:
    if response.status < 400:
        return
    try:
        status = await response.json(content_type=None)
    except ValueError:
        status = {}
    raise _refused(response.status, status, method, path)


def _refused(code: int, status: Any, method: str, path: str) -> errors.APIError:
    metrics.API_ERRORS.labels(code=str(code)).inc()
    said = status.get("message", "") if isinstance(status, dict) else ""
    kind = _KINDS.get(code, errors.APIUnavailable)
    return kind(f"{method} {path}: the API server answered {code} {str(said)[:500]}".rstrip())


def _unreachable(error: Exception, method: str, path: str) -> errors.APIError:
    if isinstance(error, errors.APIError):
        return error
    metrics.API_ERRORS.labels(code="none").inc()
    return errors.APIUnavailable(f"{method} {path}: {type(error).__name__}: {str(error)[:200]}")


async def require_kind(api: KubernetesAPI, resource: Resource, namespace: str | None) -> None:
    """Check that the server serves `resource`.

    Raises:
        APIMissing: it serves no such kind: its CRD is not installed.
        APIDenied: we may not list it.
        APIUnavailable: no answer.
    """
    try:
        await api.list_page(resource, namespace, limit=1)
    except errors.APIMissing:
        raise errors.APIMissing(
            f"the cluster has no {resource.plural}.{resource.group}",
            hint="install the CRDs of this release first: kubectl apply --server-side -f crds/",
        ) from None
