"""Loops: one per model, woken by events, never two passes of one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from builders.fake_api import running, until
from modelparams import errors
from modelparams_operator.shell.loops import Loops
from modelparams_operator.shell.ports import ModelKey

KEY, OTHER = ModelKey("ns", "chat"), ModelKey("ns", "embed")


class Passes:
    """Counts passes; answers and waits as the test says."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bool]] = []
        self.delay: float | None = 1000.0
        self.errors: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.running = self.most = 0

    async def __call__(self, key: ModelKey, is_quiet: bool) -> float | None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate:
                await self.gate.wait()
            self.done.append((key.model, is_quiet))
            if self.errors:
                raise self.errors.pop(0)
            return self.delay
        finally:
            self.running -= 1


def scenario(
    test: Callable[[Loops, Passes], Awaitable[None]],
    *,
    resync: float = 1000.0,
    quiet: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    async def run() -> None:
        passes = Passes()
        loops = Loops(passes, quiet=quiet, resync=resync, clock=clock)
        await test(loops, passes)
        await loops.stop()

    running(run)


def test_many_events_in_a_row_are_few_passes() -> None:
    async def test(loops: Loops, passes: Passes) -> None:
        for _ in range(50):
            loops.wake(KEY)
        await until(lambda: passes.done, "a pass")
        await asyncio.sleep(0.02)
        assert len(passes.done) <= 2

    scenario(test)


@pytest.mark.parametrize(("rested", "passes_there"), [(999.0, 1), (1000.0, 2)])
def test_news_after_a_rest_is_looked_at_at_once_and_soon_after_a_pass_it_gathers(
    rested: float, passes_there: int
) -> None:
    now = [0.0]

    async def test(loops: Loops, passes: Passes) -> None:
        loops.wake(KEY)
        await until(lambda: passes.done, "the first pass")
        now[0] += rested
        loops.wake(KEY)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(passes.done) == passes_there

    scenario(test, quiet=1000.0, clock=lambda: now[0])


def test_an_event_during_a_pass_means_another_pass_and_never_two_at_once() -> None:
    async def test(loops: Loops, passes: Passes) -> None:
        passes.gate = asyncio.Event()
        loops.wake(KEY)
        await until(lambda: passes.running, "the pass")
        loops.wake(KEY)
        await asyncio.sleep(0.01)
        passes.gate.set()
        await until(lambda: len(passes.done) == 2, "the second pass")
        assert passes.most == 1

    scenario(test)


def test_models_do_not_wait_for_each_other() -> None:
    async def test(loops: Loops, passes: Passes) -> None:
        passes.gate = asyncio.Event()
        loops.wake(KEY)
        loops.wake(OTHER)
        await until(lambda: passes.running == 2, "both")
        passes.gate.set()

    scenario(test)


def test_a_quiet_model_is_looked_at_all_the_same() -> None:
    async def test(loops: Loops, passes: Passes) -> None:
        loops.wake(KEY)
        await until(lambda: len(passes.done) >= 3, "three passes")
        assert passes.done[:3] == [("chat", False), ("chat", True), ("chat", True)]

    scenario(test, resync=0.02)


def test_a_pass_that_fails_is_tried_again() -> None:
    async def test(loops: Loops, passes: Passes) -> None:
        passes.errors = [errors.APIConflict("changed")]
        loops.wake(KEY)
        await until(lambda: len(passes.done) == 2, "another try")

    scenario(test)


def test_a_model_that_is_gone_has_no_loop_and_one_that_comes_back_has_one_again() -> None:
    async def test(loops: Loops, passes: Passes) -> None:
        passes.delay = None
        loops.wake(KEY)
        await until(lambda: passes.done and not loops._loops, "its end")
        loops.wake(KEY)
        await until(lambda: len(passes.done) == 2, "a new beginning")

    scenario(test)
