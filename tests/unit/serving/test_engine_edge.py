"""What clients do to an engine's port that no client should: slow, endless, many, and made of nothing but brackets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from builders.arenas import SAMPLES, tiny
from builders.engines import engine, put_live, settings, until
from modelparams.assets import parse_assets
from modelparams_serving.engine import bodies, http
from modelparams_serving.engine.__main__ import Engine
from modelparams_serving.engine.assets import Tokenizer
from modelparams_serving.engine.bodies import _counted
from modelparams_serving.engine.body_budget import Budget
from modelparams_serving.engine.jobs import Job
from modelparams_serving.engine.openai_requests import ChatRequest
from modelparams_serving.engine.refusals import Refused

pytestmark = pytest.mark.model
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASKED = {"prompt": "hello", "temperature": 0, "max_tokens": 2}
HEAD = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\n"
Scene = Callable[[Engine, httpx.AsyncClient], Awaitable[Any]]
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def live(directory: Path, scene: Scene, **changes: Any) -> None:
    """Play a scene on an engine that serves tiny-llama 1.0.0, whose context is 256 tokens."""

    async def whole() -> None:
        async with engine(directory, **changes) as (made, client):
            await put_live(made.swapper, tiny())
            await scene(made, client)

    asyncio.run(whole())


@contextlib.asynccontextmanager
async def wire(client: httpx.AsyncClient, sent: str) -> AsyncIterator[Wire]:
    """A connection on which something was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(sent.encode())
    try:
        yield reader, writer
    finally:
        writer.close()


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str, str]:
    """Status, head and error code of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    return int(head.split()[1]), head, json.loads(await reader.readexactly(length))["error"]["code"]


@pytest.mark.parametrize("body", ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
def test_a_body_that_does_not_end_is_left_with_an_answer(tmp_path: Path, body: str) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        async with wire(client, HEAD + body) as (reader, _):
            status, head, code = await refusal(reader)
            assert (status, code) == (408, "request_timeout")
            assert "connection: close" in head
            assert await reader.read() == b""
        assert made.swapper.requests == 0

    live(tmp_path, scene, stalled_seconds=0.2)


def test_a_body_that_says_it_is_too_long_is_refused_before_any_of_it_comes(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with wire(client, HEAD + "Content-Length: 1001\r\n\r\n") as (reader, _writer):
            status, _head, code = await refusal(reader)
            assert (status, code) == (413, "too_large")

    live(tmp_path, scene, max_body_bytes=1000)


def test_an_engine_that_is_full_says_so_before_it_reads_a_body(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        with made.swapper.lease():
            async with wire(client, HEAD + "Content-Length: 100\r\n\r\n") as (reader, _):
                status, _, code = await refusal(reader)
                assert (status, code) == (503, "overloaded")

    live(tmp_path, scene, max_requests=1)


@contextlib.asynccontextmanager
async def coming(client: httpx.AsyncClient, sent: str, size: int) -> AsyncIterator[Wire]:
    """A body of `size` bytes of which the engine reads on, and has `sent`."""
    async with wire(client, f"{HEAD}Expect: 100-continue\r\nContent-Length: {size}\r\n\r\n") as (reader, writer):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(sent.encode())
        yield reader, writer


def test_no_more_bodies_come_at_once_than_requests_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "monotonic", lambda: 0.0)

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        body = json.dumps(ASKED)
        async with coming(client, "", len(body)) as (reader, writer):
            async with wire(client, HEAD + "Content-Length: 100\r\n\r\n{") as (refused, _):
                status, _, code = await refusal(refused)
                assert (status, code) == (503, "overloaded")
            writer.write(body.encode())
            assert b"200 OK" in await reader.readline()
        await until(lambda: made.swapper.requests == 0)
        assert (await client.post(COMPLETIONS, json=ASKED)).status_code == 200

    live(tmp_path, scene, max_requests=1)


def test_however_many_send_a_byte_now_and_then_who_has_sent_all_of_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "monotonic", lambda: 0.0)
    body = json.dumps(ASKED)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with contextlib.AsyncExitStack() as slow:
            for _ in range(8):
                await slow.enter_async_context(coming(client, "{", 100))
            for _ in range(3):
                async with wire(client, f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}") as (reader, _):
                    assert b"200 OK" in await reader.readline()

    live(tmp_path, scene, max_requests=8)


def test_and_who_sends_at_a_humane_pace_takes_the_place_of_the_slowest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)
    long = json.dumps(ASKED) + " " * 50_000

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        nonlocal now
        async with coming(client, "{", 100) as (slowest, _):
            now = 1.0
            async with coming(client, long[:40_000], len(long)) as (good, rest):
                now = 5.0
                async with coming(client, long, len(long)) as (newcomer, _):
                    assert b"200 OK" in await newcomer.readline()
                status, head, code = await refusal(slowest)
                assert (status, code) == (408, "request_timeout")
                assert "connection: close" in head
                rest.write(long[40_000:].encode())
                assert b"200 OK" in await good.readline()

    live(tmp_path, scene, max_requests=2)


@dataclass
class Sender:
    """One whose body a test sends by hand, to readers without a wire."""

    announced: int | None = None
    sent: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    def send(self, piece: bytes, *, more: bool) -> None:
        self.sent.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def read_by(self, readers: bodies.Bodies) -> asyncio.Task[bytes]:
        head = [] if self.announced is None else [(b"content-length", str(self.announced).encode())]
        request = Request({"type": "http", "method": "POST", "headers": head}, self.sent.get)
        return asyncio.create_task(readers.read(request))

    async def is_read(self) -> None:
        await until(self.sent.empty)


def test_the_slowest_is_who_sent_least_in_its_time_not_who_began_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene() -> None:
        nonlocal now
        readers, first, second, third = bodies.Bodies(settings(tmp_path, max_requests=2)), Sender(), Sender(), Sender()
        steady = first.read_by(readers)
        first.send(b"x" * 40_000, more=True)
        await first.is_read()
        now = 1.0
        slow = second.read_by(readers)
        second.send(b"x", more=True)
        await second.is_read()
        now = 5.0
        newcomer = third.read_by(readers)
        third.send(b"xyz", more=True)
        with pytest.raises(Refused) as left:
            await slow
        assert left.value.status == 408
        for sender in (first, third):
            sender.send(b"", more=False)
        assert (await steady, await newcomer) == (b"x" * 40_000, b"xyz")

    asyncio.run(scene())


def test_one_who_gives_way_makes_room_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene() -> None:
        nonlocal now
        readers, newcomers = bodies.Bodies(settings(tmp_path, max_requests=1)), [Sender(), Sender()]
        slow = Sender().read_by(readers)
        await asyncio.sleep(0)
        now = 5.0
        reading = [newcomer.read_by(readers) for newcomer in newcomers]
        with pytest.raises(Refused) as refused:
            await reading[1]
        assert refused.value.status == 503
        newcomers[0].send(b"x", more=False)
        assert await reading[0] == b"x"
        with pytest.raises(Refused):
            await slow

    asyncio.run(scene())


def test_a_body_that_was_read_or_refused_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    async def scene() -> None:
        readers = bodies.Bodies(settings(tmp_path, max_requests=1, max_body_bytes=4))
        for piece in (b"four", b"fiver", b"four"):
            sender = Sender()
            reading = sender.read_by(readers)
            sender.send(b"", more=True)  # so it has to wait, which takes a place
            await sender.is_read()
            sender.send(piece, more=False)
            if len(piece) > 4:
                with pytest.raises(Refused, match="4 bytes at most"):
                    await reading
            else:
                assert await reading == piece

    asyncio.run(scene())


def test_one_whose_time_is_up_just_then_gives_way_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene() -> None:
        nonlocal now
        readers, newcomer = bodies.Bodies(settings(tmp_path, max_requests=1)), Sender()
        slow = Sender().read_by(readers)
        await asyncio.sleep(0)
        (late,) = readers._moving
        late.deadline.reschedule(0.0)
        reading = newcomer.read_by(readers)  # runs after the deadline has passed, and before `slow` hears of it
        now = 5.0
        newcomer.send(b"x", more=False)
        assert await reading == b"x"
        with pytest.raises(Refused):
            await slow

    asyncio.run(scene())


LONG = 100_000
"""Bytes of a body that counts; 32 of them are all that there is room for."""


@contextlib.asynccontextmanager
async def room_for_none(client: httpx.AsyncClient) -> AsyncIterator[list[Wire]]:
    """Bodies under way that take all the room that there is for long ones."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(coming(client, "{", LONG)) for _ in range(32)]


async def is_told_to_come_back(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = json.loads(await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0])))
    assert head.startswith("http/1.1 503 ")
    assert "retry-after: 1" in head
    assert body["error"]["code"] == "overloaded"
    assert "send it again in a moment, or a shorter one" in body["error"]["message"]


