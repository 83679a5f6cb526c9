"""A store that answers anything at all: it is unavailable, in our own words, and fills nobody's memory."""

from __future__ import annotations

import gc
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from botocore import parsers

from modelparams.api.release import S3Source
from modelparams.errors import IntegrityError, StoreError, StoreUnavailable
from modelparams.store import Credentials
from modelparams.store import s3 as s3_module
from modelparams.store.s3 import S3Store
from modelparams.store.s3_answers import ERROR_LIMIT, LIST_LIMIT

# Where reading an answer fails, nobody is left to close its connection but the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
BLOCK = 1 << 20
ASKS: dict[str, Callable[[S3Store], object]] = {
    "an object": lambda store: store.get("k", limit=1000),
    "a part": lambda store: store.read_into("k", 0, memoryview(bytearray(64))),
    "a size": lambda store: store.size("k"),
    "a list": lambda store: list(store.list("versions/")),
}


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    yield
    gc.collect()


class Server:
    """Gives every request the same answer, and then `blocks` of 1 MiB. `sent` counts them."""

    def __init__(self, answer: bytes, blocks: int) -> None:
        self._answer, self._blocks, self.sent = answer, blocks, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError), self._listener:
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            client.recv(1 << 16)
            client.sendall(self._answer)
            for _ in range(self._blocks):
                client.sendall(b"x" * BLOCK)
                self.sent += 1


@contextmanager
def serving(answer: bytes, *, blocks: int = 0) -> Iterator[tuple[S3Store, Server]]:
    server = Server(answer, blocks)
    source = S3Source(endpoint=f"http://127.0.0.1:{server.port}", bucket="models")
    try:
        yield S3Store.from_source(source, Credentials("id", "secret"), attempts=1), server
    finally:
        server.close()


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("status", [200, 403, 404, 500, 503])
def test_an_endless_answer_is_not_read_to_its_end(status: int, ask: Callable[[S3Store], object]) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
    with serving(head, blocks=256) as (store, server), suppress(StoreError, IntegrityError):
        ask(store)
    assert server.sent * BLOCK <= 2 * LIST_LIMIT + (16 << 20)  # what is on the way beside what was read, twice asked


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_of_many_elements_is_not_parsed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers.RestXMLParser, "parse", never)
    body = b"<Error>" + b"<a/>" * (ERROR_LIMIT // 4) + b"</Error>"
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(head + body) as (store, _), pytest.raises(StoreUnavailable, match="longer than"):
        store.get("k", limit=1000)


def never(*_: object, **__: object) -> None:
    raise AssertionError("it was parsed")


def length(value: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: " + value + b"\r\n\r\nxxxxx"


def listing(inner: bytes, *, before: bytes = b"") -> bytes:
    body = before + b"<ListBucketResult>" + inner + b"</ListBucketResult>"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def error(status: int, inner: bytes) -> bytes:
    body = b"<Error>" + inner + b"</Error>"
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


@pytest.mark.parametrize("code", [b"A" * 60_000, b"a\nb", "a\u202eb".encode(), b"a b"])
def test_a_code_that_is_none_is_not_repeated(code: bytes) -> None:
    with serving(error(500, b"<Code>" + code + b"</Code>")) as (store, _), pytest.raises(StoreUnavailable) as refused:
        store.get("k", limit=1000)
    assert "the store answered no code of S3 (500)" in str(refused.value)
    assert len(str(refused.value)) < 300


ENDLESS_NUMBER = b"9" * 5000


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_condition_that_nobody_made_is_a_store_s_error(ask: Callable[[S3Store], object]) -> None:
    with serving(error(412, b"<Code>PreconditionFailed</Code>")) as (store, _), pytest.raises(StoreError):
        ask(store)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        pytest.param("an object", length(b"-5"), id="a-negative-length"),
        pytest.param("a size", length(b"-5"), id="a-negative-size"),
        pytest.param("an object", length(b"abc"), id="a-length-that-is-none"),
        pytest.param("a size", length(b"abc"), id="a-size-that-is-none"),
        pytest.param("an object", length(ENDLESS_NUMBER), id="a-length-of-5000-digits"),
        pytest.param("a size", length(ENDLESS_NUMBER), id="a-size-of-5000-digits"),
        pytest.param(
            "a part",
            b"HTTP/1.1 206 OK\r\nContent-Length: 64\r\nContent-Range: bytes 0-63/" + ENDLESS_NUMBER + b"\r\n\r\n",
            id="a-range-of-5000-digits",
        ),
        pytest.param(
            "an object", b"HTTP/1.1 307 M\r\nContent-Length: 0\r\nLocation: http://[::1]:1/\r\n\r\n", id="a-circle"
        ),
        pytest.param("a size", length(b"5\r\nLast-Modified: 99999999999999999999"), id="a-time-that-is-none"),
        pytest.param("an object", error(404, b"<Code>a</Code><Code>b</Code>"), id="an-error-with-two-codes"),
        pytest.param("an object", error(500, b"<Code><b/></Code>"), id="an-error-with-a-code-that-is-none"),
        pytest.param("an object", error(500, b"x</Error><Error>y"), id="two-errors"),
        pytest.param("an object", b"\x00\xff\x00garbage\r\n\r\n", id="no-http"),
        pytest.param("a list", listing(b"<IsTruncated>true</IsTruncated>"), id="a-list-that-goes-on-nowhere"),
        pytest.param("a list", listing(b""), id="a-list-that-does-not-say-whether-it-goes-on"),
        pytest.param("a list", length(b"0"), id="a-list-of-no-bytes"),
        pytest.param(
            "a list", listing(b"", before=b'<!DOCTYPE a [<!ENTITY x "y">]>'), id="a-list-that-defines-entities"
        ),
        pytest.param(
            "a list",
            listing(b"", before=b" " * ((64 << 10) - 4) + b'<!DOCTYPE a [<!ENTITY x "y">]>'),
            id="a-list-that-defines-entities-between-two-pieces",
        ),
        pytest.param(
            "a list",
            listing(b"<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>"),
            id="a-list-that-goes-on-for-ever",
        ),
        pytest.param("a list", listing(b"<Contents><Size>abc</Size></Contents>"), id="a-list-with-a-size-that-is-none"),
        *(
            pytest.param("a list", listing(encoded + inner), id=f"a-list-{what}{'-encoded' if encoded else ''}")
            for encoded in (b"", b"<EncodingType>url</EncodingType>")
            for what, inner in {
                "of-something-else": b"<Contents>versions/1.0.0</Contents>",
                "of-nothing": b"<Contents/>",
                "without-a-key": b"<Contents><Size>5</Size></Contents>",
                "with-one-key-that-is-none": b"<Contents><Key>versions/1.0.0</Key></Contents><Contents/>",
                "of-two-keys-in-one": b"<Contents><Key>versions/1</Key><Key>versions/2</Key></Contents>",
                "of-a-key-that-is-no-text": b"<Contents><Key><Key>versions/1.0.0</Key></Key></Contents>",
                "of-what-was-not-asked-for": b"<Contents><Key>keys/e1.json</Key></Contents>",
                "that-goes-on-at-two-places": b"<IsTruncated>true</IsTruncated>"
                + 2 * b"<NextContinuationToken>a</NextContinuationToken>",
            }.items()
        ),
        pytest.param("a list", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="a-list-that-is-none"),
    ],
)
def test_an_answer_that_is_none_is_unavailable_in_our_own_words(ask: str, answer: bytes) -> None:
    with serving(answer) as (store, _), pytest.raises(StoreUnavailable) as refused:
        ASKS[ask](store)
    assert "models" in str(refused.value)
    assert b"9999" not in str(refused.value).encode()


