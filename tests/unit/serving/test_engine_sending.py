"""What becomes of an answer whose client takes no more of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from builders.arenas import tiny
from builders.engines import put_live, swapper
from modelparams_serving.engine.sending import Pieces

pytestmark = pytest.mark.model


def test_a_client_that_takes_nothing_of_its_stream_is_left(tmp_path: Path) -> None:
    stack, closed = contextlib.ExitStack(), []

    async def content() -> AsyncGenerator[bytes]:
        try:
            yield b"data: 1"
            yield b"data: 2"
        finally:
            closed.append(True)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        if message.get("body") == b"data: 2":
            await asyncio.Event().wait()  # as a connection does whose other end reads no more

    async def scene() -> None:
        async with swapper(tmp_path) as made:
            await put_live(made, tiny())
            stack.enter_context(made.lease())
            assert made.requests == 1
            answer = Pieces(content(), {}, "text/event-stream", stack, stalled_seconds=0.05)
            await answer({"type": "http"}, receive, send)
            assert closed == [True]
            assert made.requests == 0

    asyncio.run(scene())
