"""Long answers, of many numbers: in pieces that wait for the client, and counted while they are held for it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from builders.arenas import of_directory
from builders.classifiers import MODEL, classifier
from builders.engines import engine, put_live, until
from modelparams_serving.engine import bodies
from modelparams_serving.engine.__main__ import Engine
from modelparams_serving.engine.body_budget import Budget
from modelparams_serving.engine.pooling import Pooled

pytestmark = pytest.mark.model
LABELS = {number: f"label {number}" for number in range(400)}
TEXTS = ["good day", "bad day"] * 8
ROOM_FOR_ONE = 4096
"""`max_body_bytes` with which one such answer has room, and not a second one."""
Scene = Callable[[Engine, httpx.AsyncClient], Awaitable[Any]]


def live(directory: Path, scene: Scene, **changes: Any) -> None:
    """Play a scene on an engine that gives 400 numbers a text."""
    labels = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}

    async def whole() -> None:
        async with engine(directory, **changes) as (made, client):
            await put_live(made.swapper, of_directory(classifier(directory / "model", **labels), "1.0.0", model=MODEL))
            await scene(made, client)

    asyncio.run(whole())


@dataclass
class Reader:
    """A client without a wire: takes the head and the first piece of an answer, and the rest when it is told to."""

    made: Engine
    taken: list[bytes] = field(default_factory=list)
    status: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    is_awaited: bool = False
    """Whether the engine has a piece for it after the first."""

    def asks(self) -> asyncio.Task[None]:
        body = json.dumps({"input": TEXTS}).encode()
        head = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": []}
        sent = [{"type": "http.request", "body": body, "more_body": False}]
        assert self.made._doors.inner is not None

        async def receive() -> dict[str, Any]:
            if not sent:
                await asyncio.Event().wait()
            return sent.pop()

        return asyncio.create_task(self.made._doors.inner(head, receive, self._send))  # type: ignore[arg-type]

    async def takes_a_piece(self) -> None:
        """Take the one that waits, and no other: until the engine has the next."""
        self.is_awaited = False
        self.goes_on.set()
        self.goes_on.clear()
        await until(lambda: self.is_awaited)

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if self.taken:
            self.is_awaited = True
            await self.goes_on.wait()
        self.taken.append(message["body"])


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[Budget]:
    """The engine's budget, once it has one."""
    made = list[Budget]()
    monkeypatch.setattr(bodies, "Budget", lambda most: made.append(Budget(most)) or made[-1])
    return made


def test_a_long_answer_is_the_same_json_as_short_ones(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/classify", json={"input": TEXTS})).json()
        short = await client.post("/classify", json={"input": TEXTS[:2]})
        assert "content-length" in short.headers
        assert list(whole) == list(short.json())
        assert [one["index"] for one in whole["data"]] == list(range(len(TEXTS)))
        for one, same in zip(whole["data"], short.json()["data"] * 8, strict=True):
            assert one["label"] == same["label"]
            assert one["probs"] == pytest.approx(same["probs"], abs=1e-6)

    live(tmp_path, scene)


def test_a_long_answer_waits_for_its_client_in_pieces_and_no_version_waits_with_it(tmp_path: Path) -> None:
    async def scene(made: Engine, _: httpx.AsyncClient) -> None:
        reader = Reader(made)
        asked = reader.asks()
        await until(lambda: bool(reader.taken))
        assert made.swapper.requests == 0
        assert not await made.drain.quiet(lambda: 0, quiet_seconds=0.0, grace_seconds=0.05), (
            "an engine that leaves does"
        )
        reader.goes_on.set()
        await asked
        assert await made.drain.quiet(lambda: 0, quiet_seconds=0.0, grace_seconds=5.0)
        assert max(map(len, reader.taken)) < 1 << 15
        assert len(json.loads(b"".join(reader.taken))["data"]) == len(TEXTS)

    live(tmp_path, scene)


def test_an_answer_counts_until_it_is_taken_and_one_without_room_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budgets: list[Budget]
) -> None:
    monkeypatch.setattr(bodies, "monotonic", lambda: 0.0)

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        first, second = Reader(made), Reader(made)
        asked = first.asks()
        await until(lambda: bool(first.taken))
        refused = await client.post("/classify", json={"input": TEXTS})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "overloaded"
        assert (await client.post("/classify", json={"input": TEXTS[:2]})).status_code == 200
        first.goes_on.set()
        await asked
        assert budgets[0].left == 32 * ROOM_FOR_ONE
        second.goes_on.set()
        await second.asks()
        assert second.status == 200

    live(tmp_path, scene, max_body_bytes=ROOM_FOR_ONE)


