"""torch, transformers and all that is made of them: seconds to import, so a thread does it while the engine listens.

What answers before that (`__main__`, `probes`, `socket_server`, `swap`) imports nothing of it; a test holds it to that.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import structlog

from modelparams.errors import UsageError
from modelparams.protocol import Region, Resident
from modelparams_serving.engine.settings import EngineSettings

if TYPE_CHECKING:
    from modelparams_serving.engine.residents import ResidentVersion, Schema

# Read when transformers is imported: this process asks no hub, ever.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# torch names a cache after the user while it is imported, and a container's user may have no name.
os.environ.setdefault("USER", "modelparams")
# While an old version drains, two forward passes share the cores: OpenMP threads that spin between two of their
# operations would take them from the other one. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_log = structlog.get_logger("engine")


class Load(Protocol):
    """`residents.load` on this engine's device, with its settings."""

    def __call__(
        self, arena: memoryview, index: Region, identity: Resident, /, *, beside: Schema | None
    ) -> ResidentVersion:
        """See there."""


class Library:
    """What builds versions, as soon as it is imported."""

    def __init__(self, settings: EngineSettings, importing: Callable[[EngineSettings], Load] | None = None) -> None:
        """Import nothing yet; `importing` does it."""
        self._settings, self._importing = settings, importing or imported
        self._load: Load | None = None
        self._is_there, self.is_under_way = asyncio.Event(), False

    @classmethod
    def at_once(cls, settings: EngineSettings) -> Library:
        """One that is there already. Errors as `imported`."""
        made = cls(settings)
        made._take(made._importing(settings))
        return made

    @property
    def is_there(self) -> bool:
        """Whether versions can be built."""
        return self._load is not None

    async def loader(self) -> Load:
        """What builds a version; waits for the import."""
        await self._is_there.wait()
        assert self._load is not None
        return self._load

    async def bring(self) -> None:
        """Import it in a thread, and say so; once. Errors as `imported`.

        Cancelled, the thread goes on (`is_under_way`): nothing can stop an import.
        """
        if self.is_there:
            return
        self.is_under_way, started = True, time.monotonic()
        _log.info("importing torch and transformers")
        pool = ThreadPoolExecutor(1, thread_name_prefix="import")
        try:
            load = await asyncio.get_running_loop().run_in_executor(pool, self._importing, self._settings)
        finally:
            pool.shutdown(wait=False)
        set_up_torch(self._settings)
        self._take(load)
        _log.info("imported torch and transformers", seconds=round(time.monotonic() - started, 1))

    def _take(self, load: Load) -> None:
        self._load, self.is_under_way = load, False
        self._is_there.set()


def imported(settings: EngineSettings) -> Load:
    """Look whether the device is there, which takes torch alone, and import everything that serves.

    Raises:
        UsageError: it is not installed, or the wanted device is not there.
    """
    try:
        from modelparams_serving.engine import device

        chosen = device.choose(settings.device)
        from modelparams_serving.engine import http, residents  # noqa: F401 -- http: what is answered next
    except ImportError as error:
        raise UsageError(
            f"torch and transformers cannot be imported ({error})", hint="install modelparams[serving]"
        ) from error
    return functools.partial(residents.load, device=chosen, settings=settings)


def set_up_torch(settings: EngineSettings) -> None:
    """Bound torch's threads, and take what is imported out of the garbage collector's rounds.

    transformers' manager collects all garbage whenever one ends; over the 400,000 objects of the imported modules
    that held the interpreter, and so every answer, for 145 ms.
    """
    import torch

    torch.set_num_threads(settings.forward_threads)
    with contextlib.suppress(RuntimeError):  # parallel work has begun already; the setting is a bound, not a need
        torch.set_num_interop_threads(1)
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or triton's bindings complain of leaks when the interpreter ends
