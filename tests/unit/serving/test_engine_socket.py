"""The engine's socket, as an agent uses it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from builders.arenas import Laid, tiny
from builders.engines import engine, order
from modelparams.errors import UsageError
from modelparams.protocol import LINE_MAX, SOCKET_NAME, Discard, GetState, Rollback, Slot, SlotPhase
from modelparams.reasons import Reason
from modelparams_serving.engine.socket_server import SocketServer

pytestmark = pytest.mark.model


SESSION = Path(__file__).parents[3] / "serving" / "PROTOCOL.md"


def line(request: Any) -> bytes:
    encoded: bytes = request.model_dump_json(by_alias=True).encode()
    return encoded


async def stage(directory: Path, version: Laid) -> None:
    (reserved,) = await order(directory, line(version.reserve()))
    assert reserved.state is not None
    assert reserved.state.slot is not None
    version.write(directory / reserved.state.slot.file_name)
    (prepared,) = await order(directory, line(version.prepare(reserved.state.slot)))
    assert prepared.state is not None, prepared.refusal


def test_a_version_goes_live_and_back_by_orders_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path) as (_, client):
            for version in (tiny("1.0.0"), tiny("1.1.0")):
                await stage(tmp_path, version)
                (answer,) = await order(tmp_path, line(version.commit(term=3)))
                assert answer.state is not None
                assert answer.state.current == version.resident
                assert answer.state.pause_microseconds is not None
            answers = await order(tmp_path, line(Rollback(term=3)), line(GetState()))
            assert all(a.state and a.state.current == tiny("1.0.0").resident for a in answers)
            ready = await client.get("/readyz")
            assert ready.headers["x-modelparams-version"] == "1.0.0"

    asyncio.run(scene())


def test_the_socket_is_closed_to_others_and_gone_afterwards(tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / SOCKET_NAME).touch()  # of an engine that was killed
        async with engine(tmp_path):
            assert stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode) == 0o660
            await order(tmp_path, line(GetState()))
        assert not (tmp_path / SOCKET_NAME).exists()

    asyncio.run(scene())


def test_state_is_answered_while_an_order_is_carried_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path):
            version = tiny()
            (reserved,) = await order(tmp_path, line(version.reserve()))
            assert reserved.state is not None
            assert reserved.state.slot is not None
            version.write(tmp_path / reserved.state.slot.file_name)
            prepared = asyncio.create_task(order(tmp_path, line(version.prepare(reserved.state.slot))))
            (now,) = await order(tmp_path, line(GetState()))
            assert not prepared.done()
            assert now.state is not None
            assert now.state.slots[Slot.A].phase is SlotPhase.FILLING
            (done,) = await prepared
            assert done.state is not None
            assert done.state.slots[Slot.A].phase is SlotPhase.RESIDENT

    asyncio.run(scene())


@pytest.mark.parametrize(
    "sent",
    [b"{", b"{}", b'{"op": "exec"}', b'{"op": "reserve", "manifestDigest": "sha256:1", "size": 1}', b'{"op":"commit"}'],
)
def test_what_is_no_order_is_refused_and_the_next_one_is_heard(tmp_path: Path, sent: bytes) -> None:
    async def scene() -> None:
        async with engine(tmp_path):
            refused, state = await order(tmp_path, sent, line(GetState()))
            assert refused.refusal is not None
            assert refused.refusal.reason is Reason.USAGE
            assert state.state is not None

    asyncio.run(scene())


def test_a_line_without_end_ends_the_connection_only(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path):
            reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET_NAME)
            writer.write(b"x" * (2 * LINE_MAX) + b"\n")
            with contextlib.suppress(ConnectionResetError):  # what it did not read is thrown away
                assert await reader.read() == b""
            writer.close()
            assert (await order(tmp_path, line(GetState())))[0].state is not None

    asyncio.run(scene())


def test_refusals_carry_the_reason_of_the_error(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path):
            version = tiny()
            answers = await order(tmp_path, line(version.commit()), line(version.prepare(Slot.A)), line(Rollback()))
            reasons = [answer.refusal.reason for answer in answers if answer.refusal]
            assert reasons == [Reason.ILLEGAL_TRANSITION, Reason.INDEX_INVALID, Reason.ILLEGAL_TRANSITION]
            huge = [
                json.dumps({"op": "reserve", "manifestDigest": str(version.digest), "size": size}).encode()
                for size in (1 << 60, (1 << 63) - 1, 1 << 63)
            ]
            told = [answer.refusal.reason for answer in await order(tmp_path, *huge) if answer.refusal]
            assert told == [Reason.ARENA_EXHAUSTED, Reason.ARENA_EXHAUSTED, Reason.USAGE]
            assert (await order(tmp_path, line(Discard(manifest_digest=version.digest))))[0].state is not None

    asyncio.run(scene())


def test_an_engine_that_ends_refuses_its_state_too_so_that_nobody_plans_with_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with engine(tmp_path) as (made, _):
            await made.swapper.close()
            answers = await order(tmp_path, line(GetState()), line(tiny("1.0.0").reserve()))
            assert [a.refusal and a.refusal.reason for a in answers] == [Reason.ENGINE_UNAVAILABLE] * 2

    asyncio.run(scene())


def test_the_session_on_the_page_goes_as_written(tmp_path: Path) -> None:
    versions = {"1": tiny("1.0.0"), "2": tiny("1.1.0")}
    steps = SESSION.read_text().split("## A session")[1].split("```")[1].strip().splitlines()

    async def scene() -> None:
        async with engine(tmp_path):
            answer: Any = None
            for step in steps:
                kind, text = step[0], step[2:]
                if kind == ">":
                    (found,) = await order(tmp_path, filled(text, versions).encode())
                    answer = json.loads(found.model_dump_json(by_alias=True, exclude_none=True))
                elif kind == "<":
                    wanted = filled(re.sub(r",? ?…", "", text), versions)
                    assert contains(answer, json.loads(wanted)), (step, answer)
                else:
                    number, arena = re.findall(r"version (\S+) into (\S+)", text)[0]
                    tiny(number).write(tmp_path / arena)

    asyncio.run(scene())


def filled(text: str, versions: dict[str, Laid]) -> str:
    """The page's placeholders, by real values."""
    for n, version in versions.items():
        text = text.replace(f"DIGEST_{n}", str(version.digest)).replace(f"SIZE_{n}", str(version.size))
        text = text.replace(f"OFFSET_{n}", str(version.index.offset)).replace(f"LENGTH_{n}", str(version.index.size))
    return text


def contains(whole: Any, part: Any) -> bool:
    """Whether everything that `part` says is in `whole`."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    return bool(whole == part)


def test_a_directory_too_deep_for_a_socket_is_named(tmp_path: Path) -> None:
    async def listen() -> None:
        async with SocketServer(None).listening(tmp_path / ("d" * 100)):  # type: ignore[arg-type]
            pytest.fail("it listens on a path that no socket can have")

    with pytest.raises(UsageError, match="shorter path"):
        asyncio.run(listen())