def test_who_takes_nothing_of_a_long_answer_is_left(tmp_path: Path, budgets: list[Budget]) -> None:
    async def scene(made: Engine, _: httpx.AsyncClient) -> None:
        async with asyncio.timeout(60):
            await Reader(made).asks()
        assert budgets[0].left == 32 * ROOM_FOR_ONE

    live(tmp_path, scene, max_body_bytes=ROOM_FOR_ONE, stalled_seconds=0.05)


def test_who_takes_it_slowly_gives_way_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene(made: Engine, _: httpx.AsyncClient) -> None:
        nonlocal now
        slow, second = Reader(made), Reader(made)
        left = slow.asks()
        await until(lambda: slow.is_awaited)
        now = 25.0  # of the 30 seconds in which all of it should be taken
        second.goes_on.set()
        await second.asks()
        assert (second.status, len(json.loads(b"".join(second.taken))["data"])) == (200, len(TEXTS))
        await left
        assert len(slow.taken) == 1

    live(tmp_path, scene, max_body_bytes=ROOM_FOR_ONE)


def test_who_waits_for_the_engine_and_not_the_engine_for_him_gives_way_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy engine all answers are slow: each newcomer would have another one cut in its midst."""
    now, goes_on, piece = 0.0, threading.Event(), Pooled._piece
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    def slowly(self: Pooled, start: int, count: int) -> bytes:
        if start:
            goes_on.wait(60)
        return piece(self, start, count)

    monkeypatch.setattr(Pooled, "_piece", slowly)

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        nonlocal now
        honest = Reader(made)
        honest.goes_on.set()
        asked = honest.asks()
        await until(lambda: bool(honest.taken))
        now = 25.0  # as in the test above, and it is not the client's doing
        refused = await client.post("/classify", json={"input": TEXTS})
        assert refused.status_code == 503
        goes_on.set()
        await asked
        assert len(json.loads(b"".join(honest.taken))["data"]) == len(TEXTS)

    live(tmp_path, scene, max_body_bytes=ROOM_FOR_ONE)


def test_who_took_one_piece_slowly_is_behind_also_while_he_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who takes a piece now and then would keep his room for as many times 30 seconds as there are pieces."""
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene(made: Engine, _: httpx.AsyncClient) -> None:
        nonlocal now
        slow, second = Reader(made), Reader(made)
        left = slow.asks()
        await until(lambda: slow.is_awaited)
        now = 25.0
        await slow.takes_a_piece()
        await slow.takes_a_piece()
        second.goes_on.set()
        await second.asks()
        assert second.status == 200
        await left
        assert len(slow.taken) == 3

    live(tmp_path, scene, max_body_bytes=ROOM_FOR_ONE)


def test_who_takes_an_answer_faster_than_he_has_to_gives_way_to_nobody_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(bodies, "monotonic", lambda: now)

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        nonlocal now
        honest = Reader(made)
        asked = honest.asks()
        await until(lambda: honest.is_awaited)
        now = 2.0  # and three of the 16 pieces may take six
        await honest.takes_a_piece()
        await honest.takes_a_piece()
        assert (await client.post("/classify", json={"input": TEXTS})).status_code == 503
        honest.goes_on.set()
        await asked
        assert len(json.loads(b"".join(honest.taken))["data"]) == len(TEXTS)

    live(tmp_path, scene, max_body_bytes=ROOM_FOR_ONE)


def test_an_answer_for_which_there_is_never_room_is_refused_for_good(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        refused = await client.post("/classify", json={"input": TEXTS})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
        assert "ask for fewer texts" in refused.json()["error"]["message"]

    live(tmp_path, scene, max_body_bytes=2048)
