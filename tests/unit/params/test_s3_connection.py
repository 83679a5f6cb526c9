"""A store that does not keep to HTTP: no head fills memory, and no answer passes for another request's."""

from __future__ import annotations

import gc
import io
import itertools
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from modelparams.api.release import S3Source
from modelparams.errors import StoreUnavailable
from modelparams.store import Credentials
from modelparams.store import s3_connection as connection_module
from modelparams.store.s3 import S3Store
from modelparams.store.s3_answers import HEAD_LIMIT
from modelparams.store.s3_deadline import break_off

# Where reading an answer fails, nobody is left to close its connection but the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")

Tls = ssl.SSLContext | None
LINE = b"X-Filler: " + b"x" * 65_000 + b"\r\n"
CONTINUE, HINTS = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
ENDLESS = {"long lines": LINE, "lines": b"X: " + b"y" * 995 + b"\r\n", "no end of a line": b"x" * 1000}
ENDLESS_HEADS = {
    **{what: (b"HTTP/1.1 200 OK\r\n", piece) for what, piece in ENDLESS.items()},
    **{f"{what} of an interim head": (b"HTTP/1.1 100 Continue\r\n", piece) for what, piece in ENDLESS.items()},
    "interim heads": (b"", CONTINUE),
    "other interim heads": (b"", HINTS),
}
ON_THE_WAY = 16 << 20
"""What a socket's buffers may hold beside what was read."""


class Server:
    """Answers request after request on each connection by `answer`, which is given the connection and the number."""

    def __init__(self, answer: Callable[[socket.socket, int], None], tls: Tls) -> None:
        self._answer, self._tls, self.connections = answer, tls, 0
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError), self._listener:
            while True:
                client = self._listener.accept()[0]
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), self._tls.wrap_socket(client, server_side=True) if self._tls else client as client:
            for number in itertools.count():
                if not (head := read_to(client, b"\r\n\r\n")):
                    return
                self.heads.append(head)
                self._answer(client, number)


def read_to(client: socket.socket, end: bytes) -> bytes:
    """What a request says up to there; empty when nothing comes."""
    read = b""
    while not read.endswith(end):
        if not (byte := client.recv(1)):
            return b""
        read += byte
    return read


@contextmanager
def serving(answer: Callable[[socket.socket, int], None], tls: Tls = None) -> Iterator[tuple[S3Store, Server]]:
    server = Server(answer, tls)
    source = S3Source(endpoint=f"{'https' if tls else 'http'}://127.0.0.1:{server.port}", bucket="models")
    try:
        yield S3Store.from_source(source, Credentials("id", "secret"), attempts=1), server
    finally:
        server.close()


def ok(body: bytes, *more: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *more, b"", body]
    return b"\r\n".join(lines)


def part(body: bytes) -> bytes:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes 0-%d/%d\r\n\r\n"
    return head % (len(body), len(body) - 1, len(body)) + body


