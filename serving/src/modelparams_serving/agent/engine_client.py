"""The agent's end of the engine's Unix socket: `modelparams.protocol`, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from modelparams.errors import EngineUnavailable, ModelParamsError, by_reason
from modelparams.protocol import (
    LINE_MAX,
    PROTOCOL,
    SOCKET_NAME,
    Answer,
    Commit,
    Discard,
    EngineState,
    GetState,
    Prepare,
    Reserve,
)

QUICK, SLOW = 10.0, 600.0
"""Seconds to wait for an answer. A prepare builds a model and a reserve may touch every page of a new arena."""

Sent = GetState | Reserve | Prepare | Commit | Discard


@dataclass
class EngineClient:
    """Keeps one connection. `on_loss` is called when the engine closes it, at once and not at the next request.

    Every method raises `EngineUnavailable` when there is no answer, and what a refusal names otherwise. After
    either of a prepare or commit nothing is known of its outcome: ask for the state.
    """

    directory: Path
    on_loss: Callable[[], None] = lambda: None
    _writer: asyncio.StreamWriter | None = None
    _listener: asyncio.Task[None] | None = None
    _answers: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def state(self) -> EngineState:
        """What the engine holds; that is no order, so whatever refuses it is no engine of this protocol, or leaves."""
        try:
            return await self.ask(GetState(), QUICK)
        except EngineUnavailable:
            raise
        except ModelParamsError as error:
            raise EngineUnavailable(f"it refuses to say what it holds: {error.message}") from error

    async def ask(self, request: Sent, timeout: float = SLOW) -> EngineState:
        """Send one order and read its answer, the state after it."""
        async with self._turn:
            try:
                async with asyncio.timeout(timeout):
                    answer = Answer.model_validate_json(await self._exchange(request))
            except (OSError, TimeoutError, ValidationError) as error:
                self._drop()
                raise EngineUnavailable(f"no answer to {request.op!r} ({type(error).__name__})") from error
            except asyncio.CancelledError:
                self._drop()  # its answer would be taken for the next request's
                raise
        return _state_of(answer)

    async def _exchange(self, request: Sent) -> bytes:
        if self._writer is None or self._writer.is_closing():
            await self._connect()
        assert self._writer is not None
        self._writer.write(request.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
        await self._writer.drain()
        line = await self._answers.get()
        if not line:
            raise ConnectionResetError("the engine closed the connection")
        return line

    async def _connect(self) -> None:
        self._drop()
        reader, self._writer = await asyncio.open_unix_connection(self.directory / SOCKET_NAME, limit=LINE_MAX)
        self._answers = asyncio.Queue()
        self._listener = asyncio.create_task(self._listen(reader, self._writer, self._answers))

    async def _listen(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.Queue[bytes]
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (line := await reader.readline()) and answers.empty():  # who sends unasked would fill the memory
                answers.put_nowait(line)
        writer.close()
        answers.put_nowait(b"")
        self.on_loss()

    def _drop(self) -> None:
        if self._listener:
            self._listener.cancel()
        if self._writer:
            self._writer.close()
        self._listener = self._writer = None

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()


def is_loss(error: Exception) -> bool:
    """Whether the engine ended over an order, by its own word or without one. One that is merely late may do it still.

    What the agent itself could not do, such as to open an arena, is called EngineUnavailable too and is none.
    """
    cause = error.__cause__
    return isinstance(error, EngineUnavailable) and (cause is None or isinstance(cause, ConnectionError))


def _state_of(answer: Answer) -> EngineState:
    if answer.refusal:
        raise by_reason(answer.refusal.reason, answer.refusal.message)
    if answer.state is None:
        raise EngineUnavailable("an answer without a state")
    if answer.state.protocol != PROTOCOL:
        raise EngineUnavailable(
            f"the engine speaks protocol {answer.state.protocol}, the agent {PROTOCOL}",
            hint="run both from images of one release",
        )
    return answer.state
