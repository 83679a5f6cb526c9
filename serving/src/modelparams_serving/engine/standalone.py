"""One sealed version served on this machine: agent and engine in one process, for `modelparams serve`.

The same steps as in a pod, in the same order: reserve, pull into the arena, prepare, commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

from modelparams.errors import EngineUnavailable
from modelparams.names import object_name
from modelparams.parallel import Stopped
from modelparams.progress import Progress
from modelparams.protocol import Commit, Prepare, Reserve, Resident
from modelparams.pull import pull
from modelparams.sealed import SealedRelease
from modelparams_serving import logs
from modelparams_serving.engine.__main__ import Engine
from modelparams_serving.engine.library import Library, set_up_torch
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.swap import Swapper

Tell = Callable[[str], None]
"""What is told of each step: a few words for people."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    sealed: SealedRelease,
    settings: EngineSettings,
    at: socket.socket,
    progress: Progress,
    tell: Tell = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain. Afterwards both signals are ignored: the process is to end.

    Args:
        sealed: what to serve.
        settings: of the engine; its runtime directory must be in memory, since plaintext lies in it.
        at: has the settings' address, see `listening.bound`.
        progress: told of the pull.
        tell: told of each step as it begins.

    Raises:
        UsageError: it cannot listen.
        StoreError, IntegrityError, SwapError: the version cannot be served; nothing listens any more.
    """
    logs.set_up(settings.log_level)
    library = Library.at_once(settings)
    set_up_torch(settings)
    asyncio.run(_serve(Engine(settings, library), sealed, at, progress, tell))


def _where(settings: EngineSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


async def _serve(engine: Engine, sealed: SealedRelease, at: socket.socket, progress: Progress, tell: Tell) -> None:
    with _leaving_by(engine.drain.begin):
        await _served(engine, sealed, at, progress, tell)


@contextlib.contextmanager
def _leaving_by(begin: Callable[[], None]) -> Iterator[None]:
    """Signals begin the leaving; at its end they are ignored, so that a second one cuts off no tidying up.

    Not by the loop's own handlers: with the loop's end those go, and a signal would kill the process.
    """
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(begin))
    try:
        yield
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


async def _served(engine: Engine, sealed: SealedRelease, at: socket.socket, progress: Progress, tell: Tell) -> None:
    listening = asyncio.Event()
    serving = asyncio.create_task(engine.serve(at, on_listening=listening))
    await asyncio.wait({asyncio.create_task(listening.wait()), serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():  # it cannot listen: nothing is worth pulling
        serving.result()
    tell(f"listening on {_where(engine.settings)}; /readyz answers 503 until the version does")
    try:
        await put_live(
            engine.swapper, sealed, engine.settings.runtime_dir, progress, lambda: engine.drain.draining, tell
        )
        tell(f"{resident_of(sealed).version_name} answers on {_where(engine.settings)}/v1; Ctrl-C ends")
    except (CancelledError, asyncio.CancelledError, EngineUnavailable):
        # Asked to leave before it was there, as `pull`, the loop, which makes that one its own, and the engine say it.
        if not engine.drain.draining:
            engine.drain.begin()
            raise
    except BaseException:
        engine.drain.begin()
        raise
    finally:
        if not await serving:
            tell(f"what still ran after {engine.settings.grace_seconds:.0f} s was cut off")


async def put_live(
    swapper: Swapper,
    sealed: SealedRelease,
    runtime_dir: Path,
    progress: Progress,
    cancelled: Stopped,
    tell: Tell,
) -> None:
    """Pull a version into an arena of `swapper` and commit it. Errors as `pull`, `Swapper.prepare` and `.commit`."""
    digest = sealed.manifest.digest
    state = await swapper.reserve(Reserve(manifest_digest=digest, size=sealed.layout.total))
    assert state.slot is not None  # of a reserve it always is
    await asyncio.to_thread(_fill, runtime_dir / state.slot.file_name, sealed, progress, cancelled)
    tell("all of it is verified and open in memory; building the model")
    prepare = Prepare(slot=state.slot, resident=resident_of(sealed), index=sealed.layout.index)
    await swapper.prepare(prepare)
    swapper.commit(Commit(manifest_digest=digest))


def _fill(arena: Path, sealed: SealedRelease, progress: Progress, cancelled: Stopped) -> None:
    with arena.open("r+b") as file:
        pages = mmap.mmap(file.fileno(), 0)
    # Not closed by hand: after a failure the traceback still holds views of it.
    pull(sealed, memoryview(pages), progress=progress, cancelled=cancelled)


def resident_of(sealed: SealedRelease) -> Resident:
    """How the engine names it."""
    model, version = sealed.manifest.manifest.model.name, sealed.manifest.manifest.version
    return Resident(
        version_name=object_name(model, version),
        model_name=model,
        version=version,
        manifest_digest=sealed.manifest.digest,
    )
