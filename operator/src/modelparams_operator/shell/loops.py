"""One loop per model, never two passes of it at a time; events only wake it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from modelparams.errors import APIConflict, ModelParamsError
from modelparams.failure import classify
from modelparams_operator.shell import metrics
from modelparams_operator.shell.backoff import Backoff
from modelparams_operator.shell.lease import LeaseLost
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.ports import ModelKey

Reconcile = Callable[[ModelKey, bool], Awaitable[float | None]]
"""(model, whether nothing woke it) → seconds until the next look; None: nothing is left of the model."""

_RETRY_LAST = 60.0
# A pass over thousands of pods computes long: it may use a quarter of the time, while news gather.
_SHARE, _QUIET_LAST = 3.0, 2.0


@dataclass(slots=True)
class _Loop:
    wake: asyncio.Event
    task: asyncio.Task[None] | None = None


@dataclass
class Loops:
    """Keeps one task per model that is there.

    Args:
        quiet: seconds in which news gather after a pass; what comes after a longer rest is looked at at once.
        resync: seconds after which a model is looked at anyway.
        clock: seconds.
    """

    reconcile: Reconcile
    quiet: float
    resync: float
    clock: Callable[[], float] = time.monotonic
    _loops: dict[ModelKey, _Loop] = field(default_factory=dict)

    def wake(self, key: ModelKey) -> None:
        """Something about the model changed, or it is new."""
        loop = self._loops.get(key)
        if loop is None:
            loop = self._loops[key] = _Loop(asyncio.Event())
            loop.task = asyncio.create_task(self._run(key, loop.wake), name=f"model {key.namespace}/{key.model}")
            metrics.MODELS.set(len(self._loops))
        loop.wake.set()

    async def stop(self) -> None:
        """End all loops at their next await; a pass may be cut anywhere, the next operator plans again."""
        tasks = [loop.task for loop in self._loops.values() if loop.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: ModelKey, wake: asyncio.Event) -> None:
        backoff, woken = Backoff(first=0.5, last=_RETRY_LAST), True
        while True:
            wake.clear()  # before looking: what changes during the pass is not lost
            computed = time.thread_time()
            delay = await self._pass(key, woken, backoff)
            computed, ended = time.thread_time() - computed, self.clock()
            if delay is None and not wake.is_set():
                del self._loops[key]
                metrics.MODELS.set(len(self._loops))
                return
            woken = await _first(wake, min(delay or 0, self.resync * random.uniform(0.8, 1)))  # noqa: S311 - spreads
            if woken:
                gathering = max(self.quiet, min(_SHARE * computed, _QUIET_LAST))
                await asyncio.sleep(gathering - (self.clock() - ended))

    async def _pass(self, key: ModelKey, woken: bool, backoff: Backoff) -> float | None:
        started, result = time.monotonic(), "ok"
        try:
            delay = await self.reconcile(key, not woken)
            backoff.reset()
        except LeaseLost as error:  # the lease's own task ends the process; until then nothing is written
            logger.warning("Pass given up", namespace=key.namespace, model=key.model, problem=str(error))
            result, delay = "lease-lost", self.resync
        except APIConflict:
            result, delay = "conflict", backoff.next() / 4
        except Exception as error:  # the boundary of a pass: every failure means another try
            result, delay = "error", backoff.next()
            _tell(key, error, delay)
        metrics.RECONCILE_SECONDS.labels(result).observe(time.monotonic() - started)
        return delay


def _tell(key: ModelKey, error: Exception, delay: float) -> None:
    failure, log = classify(error), logger.bind(namespace=key.namespace, model=key.model)
    unforeseen = not isinstance(error, ModelParamsError)
    log.warning(
        "Pass failed", reason=failure.reason, problem=failure.message, again=round(delay, 2), exc_info=unforeseen
    )


async def _first(wake: asyncio.Event, seconds: float) -> bool:
    """Whether it was woken before the time was over."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    return True
