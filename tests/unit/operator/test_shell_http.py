"""Our client and kopf against an API server on a bad day, over real HTTP. To be run again at each bump of kopf."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest

from builders.fake_api import running, until
from builders.fake_http_api import FakeServer, serving
from modelparams import errors
from modelparams.trust import SigningKey, TrustPolicy
from modelparams_operator import handlers
from modelparams_operator.settings import Settings
from modelparams_operator.shell import kube
from modelparams_operator.shell.kube import Kube
from modelparams_operator.shell.ports import ASSIGNMENTS, EVENTS, OPENED, PODS, ROLLOUTS, VERSIONS, ObjectKey
from modelparams_operator.shell.run import operate

KEY = ObjectKey("ns", "chat")


def with_client(
    monkeypatch: pytest.MonkeyPatch, folder: Path, test: Callable[[FakeServer, Kube], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with serving() as server:
            monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(folder)))
            async with await Kube.connect() as api:
                await test(server, api)

    running(run)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, errors.APIDenied),
        (403, errors.APIDenied),
        (404, errors.APIMissing),
        (409, errors.APIConflict),
        (410, errors.APIGone),
        (422, errors.APIInvalid),
        (429, errors.APIUnavailable),
        (500, errors.APIUnavailable),
        (503, errors.APIUnavailable),
    ],
)
def test_each_refusal_has_its_own_error_with_the_servers_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, kind: type[errors.APIError]
) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        server.refusals.append((code, {"kind": "Status", "message": "because of this"}))
        with pytest.raises(kind, match="because of this") as refused:
            await api.get(VERSIONS, KEY)
        assert type(refused.value) is kind
        assert len(server.requests) == 1  # retries are the loops'

    with_client(monkeypatch, tmp_path, test)


def test_an_order_is_a_forced_apply_of_our_own_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        await api.apply(ASSIGNMENTS, KEY, {"metadata": {"labels": {"a": "b"}}, "spec": {"term": 3}})
        path = "/apis/modelparams.dev/v1alpha1/namespaces/ns/modelparamassignments/chat"
        assert server.requests == [("PATCH", path)]
        assert server.query == {"fieldManager": "modelparams-operator", "force": "true"}
        assert server.headers["Content-Type"] == "application/apply-patch+yaml"
        assert server.headers["Authorization"] == "Bearer token-of-a-test"
        assert server.body["metadata"] == {"labels": {"a": "b"}, "name": "chat", "namespace": "ns"}
        assert (server.body["kind"], server.body["spec"]) == ("ModelParamAssignment", {"term": 3})

    with_client(monkeypatch, tmp_path, test)


def test_a_status_is_written_whole_over_the_one_that_was_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        await api.write_status(ROLLOUTS, KEY, "7", {"step": "1/3"})
        path = "/apis/modelparams.dev/v1alpha1/namespaces/ns/modelparamrollouts/chat/status"
        assert server.requests == [("PATCH", path)]
        assert server.query == {"fieldManager": "modelparams-operator"}
        assert server.headers["Content-Type"] == "application/json-patch+json"
        assert server.body == [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/status", "value": {"step": "1/3"}},
        ]

    with_client(monkeypatch, tmp_path, test)


def test_a_deletion_names_the_very_object_and_one_that_is_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        for code in (404, 409):
            server.refusals.append((code, {}))
            await api.delete(EVENTS, KEY, uid="u-1")
        assert server.body == {"preconditions": {"uid": "u-1"}}

    with_client(monkeypatch, tmp_path, test)


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        api._connection.configuration.host = "http://127.0.0.1:9"
        with pytest.raises(errors.APIUnavailable):
            await api.get(VERSIONS, KEY)

    with_client(monkeypatch, tmp_path, test)


def test_a_kind_that_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        server.refusals.append((404, {}))
        with pytest.raises(errors.APIMissing, match=r"modelparamversions\.modelparams\.dev.*kubectl apply"):
            await kube.require_kind(api, VERSIONS, None)

    with_client(monkeypatch, tmp_path, test)


async def _watched(api: Kube, into: list[str]) -> None:
    async for kind, _ in api.watch(PODS, None, labels="a=b", since="5"):
        into.append(kind)


@contextlib.asynccontextmanager
async def watching(server: FakeServer, api: Kube) -> AsyncIterator[tuple[asyncio.Task[None], list[str]]]:
    seen: list[str] = []
    task = asyncio.create_task(_watched(api, seen))
    await until(lambda: server.watching, "the watch")
    yield task, seen


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(lambda server: server.fail(410), errors.APIGone, id="an-error-event-410"),
        pytest.param(lambda server: server.fail(500), errors.APIUnavailable, id="an-error-event-500"),
        pytest.param(lambda server: server.cut(b'{"type": "MODI'), errors.APIUnavailable, id="cut-in-a-line"),
    ],
)
def test_a_watch_ends_by_a_named_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Callable[[FakeServer], None], kind: type[errors.APIError]
) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        async with watching(server, api) as (task, seen):
            assert server.query["resourceVersion"] == "5"
            assert server.query["allowWatchBookmarks"] == "true"
            server.say("BOOKMARK", {"metadata": {"resourceVersion": "6"}})
            fault(server)
            with pytest.raises(kind):
                await task
            assert seen == [OPENED, "BOOKMARK"]

    with_client(monkeypatch, tmp_path, test)


def test_an_event_may_be_as_long_as_a_pod_s_owner_can_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        async with watching(server, api) as (task, seen):
            server.say("MODIFIED", {"metadata": {"resourceVersion": "6"}, "spec": "<" * 9_000_000})
            server.say("BOOKMARK", {"metadata": {"resourceVersion": "7"}})
            server.cut()
            await task
            assert seen == [OPENED, "MODIFIED", "BOOKMARK"]

    with_client(monkeypatch, tmp_path, test)


def test_an_event_that_cannot_be_read_has_all_listed_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        async with watching(server, api) as (task, _):
            server.cut(b'{"type": \n')
            with pytest.raises(errors.APIGone):
                await task

    with_client(monkeypatch, tmp_path, test)


def test_a_watch_that_falls_silent_is_given_up_for_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may do so again, each time it is begun where the last one ended: what has happened would never be seen."""
    monkeypatch.setattr(kube, "_WATCH", aiohttp.ClientTimeout(total=None, sock_read=0.1))

    async def test(server: FakeServer, api: Kube) -> None:
        async with watching(server, api) as (task, _):
            with pytest.raises(errors.APIGone, match="bookmark"):
                await task

    with_client(monkeypatch, tmp_path, test)


