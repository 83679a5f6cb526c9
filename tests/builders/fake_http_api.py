"""An API server's HTTP side with faults: what kopf and our own client meet on a bad day. It knows two kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from modelparams.api import API_VERSION, GROUP

ROOT = f"/apis/{GROUP}/{API_VERSION}"
JSON = dict[str, Any]


def _kinds(*names: tuple[str, str], is_namespaced: bool = True) -> JSON:
    verbs = ["get", "list", "watch", "patch"]
    return {
        "resources": [
            {"name": plural, "singularName": kind.lower(), "namespaced": is_namespaced, "kind": kind, "verbs": verbs}
            for plural, kind in names
        ]
    }


def _group(name: str, version: str) -> JSON:
    found = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [found], "preferredVersion": found}


# Kopf waits for namespaces and CRDs to be discovered, also when it is told not to look at any.
DISCOVERY: dict[str, JSON] = {
    "/api": {"versions": ["v1"]},
    "/api/v1": _kinds(("namespaces", "Namespace"), is_namespaced=False),
    "/apis": {"groups": [_group(GROUP, API_VERSION), _group("apiextensions.k8s.io", "v1")]},
    "/apis/apiextensions.k8s.io/v1": _kinds(
        ("customresourcedefinitions", "CustomResourceDefinition"), is_namespaced=False
    ),
    ROOT: _kinds(("modelparamversions", "ModelParamVersion"), ("modelparamrollouts", "ModelParamRollout")),
}


class FakeServer:
    """Lists `objects`; streams what `say` is told; answers `refusals` first, one each.

    Attributes:
        requests: method and path of each.
        body: the last request's.
    """

    def __init__(self) -> None:
        self.objects: list[JSON] = []
        self.requests: list[tuple[str, str]] = []
        self.refusals: list[tuple[int, JSON]] = []
        self.body: Any = None
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}
        self.url = ""
        self._streams: list[asyncio.Queue[bytes | None]] = []

    def say(self, kind: str, subject: JSON) -> None:
        """Send an event to all watches."""
        for stream in self._streams:
            stream.put_nowait(json.dumps({"type": kind, "object": subject}).encode() + b"\n")

    def fail(self, code: int) -> None:
        """Send an ERROR event to all watches."""
        self.say("ERROR", {"kind": "Status", "code": code, "reason": "Expired", "message": "a test wants it"})

    def cut(self, rest: bytes = b"") -> None:
        """End all watches, perhaps in the middle of a line."""
        for stream in self._streams:
            stream.put_nowait(rest)
            stream.put_nowait(None)
        self._streams.clear()

    @property
    def watching(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def kubeconfig(self, folder: Path) -> Path:
        """How to reach it."""
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "token-of-a-test"}}],
        }
        file = folder / "kubeconfig"
        file.write_text(json.dumps(config))
        return file

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        self.requests.append((request.method, request.path))
        self.query, self.headers = dict(request.query), dict(request.headers)
        self.body = json.loads(await request.text() or "null")
        if self.refusals:
            code, status = self.refusals.pop(0)
            return web.json_response(status, status=code)
        if request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method != "GET":
            return web.json_response(self.body or {})
        items = self.objects if request.path.endswith("versions") else []
        return web.json_response({"items": items, "metadata": {"resourceVersion": "10"}})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        stream: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._streams.append(stream)
        while (line := await stream.get()) is not None:
            await response.write(line)
        return response


@contextlib.asynccontextmanager
async def serving(prepare: Callable[[FakeServer], None] = lambda _: None) -> AsyncIterator[FakeServer]:
    """A server on a free port."""
    fake, app = FakeServer(), web.Application()
    prepare(fake)
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        fake.cut()
        await runner.cleanup()