def test_long_bodies_have_so_many_bytes_together_and_one_more_is_told_to_come_back_before_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "monotonic", lambda: 0.0)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with room_for_none(client) as others:
            async with wire(client, f"{HEAD}Content-Length: {LONG}\r\n\r\n") as (reader, _writer):
                await is_told_to_come_back(reader)
            assert (await client.post(COMPLETIONS, json=ASKED)).status_code == 200
            others[0][1].write((" " * (LONG - 1)).encode())
            assert b" 400 " in await others[0][0].readline()  # its end gives its room back
            async with coming(client, "", LONG):
                pass

    live(tmp_path, scene, max_body_bytes=LONG)


def test_a_long_body_without_a_length_counts_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "monotonic", lambda: 0.0)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with room_for_none(client), wire(client, CHUNKED + chunks(" " * LONG, LONG)) as (reader, _writer):
            await is_told_to_come_back(reader)

    live(tmp_path, scene, max_body_bytes=LONG)


def leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def end(writer: asyncio.StreamWriter) -> None:
    writer.write(b" " * (LONG - 1))


@pytest.mark.parametrize(
    ("how", "stalled_seconds"), [(leave, 30.0), (end, 30.0), (lambda _: None, 0.2)], ids=["left", "refused", "timeout"]
)
def test_however_a_long_body_ends_its_room_is_another_s(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[asyncio.StreamWriter], None],
    stalled_seconds: float,
) -> None:
    monkeypatch.setattr(bodies, "monotonic", lambda: 0.0)
    given_back, give_back = list[tuple[int, int]](), Budget.give_back

    def noting(self: Budget, owner: object) -> None:
        taken = self.taken_by(owner)
        give_back(self, owner)
        given_back.append((taken, self.left))

    monkeypatch.setattr(Budget, "give_back", noting)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with coming(client, "{", LONG) as (_reader, writer):
            how(writer)
            await until(lambda: bool(given_back))
        assert given_back == [(LONG, 32 * LONG)]

    live(tmp_path, scene, max_body_bytes=LONG, stalled_seconds=stalled_seconds)


