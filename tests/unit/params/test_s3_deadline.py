"""A store that drips is as one that is silent: its connection is broken off when its time is up."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from modelparams.api.release import S3Source
from modelparams.errors import StoreError, StoreUnavailable
from modelparams.store import Credentials
from modelparams.store import s3_bodies as bodies_module
from modelparams.store import s3_connection as connection_module
from modelparams.store import s3_deadline as deadline_module
from modelparams.store.s3 import S3Store

SOON, NEVER = 0.3, 30.0
HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\nContent-Range: bytes 0-999/1000\r\n\r\n"
DRIPS = {
    "a header": b"HTTP/1.1 200 OK\r\nX-Drip: ",
    "a refusal": b"HTTP/1.1 503 Slow\r\nContent-Length: 1000\r\n\r\n",
    "a denial": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n",
    "a body": HEAD,
    "a last body": HEAD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
    "a last denial": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n",
}


@contextmanager
def dripping(first: bytes, cut_off: threading.Event, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that sends `first` and then byte by byte for some seconds; the event says that a client broke off."""
    ended = threading.Event()

    def drip(client: socket.socket) -> None:
        with tls.wrap_socket(client, server_side=True) if tls else client as client:
            client.recv(1 << 16)
            try:
                client.sendall(first)
                for _ in range(int(NEVER / 0.02)):
                    client.sendall(b"a")
                    if ended.wait(0.02):
                        return
            except OSError:
                cut_off.set()

    def accept() -> None:
        with socket_closed_quietly(), listener:
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def socket_closed_quietly() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def store_at(port: int, scheme: str = "http") -> S3Store:
    source = S3Source(endpoint=f"{scheme}://127.0.0.1:{port}", bucket="models")
    return S3Store.from_source(source, Credentials("id", "secret"), attempts=1)


ASKS: dict[str, Callable[[S3Store], object]] = {
    "an object": lambda store: store.get("k", limit=1000),
    "a part": lambda store: store.read_into("k", 0, memoryview(bytearray(1000))),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("first", DRIPS.values(), ids=DRIPS)
def test_a_drip_is_broken_off(
    first: bytes,
    ask: Callable[[S3Store], object],
    scheme: str,
    tls: ssl.SSLContext | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", SOON)
    monkeypatch.setattr(bodies_module, "_GRACE_SECONDS", SOON)
    monkeypatch.setattr(bodies_module, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    cut_off = threading.Event()
    with dripping(first, cut_off, tls) as port:
        with pytest.raises(StoreError):
            ask(store_at(port, scheme))
        assert cut_off.wait(NEVER / 2)


def test_a_dripping_head_is_told_as_late_and_not_as_what_had_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", SOON)
    with (
        dripping(DRIPS["a header"], threading.Event()) as port,
        pytest.raises(StoreUnavailable, match="did not answer in time"),
    ):
        store_at(port).size("k")


@pytest.mark.parametrize("first", [b"HTTP/1.1 100 ", b"HTTP/1.1 100 Continue\r\nX-Drip: "], ids=["line", "head"])
def test_a_drip_before_the_body_of_a_write_is_broken_off(
    first: bytes, scheme: str, tls: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", SOON)
    cut_off = threading.Event()
    with dripping(first, cut_off, tls) as port:
        with pytest.raises(StoreUnavailable):
            store_at(port, scheme).put("k", b"data")
        assert cut_off.wait(NEVER / 2)


class Connection:
    """One that a deadline is set for."""

    def __init__(self) -> None:
        self.awaited, self.other = socket.socketpair()

    def is_broken_off(self) -> bool:
        with self.awaited, self.other:
            self.other.settimeout(NEVER / 2)
            return self.other.recv(1) == b""


def test_deadlines_are_met_while_the_collector_takes_connections_away() -> None:
    watch, connections = deadline_module._Watch(), [Connection(), Connection()]
    gone = type("Gone", (), {})()
    watch._due.data[weakref.ref(gone)] = 0.0  # as while it is taken out
    del gone
    for connection in connections:
        watch.set(connection, 0.0)
        assert connection.is_broken_off()


FORKING = """
import os, socket, sys
from modelparams.store.s3_deadline import expect_within

class Connection:
    def __init__(self):
        self.awaited, self.other = socket.socketpair()
        self.awaited.settimeout(10)

def is_broken_off():
    expect_within(connection := Connection(), 0.05)
    return connection.awaited.recv(1) == b""

assert is_broken_off()
if not (child := os.fork()):
    os._exit(0 if is_broken_off() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_was_forked_off_meets_deadlines_too() -> None:
    assert subprocess.run([sys.executable, "-c", FORKING], check=False).returncode == 0
