"""Raw JSON calls to any API server, by any kubeconfig.

The typed clients of the `kubernetes` package cost 100 MB; its transport alone is light and knows every
way to log in that a kubeconfig can name.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

Object = dict[str, Any]
"""A Kubernetes object as JSON gives it."""

_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


class ApiError(RuntimeError):
    """The API server refused.

    Attributes:
        code: the HTTP status.
        reason: the Status object's reason, such as `Invalid`.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class Api:
    """The verbs, by path: `api.get("/api/v1/namespaces/default/pods/web")`."""

    def __init__(self, kubeconfig: Path) -> None:
        from kubernetes import config  # here, since it takes 0.6 s

        self.kubeconfig = kubeconfig
        self._client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # the package is half typed

    @property
    def server(self) -> str:
        """Where it is: `https://host:port`."""
        return str(self._client.configuration.host)

    @property
    def ca(self) -> Path | None:
        """The authority of its certificate, PEM; None when the system's are meant."""
        file = self._client.configuration.ssl_ca_cert
        return Path(file) if file else None

    def get(self, path: str, **query: str | int) -> Object:
        """Read an object or list."""
        return self._call("GET", path, query)

    def find(self, path: str) -> Object | None:
        """Read an object that need not exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def watch(self, path: str, name: str, *, seconds: int) -> Iterator[Object]:
        """Follow one object of a list: as it is, if it is there, then as it becomes.

        Ends when the time is over, or when the server ends it.

        Raises:
            ConnectionError: the stream broke.
        """
        from urllib3.exceptions import HTTPError

        query: dict[str, str | int] = {"watch": "true", "fieldSelector": f"metadata.name={name}"}
        answer = self._answer("GET", path, query | {"timeoutSeconds": seconds}, None, "", streams=True)
        try:
            yield from (json.loads(line)["object"] for line in answer)
        except HTTPError as error:
            raise ConnectionError(f"WATCH {path}: {error}") from error
        finally:
            answer.close()

    def post(self, path: str, body: Object) -> Object:
        """Create an object."""
        return self._call("POST", path, {}, body)

    def put(self, path: str, body: Object) -> Object:
        """Replace an object."""
        return self._call("PUT", path, {}, body)

    def patch(self, path: str, body: Object) -> Object:
        """Change an object by a JSON merge patch."""
        return self._call("PATCH", path, {}, body, _MERGE)

    def apply(self, path: str, body: Object, *, manager: str = "test", force: bool = True) -> Object:
        """Server-side apply."""
        return self._call("PATCH", path, {"fieldManager": manager, "force": str(force).lower()}, body, _APPLY)

    def delete(self, path: str, *, grace_seconds: int | None = None) -> Object:
        """Delete an object; 0 seconds removes a pod at once, as its kubelet would at the end."""
        return self._call("DELETE", path, {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds})

    def text(self, path: str) -> str:
        """Read what is no JSON: `/readyz`, `/metrics`, a log."""
        return self._send("GET", path, {}, None, "").decode()

    def _call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str | int],
        body: Object | None = None,
        kind: str = "application/json",
    ) -> Object:
        return dict(json.loads(self._send(verb, path, query, None if body is None else json.dumps(body), kind)))

    def _send(self, verb: str, path: str, query: Mapping[str, str | int], body: str | None, kind: str) -> bytes:
        return bytes(self._answer(verb, path, query, body, kind).data)

    def _answer(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str | int],
        body: str | None,
        kind: str,
        *,
        streams: bool = False,
    ) -> BaseHTTPResponse:
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json, */*", "Content-Type": kind, "User-Agent": "modelparams-tests"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, verb, body)
        url = self._client.configuration.host + path + ("?" + urllib.parse.urlencode(query) if query else "")
        wait = {"timeout": None if streams else 30, "retries": False, "preload_content": not streams}
        try:
            pool = self._client.rest_client.pool_manager  # below the client's own retries and content rules
            answer: BaseHTTPResponse = pool.request(verb, url, headers=headers, body=body, **wait)
        except HTTPError as error:
            self._client.rest_client.pool_manager.clear()  # an API server that was killed leaves half-closed ones
            raise ConnectionError(f"{verb} {path}: {error}") from error
        if answer.status >= 300:
            raise _refusal(answer.status, answer.data)
        return answer


def _refusal(code: int, body: bytes) -> ApiError:
    try:
        status = json.loads(body)
    except ValueError:
        status = {"message": body[:200].decode(errors="replace")}
    return ApiError(code, status.get("reason", ""), status.get("message", ""))