def test_what_a_request_asked_counts_until_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = list[str]()
    whole, give_back = Job.whole, Budget.give_back

    async def answering(self: Job) -> dict[str, Any]:
        answer = await whole(self)
        happened.append("answered")
        return answer

    def noting(self: Budget, owner: object) -> None:
        happened.append(f"{self.taken_by(owner)} bytes given back")
        give_back(self, owner)

    monkeypatch.setattr(Job, "whole", answering)
    monkeypatch.setattr(Budget, "give_back", noting)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        body = json.dumps(ASKED)
        assert (await client.post(COMPLETIONS, content=body + " " * (LONG - len(body)))).status_code == 200
        assert happened == ["answered", f"{LONG} bytes given back"]

    live(tmp_path, scene, max_body_bytes=LONG)


def test_who_announces_much_and_sends_little_gives_way_to_one_who_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene() -> None:
        nonlocal now
        readers = bodies.Bodies(settings(tmp_path, max_body_bytes=30 * LONG, stalled_seconds=30))
        slow = [Sender(30 * LONG) for _ in range(32)]  # at the pace of one that announced nothing
        reading = [sender.read_by(readers) for sender in slow]
        for sender in slow:
            sender.send(b"x" * 8192, more=True)
            await sender.is_read()
        now = 2.0
        newcomer = Sender(LONG)
        newcomer.send(b"x" * LONG, more=False)
        assert await newcomer.read_by(readers) == b"x" * LONG
        left, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        (error,) = (one.exception() for one in left)
        assert isinstance(error, Refused)
        assert error.status == 408
        for one in reading:
            one.cancel()

    asyncio.run(scene())