def test_a_watch_that_the_server_ends_in_order_just_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, api: Kube) -> None:
        async with watching(server, api) as (task, _):
            server.cut()
            await task

    with_client(monkeypatch, tmp_path, test)


def version(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "10"}
    return {"apiVersion": "modelparams.dev/v1alpha1", "kind": "x", "metadata": metadata, "spec": {"modelName": name}}


class Kopf:
    """A running kopf, what it woke, and how it ends. It waits for all tasks of its loop, so it has one of its own."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    async def run(self) -> None:
        await asyncio.to_thread(lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # A watcher that failed reports itself when it is collected, traceback and all. In a later test's
        # `ast.parse` that is a parse within a parse, which CPython before 3.11.8 takes for an error (gh-106905).
        self._loop.set_exception_handler(lambda _loop, _context: None)
        registry = handlers.make_registry(lambda key: self.woken.append(key.model), self._cleanup, self._stop)
        await handlers.run(registry, ("ns",), self._stop)

    async def _cleanup(self) -> None:
        self.stopped = True

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)


def with_kopf(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    test: Callable[[FakeServer, Kopf, asyncio.Task[None]], Awaitable[None]],
) -> None:
    async def run() -> None:
        async with serving(lambda server: server.objects.append(version("chat"))) as server:
            monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(folder)))
            kopf = Kopf()
            task = asyncio.create_task(kopf.run())
            await until(lambda: server.watching == 2, "both watches")
            await test(server, kopf, task)

    running(run)


def test_kopf_wakes_and_writes_nothing_and_stops_in_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, kopf: Kopf, task: asyncio.Task[None]) -> None:
        await until(lambda: kopf.woken == ["chat"], "the listed one")
        server.say("DELETED", version("chat"))
        await until(lambda: "chat" in kopf.woken[1:], "its deletion")
        kopf.stop()
        async with asyncio.timeout(2):
            await task
        assert kopf.stopped
        assert {method for method, _ in server.requests} == {"GET"}

    with_kopf(monkeypatch, tmp_path, test)


@pytest.mark.parametrize(
    ("told", "server"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://[fd00::1]:6443"),
        ({}, "https://kubernetes.default.svc"),
    ],
)
def test_kopf_finds_the_api_server_without_a_resolver(told: dict[str, str], server: str) -> None:
    named = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t")
    found = handlers.by_address(named, told)
    assert (found.server, found.token) == (server, "t")


def test_kopf_lists_again_after_a_410(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def test(server: FakeServer, kopf: Kopf, task: asyncio.Task[None]) -> None:
        await until(lambda: kopf.woken, "the first list")
        server.objects.append(version("embed"))
        server.fail(410)
        server.cut()
        await until(lambda: "embed" in kopf.woken, "the new list")
        kopf.stop()
        await task

    with_kopf(monkeypatch, tmp_path, test)


def test_kopf_ends_for_good_on_another_error_event_so_that_the_process_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def test(server: FakeServer, kopf: Kopf, task: asyncio.Task[None]) -> None:
        await until(lambda: kopf.woken, "the first list")
        server.fail(500)
        with pytest.raises(Exception, match="a test wants it"):
            await task
        assert kopf.stopped

    with_kopf(monkeypatch, tmp_path, test)


def test_an_address_for_metrics_that_is_taken_ends_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (trust := tmp_path / "trust.json").write_bytes(TrustPolicy.of(SigningKey.generate()).to_json())

    async def test(server: FakeServer, api: Kube) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            wanted = Settings(trust=trust, metrics_host="127.0.0.1", metrics_port=port)
            told = rf"^127\.0\.0\.1 port {port} cannot be listened on \(address already in use\)\. Give"
            with pytest.raises(errors.UsageError, match=told):
                await operate(wanted)

    with_client(monkeypatch, tmp_path, test)


def test_a_sigterm_that_comes_as_soon_as_probes_are_served_ends_the_start_with_zero(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (trust := tmp_path / "trust.json").write_bytes(TrustPolicy.of(SigningKey.generate()).to_json())

    @contextlib.asynccontextmanager
    async def served_and_told_to_end(*_: object) -> AsyncIterator[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield

    async def test(server: FakeServer, api: Kube) -> None:
        monkeypatch.setattr("modelparams_operator.shell.run._serving", served_and_told_to_end)
        assert await operate(Settings(trust=trust)) == 0

    unhandled = list[int]()
    before = signal.signal(signal.SIGTERM, lambda number, _: unhandled.append(number))
    try:
        with_client(monkeypatch, tmp_path, test)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert unhandled == []
