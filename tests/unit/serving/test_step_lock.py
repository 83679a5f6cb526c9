"""Steps of threads and of coroutines, and the swap that waits for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable

import pytest

from cluster.process import wait_until
from modelparams.errors import UsageError
from modelparams_serving import step_lock
from modelparams_serving.step_lock import GivenUp, StepLock


def until_a_swap_waits(lock: StepLock) -> None:
    """Or has been done."""
    wait_until(lambda: lock._gate.locked() or not lock._open, "a swap that waits", seconds=10)


class Swapping:
    """A swap in a thread of its own."""

    def __init__(self, lock: StepLock) -> None:
        self.done = threading.Event()
        self._lock, self._thread = lock, threading.Thread(target=self._swap)

    def _swap(self) -> None:
        with self._lock.swap():
            self.done.set()

    def begin(self) -> None:
        """Start it, and return once it waits for its turn."""
        self._thread.start()
        until_a_swap_waits(self._lock)

    def end(self) -> None:
        self._thread.join(10)
        assert self.done.is_set()


def running(test: Callable[[StepLock, Swapping], Awaitable[None]]) -> None:
    lock = StepLock()

    async def limited() -> None:
        async with asyncio.timeout(20):
            await test(lock, Swapping(lock))

    asyncio.run(limited())


def test_a_swap_waits_for_every_coroutine_whose_steps_overlap_in_one_thread() -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        first, second, ends = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def other() -> None:
            with lock.step():
                second.set()
                await ends.wait()

        with lock.step():
            beside = asyncio.create_task(other())
            await second.wait()
            swap.begin()
        assert not swap.done.is_set()
        first.set()
        assert not await asyncio.to_thread(swap.done.wait, 0.05)
        ends.set()
        await beside
        await asyncio.to_thread(swap.end)

    running(test)


def test_a_coroutine_that_waits_for_a_swap_holds_up_no_other() -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        seen: list[str] = []

        async def later() -> None:
            async with lock.step():
                seen.append("after" if swap.done.is_set() else "before")

        async with lock.step():
            swap.begin()
        # The step of a task that began in none of ours: it comes after the swap that waits.
        await asyncio.create_task(later())
        await asyncio.to_thread(swap.end)
        assert seen == ["after"]

    running(test)


def test_a_step_within_a_step_of_one_coroutine_waits_for_no_swap() -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        async with lock.step():
            swap.begin()
            async with lock.step():
                assert not swap.done.is_set()
        await asyncio.to_thread(swap.end)

    running(test)


@pytest.mark.parametrize("outer", ["with", "async with"])
@pytest.mark.parametrize("inner", ["with", "async with", "with, in a thread that it waits for"])
def test_a_step_within_a_step_of_another_kind_waits_for_no_swap_either(outer: str, inner: str) -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        def plain() -> None:
            with lock.step():
                assert not swap.done.is_set()

        async def nested() -> None:
            swap.begin()
            if inner == "async with":
                async with lock.step():
                    assert not swap.done.is_set()
            elif inner == "with":
                plain()
            elif outer == "async with":  # a thread knows of the coroutine that waits for it, and of no other thread
                await asyncio.to_thread(plain)

        if outer == "with":
            with lock.step():
                await nested()
        else:
            async with lock.step():
                await nested()
        await asyncio.to_thread(swap.end)

    running(test)


def test_steps_that_overlap_without_end_remember_no_more_than_those_that_last() -> None:
    lock = StepLock()
    last = lock.step()
    last.__enter__()
    first = weakref.ref(last)
    for _ in range(10):
        step = lock.step()
        step.__enter__()
        last.__exit__()
        last = step
    last.__exit__()
    gc.collect()
    assert first() is None


def test_a_step_that_could_not_begin_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = StepLock()

    def interrupted() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(lock, "is_inside", interrupted)
    with pytest.raises(KeyboardInterrupt), lock.step():
        pytest.fail("it is interrupted before")
    monkeypatch.undo()
    with lock.swap():
        pass


def forked(lock: StepLock) -> bool:
    """Whether a step can begin in a child that is forked now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: of the threads that a child has not
        child = os.fork()
    if not child:
        signal.alarm(30)  # one that waits for ever does not begin
        try:
            with lock.step():
                os._exit(0)
        except UsageError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def test_a_fork_that_has_a_swap_s_gate_and_not_its_thread_begins_steps_unless_it_is_torn() -> None:
    lock = StepLock()
    step, swap = lock.step(), Swapping(lock)
    elsewhere = threading.Thread(target=step.__enter__)  # or the child would be inside of it, and look at no gate
    elsewhere.start()
    elsewhere.join(10)
    swap.begin()
    assert lock._gate.locked()
    assert forked(lock), "the swap only waits"
    step.__exit__()
    swap.end()
    with lock.swap():
        assert not forked(lock), "its parameters are of two versions"
    assert forked(lock)