def test_between_two_long_bodies_everybody_else_has_a_turn(tmp_path: Path) -> None:
    happened = list[str]()

    async def others() -> None:
        while True:
            happened.append("others")
            await asyncio.sleep(0)

    async def scene() -> None:
        readers, stranger = bodies.Bodies(settings(tmp_path)), asyncio.create_task(others())
        body = b" " * LONG
        await asyncio.gather(*(readers.one_by_one(body, lambda: happened.append("body")) for _ in range(5)))
        stranger.cancel()

    asyncio.run(scene())
    assert happened.count("body") == 5
    assert ("body", "body") not in itertools.pairwise(happened)


def test_a_short_body_waits_for_no_long_one(tmp_path: Path) -> None:
    happened = list[str]()

    async def scene() -> None:
        readers = bodies.Bodies(settings(tmp_path))
        long = [readers.one_by_one(b" " * LONG, lambda: happened.append("long")) for _ in range(3)]
        await asyncio.gather(*long, readers.one_by_one(b" ", lambda: happened.append("short")))

    asyncio.run(scene())
    assert happened == ["long", "short", "long", "long"]


@pytest.mark.parametrize("sent", ["", "POST / HTTP/1.1\r\nHost: x\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET"])
def test_a_connection_on_which_no_request_comes_is_closed(tmp_path: Path, sent: str) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with wire(client, sent) as (reader, _), asyncio.timeout(60):
            await reader.read()

    live(tmp_path, scene, stalled_seconds=0.1)


def test_an_endless_body_is_not_read_for_ever_after_its_answer(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with wire(client, HEAD + "Transfer-Encoding: chunked\r\n\r\n") as (_, writer):

            def is_left() -> bool:
                writer.write(b"5\r\nxxxxx\r\n")
                return writer.transport.is_closing()

            await until(is_left)

    live(tmp_path, scene, stalled_seconds=0.1, max_body_bytes=10)


CHUNKED = HEAD + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(body: str, size: int) -> str:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return "".join(f"{len(part):x}\r\n{part}\r\n" for part in parts) + "0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 63])
def test_a_body_in_crumbs_is_left(tmp_path: Path, size: int) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        async with wire(client, CHUNKED + chunks(json.dumps(ASKED) + " " * 100_000, size)) as (reader, _):
            assert b" 400 " in await reader.readline()
            with contextlib.suppress(ConnectionResetError):  # what it had sent and we had not read
                await reader.read()
        assert made.swapper.requests == 0

    live(tmp_path, scene)


@pytest.mark.parametrize(("blanks", "size"), [(0, 1), (100_000, 100)])
def test_a_small_body_may_come_in_crumbs_and_a_large_one_in_pieces(tmp_path: Path, blanks: int, size: int) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        async with wire(client, CHUNKED + chunks(json.dumps(ASKED) + " " * blanks, size)) as (reader, _):
            assert b" 200 " in await reader.readline()

    live(tmp_path, scene)


def test_crumbs_of_a_body_that_nobody_waits_for_end_the_connection_too(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        head = CHUNKED.replace(COMPLETIONS, "/nowhere")
        async with wire(client, head) as (reader, writer), asyncio.timeout(60):
            assert b" 404 " in await reader.readline()
            writer.write(chunks(" " * 1000, 1).encode())
            with contextlib.suppress(ConnectionResetError):
                await reader.read()

    live(tmp_path, scene)


def test_what_comes_is_read_in_pieces_that_hold_the_loop_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, received = list[int](), H11Protocol.data_received

    def noting(self: H11Protocol, data: bytes) -> None:
        read.append(len(data))
        received(self, data)

    monkeypatch.setattr(H11Protocol, "data_received", noting)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        await client.post(COMPLETIONS, content=b" " * 1_000_000)

    live(tmp_path, scene)
    assert sum(read) > 1_000_000
    assert max(read) <= 4096


def test_a_client_that_takes_nothing_of_its_answer_is_left(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def answering(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(16 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})  # waits until the other end takes, or is gone
        left.set()

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        made._doors.inner = answering
        async with wire(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(60):
                await left.wait()

    live(tmp_path, scene, stalled_seconds=0.2)


EMPTY = {"role": "user", "content": ""}


MANY: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETIONS, {"prompt": [1] * 257}, "context_length_exceeded"),
    (COMPLETIONS, {"prompt": [99_999] * 257}, "context_length_exceeded"),
    (COMPLETIONS, {"prompt": [1] * 400_000}, "context_length_exceeded"),
    (CHAT, {"messages": [EMPTY] * 257}, "context_length_exceeded"),
    (CHAT, {"messages": [EMPTY] * 2049}, "invalid_value"),
    (CHAT, {"messages": [EMPTY] * 20_000}, "context_length_exceeded"),
    (CHAT, {"messages": [{**EMPTY, "name": "a" * 20_000}]}, "context_length_exceeded"),
    (CHAT, {"messages": [{**EMPTY, "more": [{"a" * 10_000: ["b" * 10_000]}]}]}, "context_length_exceeded"),
    (CHAT, {"messages": [{}] * 2000}, "invalid_value"),
]


def test_what_is_many_instead_of_long_is_refused_before_tokens_are_made_of_it(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        made.swapper.current.tokenizer.chat = None  # type: ignore[method-assign, assignment]
        for path, body, code in MANY:
            refused = await client.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
            assert refused.json()["error"]["type"] == "invalid_request_error"

    live(tmp_path, scene)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (COMPLETIONS, {"prompt": [1] * 20_000}, "prompt (20000 tokens)"),
        (
            CHAT,
            {"messages": [EMPTY] * 257},
            "the conversation, with the marks around its messages, has 17476 characters",
        ),
    ],
)
def test_what_is_too_many_is_called_what_it_is(tmp_path: Path, path: str, body: dict[str, Any], says: str) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        assert says in (await client.post(path, json=body)).json()["error"]["message"]

    live(tmp_path, scene)


def test_of_many_wrong_messages_the_first_is_told_and_the_others_are_not_looked_at() -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate_json(json.dumps({"messages": [{}] * 2000}))
    assert {error["loc"][:2] for error in refused.value.errors()} == {("messages", 0)}


def test_no_objects_are_made_of_a_body_that_is_nothing_but_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "parsed", None)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        lists = ['{"prompt": "a", "x": [' + one * 150_000 + "0]}" for one in ("[],", "{},", '"",', "1,")]
        keys = '{"prompt": "a", "x": {' + '"a":0,' * 40_000 + '"b":0}}'
        for body in (*lists, keys):
            refused = await client.post(COMPLETIONS, content=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")

    live(tmp_path, scene)


VALUES = st.recursive(
    st.none() | st.integers() | st.text('a,[{"\\é\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a,:[{"\\'), inner),
)


