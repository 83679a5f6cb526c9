"""A real engine in this process: its swapper, and its socket and HTTP front where a test asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from builders.arenas import Laid
from cluster.process import free_port
from modelparams.protocol import SOCKET_NAME, Answer, EngineState
from modelparams_serving.engine.__main__ import Engine
from modelparams_serving.engine.library import Library
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.swap import Swapper


def settings(runtime_dir: Path, **changes: Any) -> EngineSettings:
    """Small and quick to leave."""
    small = {"num_blocks": 16, "page_tokens": 16, "max_batch_tokens": 64, "threads": 1, "host": "127.0.0.1", "port": 0}
    quick = {"quiet_seconds": 0.05, "grace_seconds": 5.0, "device": "cpu"}
    return EngineSettings(runtime_dir=runtime_dir, **{**small, **quick, **changes})


@contextlib.asynccontextmanager
async def swapper(runtime_dir: Path, **changes: Any) -> AsyncIterator[Swapper]:
    """The swapper alone."""
    small = settings(runtime_dir, **changes)
    made = Swapper(small, Library.at_once(small), Metrics())
    try:
        yield made
    finally:
        await made.close()


async def stage(swapper: Swapper, version: Laid) -> EngineState:
    """Reserve, fill and prepare."""
    reserved = await swapper.reserve(version.reserve())
    assert reserved.slot is not None
    version.write(swapper._places[reserved.slot].arena.path)
    return await swapper.prepare(version.prepare(reserved.slot))


async def put_live(swapper: Swapper, version: Laid) -> EngineState:
    """Stage and commit."""
    await stage(swapper, version)
    return swapper.commit(version.commit())


@contextlib.asynccontextmanager
async def engine(
    runtime_dir: Path, library: Library | None = None, **changes: Any
) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    """A whole engine that listens, and a client of it. Its library is there, unless it is given."""
    port = free_port()
    chosen = settings(runtime_dir, **{"port": port, **changes})
    made, listening = Engine(chosen, library or Library.at_once(chosen)), asyncio.Event()
    serving = asyncio.create_task(made.serve(on_listening=listening))
    await asyncio.wait({asyncio.create_task(listening.wait()), serving}, return_when=asyncio.FIRST_COMPLETED)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield made, client
    finally:
        made.drain.begin()
        await serving


def listens(runtime_dir: Path) -> bool:
    """Whether an engine can be ordered: its socket's file is there a moment before it can."""
    with socket.socket(socket.AF_UNIX) as trial, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        trial.connect(str(runtime_dir / SOCKET_NAME))
        return True
    return False


async def order(runtime_dir: Path, *lines: bytes) -> list[Answer]:
    """Send lines over the socket and give the answers."""
    reader, writer = await asyncio.open_unix_connection(runtime_dir / SOCKET_NAME, limit=1 << 20)
    answers = []
    for line in lines:
        writer.write(line.rstrip(b"\n") + b"\n")
        answers.append(Answer.model_validate_json(await reader.readline()))
    writer.close()
    await writer.wait_closed()
    return answers


async def until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Poll a condition that nothing announces."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