@pytest.mark.parametrize("scheme", ["https"], indirect=True)
def test_a_certificate_that_nobody_trusts_is_named_with_the_way_to_trust_it(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with serving(lambda *_: None, tls) as (store, _):
        store._attempts = 2  # the second try's error has the first one's about it
        with pytest.raises(StoreUnavailable, match=r"is not trusted \(.+\)\. Name the file of its CA by AWS_CA"):
            store.get("k", limit=100)


# --- heads ----------------------------------------------------------------------------------------------------------

ASKS: dict[str, Callable[[S3Store], object]] = {
    "an object": lambda store: store.get("k", limit=1000),
    "a part": lambda store: store.read_into("k", 0, memoryview(bytearray(64))),
    "a size": lambda store: store.size("k"),
    "a list": lambda store: list(store.list("versions/")),
    "a write": lambda store: store.put("k", b"data"),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_an_answer_that_ends_within_its_head_is_none(ask: Callable[[S3Store], object], tls: Tls) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
    left = iter((15, 17, len(head) - 5, len(head) - 4, len(head) - 2))

    def answer(client: socket.socket, _: int) -> None:
        client.sendall(head[: next(left)])
        raise OSError("the connection ends")

    with serving(answer, tls) as (store, _):
        for _ in range(5):
            with pytest.raises(StoreUnavailable, match=r"ended early|closed the connection"):
                ask(store)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize(("first", "piece"), ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
def test_an_endless_head_is_not_read_to_its_end(
    first: bytes, piece: bytes, ask: Callable[[S3Store], object], tls: Tls
) -> None:
    sent: list[int] = []
    block = piece * ((64 << 10) // len(piece) + 1)

    def answer(client: socket.socket, _: int) -> None:
        client.sendall(first)
        for _ in range(4 * ON_THE_WAY // len(block)):
            client.sendall(block)
            sent.append(len(block))

    with serving(answer, tls) as (store, _), pytest.raises(StoreUnavailable, match="longer than one of a store can be"):
        ask(store)
    assert sum(sent) <= ON_THE_WAY


def test_a_head_of_many_long_lines_is_refused_as_a_whole(tls: Tls) -> None:
    with (
        serving(lambda client, _: client.sendall(ok(b"data", *[LINE[:-2]] * 95)), tls) as (store, _),
        pytest.raises(StoreUnavailable, match="longer than one of a store can be"),
    ):
        store.get("k", limit=1000)


def test_a_long_head_that_keeps_to_the_limit_is_read(tls: Tls) -> None:
    line = b"X-Filler: " + b"x" * (HEAD_LIMIT - 100)
    with serving(lambda client, _: client.sendall(CONTINUE + ok(b"data", line[:-50])), tls) as (store, _):
        assert store.get("k", limit=1000) == b"data"


@pytest.mark.parametrize("interim", [CONTINUE, HINTS, HINTS + CONTINUE + HINTS], ids=["100", "103", "several"])
def test_interim_answers_are_passed_over(interim: bytes, tls: Tls) -> None:
    with serving(lambda client, _: client.sendall(interim + part(b"data")), tls) as (store, server):
        into = memoryview(bytearray(4))
        assert [store.read_into("k", 0, into) for _ in range(3)] == [4, 4, 4]
        assert bytes(into) == b"data"
    assert server.connections == 1


@pytest.mark.parametrize("interim", [CONTINUE, HINTS, HINTS + CONTINUE + HINTS], ids=["100", "103", "several"])
def test_a_write_is_answered_after_interim_answers(interim: bytes, tls: Tls) -> None:
    def answer(client: socket.socket, _: int) -> None:
        client.sendall(interim)
        bodies.append(read_to(client, b"\r\n0\r\n\r\n" if b"chunked" in server.heads[-1] else b"data"))
        client.sendall(ok(b""))

    bodies: list[bytes] = []
    with serving(answer, tls) as (store, server):
        for _ in range(3):
            store.put("k", b"data")
    assert [b"data" in body for body in bodies] == [True] * 3
    assert server.connections == 1


def test_a_write_that_is_refused_at_once_sends_no_body() -> None:
    refused = ok(b"<Error><Code>PreconditionFailed</Code></Error>").replace(b"200 OK", b"412 Precondition Failed")
    asked: list[int] = []

    def answer(client: socket.socket, number: int) -> None:
        asked.append(number)
        client.sendall(refused)

    with serving(answer) as (store, _):
        assert [store.put_new("k", io.BytesIO(b"data")) for _ in range(2)] == [False, False]
    assert asked == [0, 1]


@pytest.mark.parametrize("scheme", ["https"], indirect=True)
def test_a_server_that_never_says_continue_is_sent_the_body(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(client: socket.socket, _: int) -> None:
        bodies.append(read_to(client, b"\r\n0\r\n\r\n"))
        client.sendall(ok(b""))

    bodies: list[bytes] = []
    monkeypatch.setattr(connection_module, "_INVITATION_SECONDS", 0.05)
    with serving(answer, tls) as (store, _):
        store.put("k", b"data")  # the first of a connection, where TLS has something to read that is no answer
    assert b"data" in bodies[0]


def test_a_server_that_goes_away_when_the_body_is_due_is_unavailable(tls: Tls) -> None:
    def answer(client: socket.socket, _: int) -> None:
        client.sendall(b"HTTP/1.1 100 Continue\r\n")
        client.shutdown(socket.SHUT_RDWR)

    with serving(answer, tls) as (store, _), pytest.raises(StoreUnavailable):
        store.put("k", b"data")


# --- lengths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [ASKS["an object"], ASKS["a part"], ASKS["a size"]], ids=["object", "part", "size"])
@pytest.mark.parametrize("lengths", [(b"4", b"64"), (b"64", b"4"), (b"64, 4",), (b"64", b"x"), (b"64", b"")])
def test_of_two_lengths_none_is_believed(
    lengths: tuple[bytes, ...], ask: Callable[[S3Store], object], tls: Tls
) -> None:
    told = b"".join(b"Content-Length: %s\r\n" % length for length in lengths)
    for first in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-63/64\r\n"):
        answered = first + told + b"\r\n" + b"x" * 64
        with (
            serving(lambda client, _: client.sendall(answered), tls) as (store, _),  # noqa: B023
            pytest.raises(StoreUnavailable),
        ):
            ask(store)


@pytest.mark.parametrize("ask", [ASKS["an object"], ASKS["a size"]], ids=["object", "size"])
def test_a_length_is_not_believed_of_a_body_in_chunks(ask: Callable[[S3Store], object], tls: Tls) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    with (
        serving(lambda client, _: client.sendall(head + b"8\r\nlongdata\r\n0\r\n\r\n"), tls) as (store, _),
        pytest.raises(StoreUnavailable, match="does not say how long it is"),
    ):
        ask(store)


# --- kept connections -----------------------------------------------------------------------------------------------

BODY, STALE = b"b" * 9000, ok(b"s" * 1000)  # one record of TLS
ALL = 1 << 20


@pytest.mark.parametrize("cut", [len(ok(BODY)) - len(BODY), len(ok(BODY)) + 20, ALL], ids=["head", "second", "none"])
def test_a_second_answer_is_not_taken_for_the_next_request_s(cut: int, tls: Tls) -> None:
    def answer(client: socket.socket, number: int) -> None:
        both = ok(BODY) if number else ok(BODY) + STALE
        client.sendall(both[:cut])  # with what ends the first, something of the second comes
        client.sendall(both[cut:])

    with serving(answer, tls) as (store, _):
        assert [store.get("k", limit=9000) for _ in range(4)] == [BODY] * 4


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_what_follows_an_answer_without_body_is_not_taken_for_the_next(body: bytes, tls: Tls) -> None:
    def answer(client: socket.socket, _: int) -> None:
        client.sendall(ok(body) + STALE if server.heads[-1].startswith(b"HEAD") else ok(BODY))

    with serving(answer, tls) as (store, server):
        for _ in range(2):
            assert store.size("k") == len(body)
            assert store.get("k", limit=9000) == BODY


def test_a_connection_whose_answer_goes_on_serves_no_other_request(tls: Tls) -> None:
    head = b"HTTP/1.1 206 OK\r\nContent-Length: 9000\r\nContent-Range: bytes 0-3/9000\r\n\r\n"
    pieces = [head + BODY[:4], BODY[4:] + part(b"late")]

    with serving(lambda client, number: client.sendall(pieces[number]), tls) as (store, server):
        for _ in range(3):
            store.read_into("k", 0, memoryview(bytearray(4)))
    assert server.connections == 3


def test_a_connection_in_step_is_kept(tls: Tls) -> None:
    with serving(lambda client, _: client.sendall(ok(BODY)), tls) as (store, server):
        for _ in range(5):
            store.get("k", limit=9000)
    assert server.connections == 1


def test_a_connection_through_two_layers_of_tls_is_broken_off_as_well() -> None:
    class Layered:  # as urllib3's, which is no socket
        def __init__(self, sock: socket.socket) -> None:
            self.socket = sock

    ours, theirs = socket.socketpair()
    with ours, theirs:
        break_off(Layered(ours))
        assert theirs.recv(1) == b""


def test_a_connection_that_an_error_left_behind_is_closed_with_the_error() -> None:
    def behind(store: S3Store) -> int:
        body, _ = store.open_part("k", "k", 0, 64)
        left: list[object] = [body]
        left.append(left)  # as an error, its traceback and its frames hold each other
        return int(body._raw_stream.connection.sock.fileno())

    with serving(lambda client, _: client.sendall(part(b"x" * 64))) as (store, _):
        number = behind(store)
        assert os.fstat(number)
        gc.collect()  # the collector in no order of its own: a socket before what would close it is told of as a leak
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