def counted(value: Any) -> tuple[int, int, int]:
    """Lists and objects, keys, commas: counted the long way."""
    if not isinstance(value, list | dict):
        return 0, 0, 0
    inner = [counted(one) for one in (value.values() if isinstance(value, dict) else value)]
    own = 1, len(value) if isinstance(value, dict) else 0, max(0, len(value) - 1)
    lists, keys, commas = (sum(column) for column in zip(own, *inner, strict=True))
    return lists, keys, commas


@given(VALUES, st.booleans())
def test_brackets_and_commas_in_texts_are_no_values(value: Any, ascii_only: bool) -> None:
    lists, keys, commas = counted(value)
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert _counted(body, 10_000) == (lists + keys, lists + commas)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    files = {path.name: path.read_bytes() for path in (SAMPLES / "v1.0.0").glob("*.json")}
    return Tokenizer(parse_assets(files))


@pytest.mark.parametrize("most", [1, 5, 100])
@pytest.mark.parametrize("text", ["a b " * 20_000, " " * 80_000, "a" * 80_000, "é, " * 3, ""])
def test_the_start_of_a_text_is_that_of_the_whole(tokenizer: Tokenizer, text: str, most: int) -> None:
    assert tokenizer.encode_start(text, most) == tokenizer.encode(text, special=True)[:most]


def test_no_more_of_a_text_is_read_than_its_start_needs(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    read, encoding = list[int](), Tokenizer._encoding

    def noting(self: Tokenizer, text: str, *, special: bool) -> Any:
        read.append(len(text))
        return encoding(self, text, special=special)

    monkeypatch.setattr(Tokenizer, "_encoding", noting)
    tokenizer.encode_start("a b " * 500_000, 100)
    assert max(read) < 20_000
