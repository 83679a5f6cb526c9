"""The pod's few words with the API server: read one assignment, write its status, look at the model's rollouts.

By raw requests through `kubernetes.aio`: the library knows how to connect; its typed models would cost 100 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import structlog
from kubernetes.aio import client, config

from modelparams import errors
from modelparams.api import API_VERSION, GROUP, assignment, rollout
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus, answer_of
from modelparams.api.rollout import RolloutSpec, RolloutStatus
from modelparams_serving.agent.order import Assignment, Rollout

FIELD_MANAGER = "modelparams-agent"
TOKEN_AGE_MAX = 60.0
"""Seconds; kubelet rotates a bound token at 80 % of its life, which is ten minutes at least."""
WATCH_SECONDS = 290
_JSON, _APPLY = "application/json", "application/apply-patch+yaml"
_REQUEST = aiohttp.ClientTimeout(total=20, connect=5)
# Bookmarks come about every minute: 90 s of silence is a dead connection.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What an event that is none raises, be it JSON or not."""
_STREAM = aiohttp.ClientTimeout(total=None, connect=5, sock_read=90)
_KINDS = {
    400: errors.APIInvalid,
    401: errors.APIDenied,
    403: errors.APIDenied,
    404: errors.APIMissing,
    409: errors.APIConflict,
    410: errors.APIGone,
    415: errors.APIInvalid,
    422: errors.APIInvalid,
}
logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class Credentials:
    """Where the API server is and who we are; read again while the process runs, since tokens rotate."""

    def __init__(self) -> None:
        self._read_at = float("-inf")

    async def refresh(self, connection: client.Configuration) -> None:
        """Read the files again if it is long ago. The library calls it before each request."""
        if time.monotonic() - self._read_at < TOKEN_AGE_MAX:
            return
        try:
            if path := os.environ.get("KUBECONFIG"):
                await config.load_kube_config(path, client_configuration=connection, persist_config=False)
            else:
                config.load_incluster_config(client_configuration=connection, try_refresh_token=False)
        except (config.ConfigException, OSError) as error:
            raise errors.APIDenied(
                f"no credentials for the API server ({error})",
                hint="run in a pod with a service account, or set KUBECONFIG",
            ) from error
        self._read_at = time.monotonic()

    def expire(self) -> None:
        """Read them before the next request: the server did not accept these."""
        self._read_at = float("-inf")


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. A bookmark tells only from where to watch on."""

    resource_version: str
    assignment: Assignment | None
    is_bookmark: bool = False


class PodAPI:
    """Everything that the agent may do at the API server. Each call may raise an `errors.APIError`."""

    def __init__(self, namespace: str, pod_name: str) -> None:
        self._namespace, self._pod_name = namespace, pod_name
        self._credentials = Credentials()
        self._api: client.ApiClient | None = None

    async def read(self) -> tuple[Assignment | None, str]:
        """The pod's assignment, if there is one, and the resource version to watch from."""
        found = await self._call("GET", self._path(assignment.PLURAL), self._mine())
        items = found["items"]
        return (_assignment(items[0]) if items else None), found["metadata"]["resourceVersion"]

    async def watch(self, resource_version: str) -> AsyncIterator[Change]:
        """All changes after `resource_version`, until the server ends the stream.

        Raises:
            APIGone: only a list tells the truth. What buffers answers, or hangs, or is no event would come again.
        """
        query = self._mine() | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        try:
            async with self._sent("GET", self._path(assignment.PLURAL), query, timeout=_STREAM) as response:
                while line := await response.content.readline():
                    yield _change(json.loads(line))
        except (errors.APIUnavailable, *_UNREADABLE) as error:
            cause = error.__cause__ or error
            if isinstance(cause, (aiohttp.SocketTimeoutError, *_UNREADABLE)):
                raise errors.APIGone(f"the watch told nothing that can be read ({type(cause).__name__})") from error
            raise

    async def rollouts(self) -> tuple[Rollout, ...]:
        """All rollouts of the namespace that can be read."""
        found = await self._call("GET", self._path(rollout.PLURAL), {})
        return tuple(parsed for item in found["items"] if (parsed := _rollout(item)))

    async def report(self, uid: str, status: AssignmentStatus) -> None:
        """Write the status, by server-side apply; `uid` keeps it off a namesake that came meanwhile."""
        body = {
            "apiVersion": f"{GROUP}/{API_VERSION}",
            "kind": assignment.KIND,
            "metadata": {"name": self._pod_name, "namespace": self._namespace, "uid": uid},
            "status": status.wire(),
        }
        path = f"{self._path(assignment.PLURAL)}/{quote(self._pod_name)}/status"
        await self._call("PATCH", path, {"fieldManager": FIELD_MANAGER, "force": "true"}, body)

    async def close(self) -> None:
        """Close all connections."""
        if self._api:
            await self._api.close()

    def _path(self, plural: str) -> str:
        return f"/apis/{GROUP}/{API_VERSION}/namespaces/{quote(self._namespace)}/{plural}"

    def _mine(self) -> dict[str, str]:
        return {"fieldSelector": f"metadata.name={self._pod_name}"}

    async def _call(self, method: str, path: str, query: dict[str, str], body: object = None) -> Any:
        async with self._sent(method, path, query, body) as response:
            return await response.json()

    @contextlib.asynccontextmanager
    async def _sent(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: object = None,
        timeout: aiohttp.ClientTimeout = _REQUEST,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with await self._send(method, path, query, body, timeout) as response:
                if response.status >= 400:
                    raise await self._refused(response, method, path)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError) as error:
            raise errors.APIUnavailable(f"{method} {path} failed ({type(error).__name__})") from error

    async def _send(
        self, method: str, path: str, query: dict[str, str], body: object, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        if self._api is None:
            self._api = await self._connect()
        headers = {"Accept": _JSON, "Content-Type": _APPLY if method == "PATCH" else _JSON, "User-Agent": FIELD_MANAGER}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}?{urlencode(query)}"
        request = self._api.rest_client.request
        answer = await request(method, url, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _connect(self) -> client.ApiClient:
        connection = client.Configuration()
        await self._credentials.refresh(connection)
        connection.refresh_api_key_hook = self._credentials.refresh
        connection.retries = 0  # when to try again is decided by our callers
        return client.ApiClient(connection)

    async def _refused(self, response: aiohttp.ClientResponse, method: str, path: str) -> errors.APIError:
        if response.status == 401:
            self._credentials.expire()
        with contextlib.suppress(ValueError, aiohttp.ClientError):
            said = await response.json(content_type=None)
            return _refusal(response.status, str(said.get("message", "")), f"{method} {path}")
        return _refusal(response.status, "", f"{method} {path}")


def _refusal(code: int, said: str, what: str) -> errors.APIError:
    kind = _KINDS.get(code, errors.APIUnavailable)
    return kind(f"{what}: the API server answered {code} {said[:500]}".rstrip())


def _change(event: dict[str, Any]) -> Change:
    kind, item = event["type"], event["object"]
    if kind == "ERROR":
        raise _refusal(item.get("code", 500), str(item.get("message", "")), "the watch")
    found = _assignment(item) if kind in ("ADDED", "MODIFIED") else None
    return Change(item["metadata"]["resourceVersion"], found, is_bookmark=kind == "BOOKMARK")


def _assignment(item: dict[str, Any]) -> Assignment | None:
    """None for an order that cannot be read: it is no order; the schema lets none pass."""
    metadata = item["metadata"]
    try:
        spec = AssignmentSpec.parse(item.get("spec", {}))
    except errors.InvalidSpec as error:
        logger.error("Assignment cannot be read", reason=error.reason, problem=str(error)[:500])
        return None
    return Assignment(metadata["uid"], metadata.get("generation", 0), spec, answer_of(item.get("status"))[0])


def _rollout(item: dict[str, Any]) -> Rollout | None:
    try:
        spec, status = RolloutSpec.parse(item["spec"]), RolloutStatus.parse(item.get("status", {}))
    except (errors.InvalidSpec, KeyError):
        return None
    return Rollout(item["metadata"]["name"], spec, status)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter up to a growing bound: a fleet that lost one API server must not come back as one."""

    first: float = 0.25
    bound: float = 10.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        most = min(self.bound, self.first * 2.0 ** min(failures, 16))
        return most / 2 + random.random() * most / 2  # noqa: S311 - no secret


async def follow(api: PodAPI, changed: Callable[[Assignment | None], None], backoff: Backoff | None = None) -> None:
    """Tell `changed` the assignment, now and whenever it changes, for ever; nothing while the API server is away."""
    backoff, failures, since = backoff or Backoff(), 0, ""
    while True:
        try:
            if not since:
                found, since = await api.read()
                changed(found)
            async for change in api.watch(since):
                since, failures = change.resource_version, 0
                if not change.is_bookmark:
                    changed(change.assignment)
            await asyncio.sleep(backoff.first)
        except errors.APIError as error:
            if not isinstance(error, errors.APIUnavailable):
                since = ""
            logger.warning("Watch interrupted", reason=error.reason, problem=str(error))
            await asyncio.sleep(backoff.pause(failures))
            failures += 1