def test_a_list_that_is_too_long_is_told_as_such() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
    with serving(head, blocks=256) as (store, _), pytest.raises(StoreUnavailable, match="longer than"):
        list(store.list("versions/"))


@pytest.mark.parametrize("kind", [AssertionError, EOFError, zlib.error])
def test_no_error_of_another_package_comes_out_of_a_store(kind: type[Exception]) -> None:
    with pytest.raises(StoreUnavailable, match=rf"the request failed \({kind.__name__}\)"):
        trying(kind)


def test_memory_that_is_short_here_is_no_fault_of_the_store() -> None:
    with pytest.raises(MemoryError):
        trying(MemoryError)


def trying(kind: type[Exception]) -> None:
    def fail(_: str) -> None:
        raise kind("http://s3/x?token=hunter2")

    source = S3Source(endpoint="http://127.0.0.1:1", bucket="models")
    S3Store.from_source(source, Credentials("id", "secret"), attempts=1).tried("k", fail)


def test_many_parts_that_were_not_begun_are_a_store_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_SINGLE_PUT", 0)
    begun = b"<InitiateMultipartUploadResult/>"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(begun) + begun
    with serving(answer) as (store, _), pytest.raises(StoreUnavailable):
        store.put_new("k", b"data")


def test_what_ended_a_write_is_told_and_not_what_its_clearing_away_met(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise EOFError

    monkeypatch.setattr(s3_module, "_SINGLE_PUT", 0)
    with serving(error(503, b"<Code>SlowDown</Code>")) as (store, _):
        monkeypatch.setattr(store._client, "create_multipart_upload", lambda **_: {"UploadId": "id"})
        monkeypatch.setattr(store._client, "abort_multipart_upload", fail)
        with pytest.raises(StoreUnavailable, match="SlowDown"):
            store.put_new("k", b"data")
