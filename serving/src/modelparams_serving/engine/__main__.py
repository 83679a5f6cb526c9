"""`modelparams-serve`: the engine of a serving pod."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: this process asks no hub, ever
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# While an old version drains, two forward passes share the cores: OpenMP threads that spin between two of their
# operations would take them from the other one. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import asyncio
import atexit
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
import torch
import uvicorn

from modelparams.errors import UsageError
from modelparams_serving.engine import device as devices
from modelparams_serving.engine.drain import Drain
from modelparams_serving.engine.http import Front
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.socket_server import SocketServer
from modelparams_serving.engine.swap import Swapper
from modelparams_serving.starting import refuse, started

_log = structlog.get_logger("engine")
_BACKLOG = 2048
_LAST_BYTES_SECONDS = 3
_WHAT = """Serve the live version of a model over HTTP, and swap to the next one when modelparams-agent says so.

The engine of a serving pod: it has no key, and asks no network. It runs until SIGTERM, and then lets what runs finish.
Without Kubernetes: modelparams serve --help. Exit codes: 0 after SIGTERM, 2 settings."""


class Engine:
    """One engine: its swapper, its socket, its HTTP front."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings, self.drain, metrics = settings, Drain(settings.late_seconds), Metrics()
        self.swapper = Swapper(settings, devices.choose(settings.device), metrics)
        self._front = Front(self.swapper, self.drain, metrics, settings)

    async def serve(self, *, on_listening: asyncio.Event | None = None) -> bool:
        """Serve until `drain` is asked for. False when requests were cut off at the end of the grace period.

        Raises:
            UsageError: the address or the socket's path cannot be listened on.
        """
        server = _Server(
            uvicorn.Config(
                self._front.app(),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
            )
        )
        with contextlib.closing(_listener(self.settings)) as listener:
            return await self._served(server, listener, on_listening)

    async def _served(self, server: _Server, listener: socket.socket, on_listening: asyncio.Event | None) -> bool:
        async with self._running(server, listener) as http:
            _log.info("listening", host=self.settings.host, port=listener.getsockname()[1])
            if on_listening:
                on_listening.set()
            leave = asyncio.create_task(self.drain.asked())
            await asyncio.wait({leave, http}, return_when=asyncio.FIRST_COMPLETED)
            leave.cancel()
            whole = await self.drain.quiet(
                lambda: self.swapper.requests,
                quiet_seconds=self.settings.quiet_seconds,
                grace_seconds=self.settings.grace_seconds,
            )
        _log.info("left", whole=whole)
        return whole

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


def _listener(settings: EngineSettings) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"{settings.host} port {settings.port} cannot be listened on ({error.strerror})",
            hint="give another host or port, or end what listens there",
        ) from error
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def set_up_torch(settings: EngineSettings) -> None:
    """Bound torch's threads, and take what is imported out of the garbage collector's rounds.

    transformers' manager collects all garbage whenever one ends; over the 400,000 objects of the imported modules
    that held the interpreter, and so every answer, for 145 ms.
    """
    torch.set_num_threads(settings.forward_threads)
    with contextlib.suppress(RuntimeError):  # parallel work has begun already; the setting is a bound, not a need
        torch.set_num_interop_threads(1)
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or triton's bindings complain of leaks when the interpreter ends


async def _run(settings: EngineSettings) -> bool:
    engine = Engine(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, engine.drain.begin)
    return await engine.serve()


def main() -> None:
    """Start the engine; returns when it has drained."""
    settings = started("modelparams-serve", _WHAT, EngineSettings)
    try:
        _make(settings.runtime_dir)
        set_up_torch(settings)
        asyncio.run(_run(settings))
    except UsageError as error:
        refuse("modelparams-serve", str(error))


def _make(runtime_dir: Path) -> None:
    try:
        runtime_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"MODELPARAMS_RUNTIME_DIR: {runtime_dir} cannot be made ({error.strerror})",
            hint="mount a memory-backed volume there, or name another directory",
        ) from error


if __name__ == "__main__":
    main()
