"""The agent's words with an API server that does what real ones do on no demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from builders.agent_pod import POD_UID, Sink, spec
from modelparams import errors
from modelparams.api.assignment import AssignmentStatus
from modelparams_serving.agent import kube
from modelparams_serving.agent.kube import Backoff, PodAPI, follow
from modelparams_serving.agent.order import Assignment
from modelparams_serving.agent.status_writer import StatusWriter

QUICK = Backoff(first=0.01, bound=0.02)
PATH = "/apis/modelparams.dev/v1alpha1/namespaces/serving/modelparamassignments"
Object = dict[str, Any]


def assignment(version: str, resource_version: str = "2", **changes: Any) -> Object:
    """As the API server shows it."""
    return {
        "metadata": {"uid": "uid-1", "generation": 1, "resourceVersion": resource_version},
        "spec": spec(version).wire() | changes,
    }


@dataclass
class Server:
    """Answers as told."""

    token: str = "first"
    listed: list[Object] = field(default_factory=list)
    lists: int = 0
    watches: list[list[Object | bytes | int]] = field(default_factory=list)
    """Each watch in turn: its events (or lines that are none), or a status code. After the last one, watches hang."""
    since: list[str] = field(default_factory=list)
    bodies: list[Object] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the next PATCHes."""
    port: int = 0

    async def get(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.refuse(401)
        assert request.query["fieldSelector"] == "metadata.name=web-0"
        if "watch" not in request.query:
            self.lists += 1
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.listed})
        self.since.append(request.query["resourceVersion"])
        if not self.watches:
            await asyncio.sleep(60)
        events = self.watches.pop(0)
        if isinstance(events[0], int):
            return self.refuse(events[0])
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")
        return response

    async def patch(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.refuse(401)
        code = self.statuses.pop(0) if self.statuses else 200
        if code != 200:
            return self.refuse(code)
        assert request.content_type == "application/apply-patch+yaml"
        assert dict(request.query) == {"fieldManager": "modelparams-agent", "force": "true"}
        self.bodies.append(await request.json())
        return web.json_response({})

    @staticmethod
    def refuse(code: int) -> web.Response:
        return web.json_response({"kind": "Status", "code": code, "message": "told to"}, status=code)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get(PATH, self.get)
        app.router.add_patch(f"{PATH}/web-0/status", self.patch)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a conversation with a server; the login is a kubeconfig that names a token file, as kubelet's is rotated."""

    def write(server: Server) -> None:
        (tmp_path / "token").write_text(server.token)
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{"name": "u", "user": {"tokenFile": str(tmp_path / "token")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    def run(server: Server, talking: Callable[[PodAPI], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with server.running():
                write(server)
                api = PodAPI("serving", "web-0")
                try:
                    await talking(api)
                finally:
                    await api.close()

        asyncio.run(whole())

    run.write = write  # type: ignore[attr-defined]  # for a server that comes later
    return run


async def heard(api: PodAPI, count: int) -> list[str | None]:
    """The first so many things that `follow` tells."""
    told: list[str | None] = []
    enough = asyncio.Event()

    def changed(found: Assignment | None) -> None:
        told.append(found.spec.releases[0].version.text if found else None)
        if len(told) >= count:
            enough.set()

    task = asyncio.create_task(follow(api, changed, QUICK))
    try:
        async with asyncio.timeout(5):
            await enough.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return told


def test_the_order_is_told_and_each_change_of_it(talk: Callable[..., None]) -> None:
    server = Server(listed=[assignment("1.0.0")])
    server.watches = [
        [
            {"type": "MODIFIED", "object": assignment("1.1.0", "3")},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}},
        ],
        [{"type": "DELETED", "object": assignment("1.1.0", "8")}],
    ]

    async def talking(api: PodAPI) -> None:
        assert await heard(api, 3) == ["1.0.0", "1.1.0", None]

    talk(server, talking)
    assert server.since[:2] == ["1", "7"], "it watches on from the bookmark, and lists no second time"
    assert server.lists == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param([410], id="refused-as-too-old"),
        pytest.param([{"type": "ERROR", "object": {"code": 410, "message": "too old"}}], id="told-that-it-is-too-old"),
        pytest.param([b"no event\n"], id="what-is-no-event-would-come-again"),
        pytest.param([b"{}\n"], id="nor-is-this-one"),
        pytest.param([b"5\n"], id="nor-is-a-number"),
        pytest.param([b"null\n"], id="nor-is-nothing"),
        pytest.param([b'{"type": "ADDED", "object": null}\n'], id="nor-one-of-nothing"),
        pytest.param([b'{"type": "ERROR", "object": "x"}\n'], id="nor-an-error-that-is-a-word"),
    ],
)
def test_what_was_missed_is_listed_again(talk: Callable[..., None], fault: list[Object | bytes | int]) -> None:
    server = Server(listed=[assignment("1.0.0")], watches=[fault])

    async def talking(api: PodAPI) -> None:
        assert await heard(api, 2) == ["1.0.0", "1.0.0"]

    talk(server, talking)
    assert server.lists == 2


def test_a_watch_that_says_nothing_at_all_is_not_trusted_again(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What buffers answers, or hangs, would keep every order back without end."""
    monkeypatch.setattr(kube, "_STREAM", aiohttp.ClientTimeout(sock_read=0.05))
    server = Server(listed=[assignment("1.0.0")])

    async def talking(api: PodAPI) -> None:
        assert await heard(api, 2) == ["1.0.0", "1.0.0"]

    talk(server, talking)


def test_while_the_server_is_away_nothing_is_told(talk: Callable[..., None]) -> None:
    server = Server(listed=[assignment("1.0.0")], watches=[[503], [503], [503]])
    server.watches.append([{"type": "MODIFIED", "object": assignment("1.1.0", "3")}])

    async def talking(api: PodAPI) -> None:
        assert await heard(api, 2) == ["1.0.0", "1.1.0"]

    talk(server, talking)
    assert server.lists == 1


def test_an_order_that_cannot_be_read_is_none(talk: Callable[..., None]) -> None:
    server = Server(listed=[assignment("1.0.0", activate="sha256:short")])

    async def talking(api: PodAPI) -> None:
        assert await heard(api, 1) == [None]

    talk(server, talking)


def test_a_rotated_token_is_read_again_when_the_old_one_is_refused(talk: Callable[..., None], tmp_path: Path) -> None:
    server = Server(listed=[assignment("1.0.0")])

    async def talking(api: PodAPI) -> None:
        await api.read()
        server.token = "second"
        with pytest.raises(errors.APIDenied):
            await api.read()
        (tmp_path / "token").write_text("second")
        found, _ = await api.read()
        assert found

    talk(server, talking)


def test_no_credentials_at_all_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    async def talking() -> None:
        with pytest.raises(errors.APIDenied, match="KUBECONFIG"):
            await PodAPI("serving", "web-0").read()

    asyncio.run(talking())


def test_a_status_is_applied_on_the_very_object_that_was_read(talk: Callable[..., None]) -> None:
    server = Server()
    status = AssignmentStatus(pod_uid=POD_UID, progress="61%")

    async def talking(api: PodAPI) -> None:
        await api.report("uid-1", status)

    talk(server, talking)
    [body] = server.bodies
    assert body["metadata"] == {"name": "web-0", "namespace": "serving", "uid": "uid-1"}
    assert body["status"] == status.wire()


def test_a_status_that_could_not_be_written_is_written_later_and_only_the_newest(talk: Callable[..., None]) -> None:
    server = Server(statuses=[503, 409, 401])

    async def talking(api: PodAPI) -> None:
        writer = StatusWriter(api, QUICK)
        writer.offer("uid-1", AssignmentStatus(progress="1%"), known=AssignmentStatus())
        task = asyncio.create_task(writer.run())
        async with asyncio.timeout(5):
            while server.statuses:
                await asyncio.sleep(0.002)
                writer.offer("uid-1", AssignmentStatus(progress="2%"), known=AssignmentStatus())
            while not server.bodies:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    talk(server, talking)
    assert [body["status"]["progress"] for body in server.bodies] == ["2%"]


def test_what_is_known_there_is_not_written_and_a_new_object_gets_it_again() -> None:
    async def whole() -> None:
        sink, status = Sink(), AssignmentStatus(progress="61%")
        writer = StatusWriter(sink, QUICK)
        task = asyncio.create_task(writer.run())
        writer.offer("uid-1", status, known=status)
        await asyncio.sleep(0.02)
        assert sink.statuses == []
        writer.offer("uid-2", status, known=AssignmentStatus())
        await asyncio.sleep(0.02)
        assert sink.statuses == [status]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())


def test_pauses_grow_to_a_bound_and_are_never_none() -> None:
    backoff = Backoff(first=0.25, bound=10.0)
    for failures in range(40):
        most = min(10.0, 0.25 * 2**failures)
        assert most / 2 <= backoff.pause(failures) <= most
