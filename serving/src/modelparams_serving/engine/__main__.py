"""`modelparams-serve`: the engine of a serving pod."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette

from modelparams.errors import UsageError
from modelparams.memory_directory import check_in_memory
from modelparams_serving.engine.drain import Drain
from modelparams_serving.engine.library import Library
from modelparams_serving.engine.listening import bound, listen
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.patience import patient
from modelparams_serving.engine.probes import Doors, Probes
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.socket_server import SocketServer
from modelparams_serving.engine.swap import Swapper
from modelparams_serving.starting import refuse, started

_log = structlog.get_logger("engine")
_LAST_BYTES_SECONDS = 3
_WHAT = """Serve the live version of a model over HTTP, and swap to the next one when modelparams-agent says so.

The engine of a serving pod: it has no key, and asks no network. It runs until SIGTERM, and then lets what runs finish.
Without Kubernetes: modelparams serve --help. Exit codes: 0 after SIGTERM, 2 settings."""


class Engine:
    """One engine: its swapper, its socket, its HTTP front. It listens first, and then brings its library."""

    def __init__(self, settings: EngineSettings, library: Library | None = None) -> None:
        self.settings, self.drain, self._metrics = settings, Drain(settings.late_seconds), Metrics()
        self.library = library or Library(settings)
        self.swapper = Swapper(settings, self.library, self._metrics)
        self._doors = Doors(Probes(self.swapper, self.drain, self._metrics))
        if self.library.is_there:
            self._doors.inner = self._front()

    async def serve(self, at: socket.socket | None = None, *, on_listening: asyncio.Event | None = None) -> bool:
        """Serve until `drain` is asked for. False when requests were cut off at the end of the grace period.

        Args:
            at: has the address already; by default the settings say which.
            on_listening: set as soon as clients can come.

        Raises:
            UsageError: the address or the socket's path cannot be listened on, the library or the device is not there.
        """
        server = _Server(
            uvicorn.Config(
                self._doors,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
                http=patient(self.settings.stalled_seconds),
            )
        )
        with contextlib.closing(at or bound(self.settings.host, self.settings.port)) as listener:
            listen(listener, self.settings.stalled_seconds)
            return await self._served(server, listener, on_listening)

    async def _served(self, server: _Server, listener: socket.socket, on_listening: asyncio.Event | None) -> bool:
        async with self._running(server, listener) as http:
            _log.info("listening", host=self.settings.host, port=listener.getsockname()[1])
            if on_listening:
                on_listening.set()
            await self._until_asked(http)
            whole = await self.drain.quiet(
                lambda: self.swapper.requests,
                quiet_seconds=self.settings.quiet_seconds,
                grace_seconds=self.settings.grace_seconds,
            )
        _log.info("left", whole=whole)
        return whole

    async def _until_asked(self, http: asyncio.Task[None]) -> None:
        leave, opened = asyncio.create_task(self.drain.asked()), asyncio.create_task(self._open())
        try:
            await asyncio.wait({leave, http, opened}, return_when=asyncio.FIRST_COMPLETED)
            if opened.done():
                opened.result()
                await asyncio.wait({leave, http}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leave.cancel()
            opened.cancel()

    async def _open(self) -> None:
        await self.library.bring()
        self._doors.inner = self._front()

    def _front(self) -> Starlette:
        from modelparams_serving.engine.http import Front  # imports torch

        return Front(self.swapper, self.drain, self._metrics, self.settings).app()

    @contextlib.asynccontextmanager
    async def _running(self, server: _Server, listener: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
        async with SocketServer(self.swapper).listening(self.settings.runtime_dir):
            http = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield http
            finally:
                server.should_exit = True
                await http
                await self.swapper.close()


class _Server(uvicorn.Server):
    """Signals are this module's: uvicorn would stop listening at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(engine: Engine) -> bool:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, engine.drain.begin)
    return await engine.serve()


def main() -> None:
    """Start the engine, and end the process when it has drained."""
    settings = started("modelparams-serve", _WHAT, EngineSettings)
    try:
        _make(settings.runtime_dir)
        check_in_memory(settings.runtime_dir)
        have_temporary_files(settings.runtime_dir)
        engine = Engine(settings)
        asyncio.run(_run(engine))
    except UsageError as error:
        refuse("modelparams-serve", str(error))
    # All is tidied up. The interpreter would tear torch's modules down for seconds, and wait for any thread: one that
    # imports cannot be stopped.
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that was closed is None
        stream.flush()
    os._exit(0)


def _make(runtime_dir: Path) -> None:
    try:
        runtime_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"MODELPARAMS_RUNTIME_DIR: {runtime_dir} cannot be made ({error.strerror})",
            hint="mount a memory-backed volume there, or name another directory",
        ) from error


def have_temporary_files(runtime_dir: Path) -> None:
    """While it is imported torch asks for a directory of such: where the root is read-only, this is the only one."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        os.environ["TMPDIR"] = str(runtime_dir)


if __name__ == "__main__":
    main()
