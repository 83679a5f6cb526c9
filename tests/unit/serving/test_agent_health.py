"""The agent's sign of life."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import httpx
import pytest

from modelparams.errors import UsageError
from modelparams_serving.agent import metrics
from modelparams_serving.agent.health import Pulse, beat, serve


class Clock:
    """Stands until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulses(clock: Clock) -> tuple[Pulse, Pulse]:
    return Pulse(clock), Pulse(clock)


@pytest.fixture
def server(pulses: tuple[Pulse, Pulse]) -> Iterator[ThreadingHTTPServer]:
    made = serve("127.0.0.1", 0, pulses, 60.0)
    yield made
    made.shutdown()
    made.server_close()


def asked(server: ThreadingHTTPServer, path: str = "/healthz") -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{server.server_port}{path}")
    return answer.status_code, answer.text


def test_a_client_that_leaves_in_the_midst_makes_no_lines_that_are_no_json(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", gone)
    with pytest.raises(httpx.RemoteProtocolError):
        asked(server)  # the server closes the connection only after it has said what it has to say
    assert capfd.readouterr() == ("", "")


def test_a_probe_is_answered_however_many_clients_sit_idle(server: ThreadingHTTPServer) -> None:
    address, before = ("127.0.0.1", server.server_port), threading.active_count()
    idle = [socket.create_connection(address) for _ in range(100)]
    try:
        assert asked(server) == (200, "ok\n")
        assert threading.active_count() <= before + 40, "one of each that is held, and a few that are ending"
        assert idle[0].recv(1) == b"", "the oldest gave way"
    finally:
        for client in idle:
            client.close()


@pytest.mark.parametrize(
    ("first", "second", "status"), [(100, 100, 200), (100, 39, 503), (39, 100, 503), (41, 41, 200)]
)
def test_it_is_well_while_no_loop_is_late_by_more_than_it_may(
    server: ThreadingHTTPServer, pulses: tuple[Pulse, Pulse], clock: Clock, first: int, second: int, status: int
) -> None:
    pulses[0].next_within(first)
    pulses[1].next_within(second)
    clock.now = 100.0
    assert asked(server)[0] == status


def test_it_is_well_again_when_the_loop_moves(
    server: ThreadingHTTPServer, pulses: tuple[Pulse, Pulse], clock: Clock
) -> None:
    clock.now = 61.0
    assert asked(server) == (503, "the agent's loop is 61 s late\n")
    for pulse in pulses:
        pulse.next_within(1)
    assert asked(server) == (200, "ok\n")
    assert asked(server, "/other")[0] == 404


def test_an_event_loop_shows_that_it_goes_on(clock: Clock) -> None:
    pulse = Pulse(clock)
    clock.now = 50.0

    async def scene() -> None:
        task = asyncio.create_task(beat(pulse))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(scene())
    assert pulse.late() == -1.0


def test_a_port_that_is_taken_is_named(pulses: tuple[Pulse, Pulse]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be listened on"):
            serve("127.0.0.1", port, pulses, 60.0)


def test_a_port_for_metrics_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} for metrics cannot be listened on"):
            metrics.serve(port)