def test_a_step_is_begun_once() -> None:
    lock = StepLock()
    with lock.step() as _, contextlib.ExitStack() as twice:
        step = lock.step()
        twice.enter_context(step)
        with pytest.raises(UsageError, match="lasts already"):
            twice.enter_context(step)
        assert lock.is_open(step)
    with lock.swap():
        pass


def test_a_thread_s_step_within_a_coroutine_s_opens_no_door_to_other_coroutines() -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        inside, ends = asyncio.Event(), asyncio.Event()

        async def handler() -> None:
            async with lock.step():
                with lock.step():
                    pass
                inside.set()
                await ends.wait()

        async def late() -> bool:
            async with lock.step():
                return swap.done.is_set()

        first = asyncio.create_task(handler())
        await inside.wait()
        swap.begin()
        second = asyncio.create_task(late())
        await asyncio.sleep(0)
        ends.set()
        await first
        assert await second, "it went before the swap that waited"
        await asyncio.to_thread(swap.end)

    running(test)


def test_a_step_that_begins_as_the_one_around_it_ends_is_seen_by_a_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, inner = StepLock(), []
    outer = lock.step()
    outer.__enter__()
    is_inside = lock.is_inside

    def ends_then() -> bool:
        found = is_inside()
        outer.__exit__()
        inner.append(set(lock._open))
        return found

    monkeypatch.setattr(lock, "is_inside", ends_then)
    step = lock.step()
    with step:
        assert inner == [{step}]


def test_so_is_one_of_a_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(lock: StepLock, _: Swapping) -> None:
        outer, inner = lock.step(), list[set[step_lock.Step]]()
        await outer.__aenter__()
        is_inside = lock.is_inside

        def ends_then() -> bool:
            found = is_inside()
            lock.end(outer)
            inner.append(set(lock._open))
            return found

        monkeypatch.setattr(lock, "is_inside", ends_then)
        step = lock.step()
        async with step:
            assert inner == [{step}]

    running(test)


def test_a_swap_that_waits_long_says_what_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(step_lock, "_TELL_AFTER", 0)
    lock = StepLock()
    told = iter([False, False, False, True])
    step = lock.step()
    beginning = threading.Thread(target=step.__enter__)
    beginning.start()
    beginning.join(10)
    with pytest.raises(GivenUp), lock.swap(lambda: next(told)):
        pytest.fail("a step lasts")
    assert [record.message for record in caplog.records] == ["a swap waits for 1 steps to end: let none last for ever"]


def test_a_step_that_ends_in_another_thread_has_ended() -> None:
    lock = StepLock()
    step, swap = lock.step(), Swapping(lock)
    beginning = threading.Thread(target=step.__enter__)
    beginning.start()
    beginning.join(10)
    swap.begin()
    assert not swap.done.is_set()
    step.__exit__()
    swap.end()


def test_a_step_that_has_ended_opens_no_door_to_the_tasks_that_its_coroutine_begins_later() -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        async with lock.step():
            pass
        inside, ends = asyncio.Event(), asyncio.Event()

        async def long() -> None:
            async with lock.step():
                inside.set()
                await ends.wait()

        async def late() -> bool:
            async with lock.step():
                return swap.done.is_set()

        first = asyncio.create_task(long())
        await inside.wait()
        await asyncio.to_thread(lock.refuse_inside_step)  # an update may be asked for here
        swap.begin()
        second = asyncio.create_task(late())
        await asyncio.sleep(0)  # its first try
        ends.set()
        await first
        assert await second, "it went before the swap that waited"
        await asyncio.to_thread(swap.end)

    running(test)


def test_a_task_that_outlives_the_step_in_which_it_was_begun_waits_for_swaps_as_any_other() -> None:
    async def test(lock: StepLock, swap: Swapping) -> None:
        goes_on, ends = asyncio.Event(), asyncio.Event()

        async def child() -> bool:
            async with lock.step():  # of the one around: no wait
                await goes_on.wait()
            async with lock.step():
                return swap.done.is_set()

        async def sibling() -> None:
            async with lock.step():
                await ends.wait()

        async with lock.step():
            tasks = [asyncio.create_task(child()), asyncio.create_task(sibling())]
            await asyncio.sleep(0)
        swap.begin()
        goes_on.set()
        await asyncio.sleep(0)
        ends.set()
        assert await tasks[0], "it went before the swap that waited"
        await tasks[1]
        await asyncio.to_thread(swap.end)

    running(test)


def test_a_coroutine_inside_of_a_step_may_not_swap_nor_may_a_thread_that_it_waits_for() -> None:
    async def test(lock: StepLock, _: Swapping) -> None:
        async with lock.step():
            with pytest.raises(UsageError, match="inside of a step"):
                lock.refuse_inside_step()
            with pytest.raises(UsageError, match="inside of a step"):
                await asyncio.to_thread(lock.refuse_inside_step)
        lock.refuse_inside_step()

    running(test)
