"""The engine as a process: how it starts, and how it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from builders.arenas import tiny
from builders.engines import listens, order, until
from builders.in_memory import memory_directory
from cluster.process import free_port
from modelparams.protocol import SOCKET_NAME, GetState

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


@pytest.fixture
def memory() -> Iterator[Path]:
    with memory_directory() as folder:
        yield folder


@pytest.fixture
def log(memory: Path) -> Path:
    """Where the process writes to."""
    return memory / "log"


@pytest.fixture
def process(memory: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    environment = {
        "MODELPARAMS_RUNTIME_DIR": str(memory),
        "MODELPARAMS_HOST": "127.0.0.1",
        "MODELPARAMS_PORT": str(port),
        "MODELPARAMS_QUIET_SECONDS": "0.1",
        "MODELPARAMS_THREADS": "1",
        "MODELPARAMS_NUM_BLOCKS": "8",
        "MODELPARAMS_LATE_SECONDS": "0",
    }
    command = [sys.executable, "-m", "modelparams_serving.engine"]
    with log.open("wb") as said, subprocess.Popen(command, env=os.environ | environment, stderr=said) as started:
        try:
            yield started, f"http://127.0.0.1:{port}"
        finally:
            started.kill()


def core_file_limits(pid: int) -> list[str]:
    """Soft and hard."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core file size"))


async def refused(client: httpx.AsyncClient) -> httpx.Response:
    """Ask until the process has taken the signal. One that answers still costs a token."""
    while (answer := await client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})).status_code == 200:
        pass
    return answer


def test_sigterm_lets_a_running_request_finish_refuses_new_ones_and_ends_with_zero(
    memory: Path, process: tuple[subprocess.Popen[bytes], str]
) -> None:
    started, url = process

    async def scene() -> None:
        await until(lambda: listens(memory), seconds=200)
        assert core_file_limits(started.pid) == ["0", "0"]  # it would hold parameters
        version = tiny()
        (reserved,) = await order(memory, version.reserve().model_dump_json(by_alias=True).encode())
        assert reserved.state is not None
        assert reserved.state.slot is not None
        version.write(memory / reserved.state.slot.file_name)
        for request in (version.prepare(reserved.state.slot), version.commit()):
            (answer,) = await order(memory, request.model_dump_json(by_alias=True).encode())
            assert answer.state is not None, answer.refusal
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            body = {"prompt": "hello", "max_tokens": 200, "stream": True}
            async with client.stream("POST", "/v1/completions", json=body) as response:
                lines = response.aiter_lines()
                await anext(lines)
                started.send_signal(signal.SIGTERM)
                late = await refused(client)
                assert (late.status_code, late.headers["retry-after"]) == (503, "1")
                rest = [line async for line in lines if line]
            assert rest[-1] == "data: [DONE]"
        assert await asyncio.to_thread(started.wait, 30) == 0
        assert not (memory / SOCKET_NAME).exists()

    asyncio.run(scene())


def test_an_engine_without_a_version_leaves_at_once_on_an_interrupt(
    memory: Path, process: tuple[subprocess.Popen[bytes], str]
) -> None:
    started, _ = process

    async def scene() -> None:
        await until(lambda: listens(memory), seconds=200)
        (state,) = await order(memory, GetState().model_dump_json().encode())
        assert state.state is not None
        assert len(state.state.instance) == 12
        started.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(started.wait, 30) == 0

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(b"GARBAGE\r\n\r\n", b"HTTP/1.1 400 ", id="no request"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 503 ",
            id="a web socket",
        ),
    ],
)
def test_whatever_strangers_send_a_line_of_the_log_is_json(
    memory: Path, log: Path, process: tuple[subprocess.Popen[bytes], str], sent: bytes, answer: bytes
) -> None:
    started, url = process

    async def scene() -> None:
        await until(lambda: listens(memory), seconds=200)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(sent)
        assert (await reader.readline()).startswith(answer)
        writer.close()
        started.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(started.wait, 30) == 0

    asyncio.run(scene())
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert "uvicorn.error" in {line.get("logger") for line in lines}
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="only Linux tells what a directory lies on")
def test_a_runtime_directory_on_a_disk_ends_the_start() -> None:
    command = [sys.executable, "-m", "modelparams_serving.engine"]
    ended = subprocess.run(
        command, env=os.environ | {"MODELPARAMS_RUNTIME_DIR": "/proc"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("modelparams-serve: /proc is not in memory: it lies on proc")
