"""The agent's end of the socket: each thing that can be on the other end."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.agent_pod import POD_UID, digest_of, order
from builders.fake_engine import FakeEngine
from modelparams import errors
from modelparams.protocol import SOCKET_NAME, Commit, GetState, Reserve
from modelparams_serving.agent.engine_client import EngineClient, is_loss
from modelparams_serving.agent.memory import Memory
from modelparams_serving.agent.report import report

Json = dict[str, Any]


def talk(directory: Path, talking: Callable[[EngineClient, FakeEngine], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = FakeEngine(directory)
        await engine.start()
        async with EngineClient(directory) as client:
            await talking(client, engine)
        engine.kill()
        await asyncio.sleep(0)

    asyncio.run(whole())


def test_a_refusal_is_raised_as_what_it_names(tmp_path: Path) -> None:
    async def talking(client: EngineClient, engine: FakeEngine) -> None:
        engine.refusals["reserve"] = [errors.SlotBusy("3 requests run on it")]
        with pytest.raises(errors.SlotBusy, match="3 requests"):
            await client.ask(Reserve(manifest_digest=digest_of("1.0.0"), size=10))
        with pytest.raises(errors.IllegalTransition):
            await client.ask(Commit(manifest_digest=digest_of("1.0.0")))
        assert (await client.state()).instance == engine.instance

    talk(tmp_path, talking)


def test_a_lost_connection_is_noticed_at_once_and_made_again(tmp_path: Path) -> None:
    async def talking(client: EngineClient, engine: FakeEngine) -> None:
        lost = asyncio.Event()
        client.on_loss = lost.set
        first = (await client.state()).instance
        engine.kill()
        async with asyncio.timeout(2):
            await lost.wait()
        with pytest.raises(errors.EngineUnavailable):
            await client.state()
        await engine.start()
        assert (await client.state()).instance != first

    talk(tmp_path, talking)


def die(engine: FakeEngine) -> None:
    engine.dies_at["reserve"] = 1


def leave(engine: FakeEngine) -> None:
    engine.refusals["reserve"] = [errors.EngineUnavailable("the engine is leaving")]


@pytest.mark.parametrize("end", [die, leave])
def test_an_engine_that_ends_in_the_midst_gives_no_answer_and_is_lost_over_the_order(
    tmp_path: Path, end: Callable[[FakeEngine], None]
) -> None:
    async def talking(client: EngineClient, engine: FakeEngine) -> None:
        end(engine)
        with pytest.raises(errors.EngineUnavailable) as raised:
            await client.ask(Reserve(manifest_digest=digest_of("1.0.0"), size=10))
        assert is_loss(raised.value)

    talk(tmp_path, talking)


def talk_to_stranger(
    directory: Path, replies: Iterator[tuple[float, bytes]], talking: Callable[[EngineClient], Awaitable[None]]
) -> None:
    """Something listens on the socket and answers each line, after so many seconds, with so many bytes."""

    async def whole() -> None:
        handlers: list[asyncio.Task[None]] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            current = asyncio.current_task()
            assert current
            handlers.append(current)
            while await reader.readline():
                delay, line = next(replies)
                await asyncio.sleep(delay)
                writer.write(line)
            writer.close()

        server = await asyncio.start_unix_server(answer, directory / SOCKET_NAME)
        async with server, EngineClient(directory) as client:
            await talking(client)
        await asyncio.gather(*handlers)

    asyncio.run(whole())


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"{}\n",
        b'{"state": {"protocol": 9, "instance": "x", "slots": {}}}\n',
        b'{"refusal": {"reason": "SwapFailed", "message": "a state is no order"}}\n',
    ],
)
def test_a_stranger_on_the_socket_is_no_engine(tmp_path: Path, line: bytes) -> None:
    async def talking(client: EngineClient) -> None:
        with pytest.raises(errors.EngineUnavailable):
            await client.state()

    talk_to_stranger(tmp_path, itertools.repeat((0.0, line)), talking)


HELD = {
    "phase": "Current",
    "resident": {
        "versionName": "tiny-1.0.0",
        "modelName": "tiny",
        "version": "1.0.0",
        "manifestDigest": str(digest_of("1.0.0")),
    },
    "tensorsDigest": "a5" * 32,
}
MOST = (1 << 63) - 1


def told(slot: Json | None = None, **facts: object) -> Json:
    return {"instance": "x", "slots": {"a": HELD | (slot or {})}} | facts


def named(name: str) -> Json:
    return {"resident": HELD["resident"] | {"versionName": name}}  # type: ignore[operator]


@pytest.mark.parametrize(
    "state",
    [
        told({"tensorsDigest": "<script>"}),
        told({"capacity": -1}),
        told({"requests": MOST + 1}),
        told(named("")),
        told(named("x" * 254)),
        told(term=-1),
        told(term=MOST + 1),
        told(pauseMicroseconds=-1),
        told(pauseMicroseconds=10**400),
    ],
)
def test_an_answer_that_no_status_and_no_metric_takes_is_none(tmp_path: Path, state: Json) -> None:
    async def talking(client: EngineClient) -> None:
        with pytest.raises(errors.EngineUnavailable):
            await client.state()

    line = json.dumps({"state": state}).encode() + b"\n"
    talk_to_stranger(tmp_path, itertools.repeat((0.0, line)), talking)


def test_what_is_just_within_its_bounds_can_be_reported(tmp_path: Path) -> None:
    async def talking(client: EngineClient) -> None:
        state = await client.state()
        memory = Memory(term=state.term, pause_microseconds=state.pause_microseconds)
        status = report(order("1.0.0"), state, memory, pod_uid=POD_UID, generation=1)
        assert status.live
        assert (status.live.version_name, status.term, status.pause_microseconds) == ("x" * 253, MOST, MOST)

    state = told(named("x" * 253), term=MOST, pauseMicroseconds=MOST)
    talk_to_stranger(tmp_path, iter([(0.0, json.dumps({"state": state}).encode() + b"\n")]), talking)


def state_of(instance: str) -> bytes:
    return b'{"state": {"instance": "%b", "slots": {}}}\n' % instance.encode()


def test_a_late_answer_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    async def talking(client: EngineClient) -> None:
        with pytest.raises(errors.EngineUnavailable) as raised:
            await client.ask(GetState(), timeout=0.05)
        assert not is_loss(raised.value), "it may be at it still"
        assert (await client.ask(GetState())).instance == "second"

    talk_to_stranger(tmp_path, iter([(0.2, state_of("first")), (0.3, state_of("second"))]), talking)


def test_an_engine_that_sends_what_nobody_asked_for_is_left_before_it_fills_the_memory(tmp_path: Path) -> None:
    async def talking(client: EngineClient) -> None:
        lost = asyncio.Event()
        client.on_loss = lost.set
        assert (await client.state()).instance == "flood"
        async with asyncio.timeout(5):
            await lost.wait()
        assert (await client.state()).instance == "next"

    talk_to_stranger(tmp_path, iter([(0.0, state_of("flood") * 5), (0.0, state_of("next"))]), talking)


def test_nor_is_the_answer_to_a_request_that_was_given_up(tmp_path: Path) -> None:
    heard = asyncio.Event()

    def replies() -> Iterator[tuple[float, bytes]]:
        heard.set()
        yield 0.2, state_of("given up")
        yield 0.0, state_of("wanted")

    async def talking(client: EngineClient) -> None:
        first = asyncio.create_task(client.state())
        await heard.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await client.state()).instance == "wanted"

    talk_to_stranger(tmp_path, replies(), talking)


def test_no_socket_is_no_engine(tmp_path: Path) -> None:
    async def whole() -> None:
        async with EngineClient(tmp_path) as client:
            with pytest.raises(errors.EngineUnavailable, match="no answer"):
                await client.state()

    asyncio.run(whole())
