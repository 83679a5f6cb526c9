"""The Unix socket that the agent orders through: one JSON line in, one out. serving/PROTOCOL.md shows a session."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from pydantic import ValidationError

from modelparams.errors import EngineUnavailable, ModelParamsError, SwapFailed, UsageError
from modelparams.failure import classify
from modelparams.protocol import (
    LINE_MAX,
    REQUEST,
    SOCKET_NAME,
    Answer,
    Commit,
    Discard,
    EngineState,
    GetState,
    Prepare,
    Refusal,
    Reserve,
    Rollback,
)
from modelparams.reasons import Reason
from modelparams_serving.engine.swap import Swapper

_MODE = 0o660
_log = structlog.get_logger("engine.socket")


_PATH_MAX = 107  # sun_path of unix(7), less its final NUL


class SocketServer:
    """Orders are carried out one at a time, to the end even if the asker leaves; `state` is answered at any moment."""

    def __init__(self, swapper: Swapper) -> None:
        self._swapper, self._turn = swapper, asyncio.Lock()

    @contextlib.asynccontextmanager
    async def listening(self, runtime_dir: Path) -> AsyncIterator[None]:
        """Listen on the runtime directory's socket while inside.

        Raises:
            UsageError: the directory's path is too long for a socket in it.
        """
        path = runtime_dir / SOCKET_NAME
        if len(os.fsencode(path)) > _PATH_MAX:
            raise UsageError(
                f"{path} is longer than the {_PATH_MAX} bytes that a Unix socket's path may have",
                hint="take a directory with a shorter path",
            )
        path.unlink(missing_ok=True)  # of an earlier life: only one engine owns the directory
        before = os.umask(0o777 & ~_MODE)
        try:
            server = await asyncio.start_unix_server(self._serve, path, limit=LINE_MAX)
        finally:
            os.umask(before)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await _line(reader):
                answer = await self.answer(line)
                writer.write(answer.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def answer(self, line: bytes) -> Answer:
        """Carry out one order and say what came of it."""
        try:
            order = REQUEST.validate_json(line)
        except ValidationError as error:
            return _refusal(Reason.USAGE, f"no order of this protocol: {error.error_count()} fields are wrong")
        if isinstance(order, GetState):
            return self._told()
        async with self._turn:
            return await self._carried_out(order)

    def _told(self) -> Answer:
        try:
            self._swapper.require_open()
        except EngineUnavailable as error:  # nobody is to plan with an engine that leaves
            return _refusal(error.reason, error.message)
        return Answer(state=self._swapper.state())

    async def _carried_out(self, order: Reserve | Prepare | Commit | Rollback | Discard) -> Answer:
        log = _log.bind(op=order.op)
        try:
            state = await self._obey(order)
        except ModelParamsError as error:
            log.warning("refused", reason=error.reason, message=error.message)
            return _refusal(error.reason, error.message)
        except Exception as error:
            log.exception("failed", kind=type(error).__name__)
            failure = classify(error)
            # Where a move itself failed, nobody knows by the error what is current: the asker must read it back.
            moved = isinstance(order, Commit | Rollback)
            return _refusal(SwapFailed.reason if moved else failure.reason, failure.message)
        log.info("done", slot=state.slot, pause_microseconds=state.pause_microseconds)
        return Answer(state=state)

    async def _obey(self, order: Reserve | Prepare | Commit | Rollback | Discard) -> EngineState:
        match order:
            case Reserve():
                return await self._swapper.reserve(order)
            case Prepare():
                return await self._swapper.prepare(order)
            case Commit():
                return self._swapper.commit(order)
            case Rollback():
                return self._swapper.rollback(order)
            case Discard():
                return await self._swapper.discard(order)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """One line, empty at the end, or when it is longer than any order."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


def _refusal(reason: Reason, message: str) -> Answer:
    return Answer(refusal=Refusal(reason=reason, message=message))
