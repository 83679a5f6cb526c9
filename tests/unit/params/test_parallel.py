"""Many things by a few threads: each once, the first failure ends all, what was cancelled never looks finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from modelparams.parallel import Stopped, for_each
from modelparams.uninterrupted import uninterrupted


def test_every_item_is_done_once_by_no_more_threads_than_allowed() -> None:
    done: list[int] = []
    threads: set[int] = set()

    def make_worker(_: Stopped) -> Callable[[int], None]:
        threads.add(threading.get_ident())
        return done.append

    for_each(range(1000), make_worker, workers=3)
    assert sorted(done) == list(range(1000))
    assert len(threads) <= 3


def test_one_thread_takes_items_in_order() -> None:
    done: list[str] = []
    for_each("abc", lambda _: done.append, workers=1)
    assert done == ["a", "b", "c"]


def test_the_first_failure_is_raised_and_the_others_are_told_to_stop() -> None:
    began, told = threading.Barrier(2), threading.Event()

    def make_worker(stopped: Stopped) -> Callable[[str], None]:
        def work(item: str) -> None:
            began.wait(10)
            if item == "bad":
                raise ValueError(item)
            while not stopped():
                pass
            told.set()

        return work

    with pytest.raises(ValueError, match="bad"):
        for_each(["bad", "long"], make_worker, workers=2)
    assert told.is_set()


def test_a_worker_that_cannot_be_made_is_a_failure_too() -> None:
    def make_worker(_: Stopped) -> Callable[[int], None]:
        raise MemoryError

    with pytest.raises(MemoryError):
        for_each([1], make_worker, workers=2)


def test_a_failure_in_cancelled_itself_is_not_lost() -> None:
    def cancelled() -> bool:
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        for_each([1], lambda _: lambda _: None, workers=1, cancelled=cancelled)


def test_a_cancellation_that_was_seen_counts_even_if_it_is_taken_back() -> None:
    answers = iter([False, True])

    def make_worker(stopped: Stopped) -> Callable[[int], None]:
        def work(item: int) -> None:
            assert stopped()  # and leaves its item undone

        return work

    with pytest.raises(CancelledError):
        for_each([1], make_worker, workers=1, cancelled=lambda: next(answers, False))


def test_an_interrupt_while_it_waits_ends_the_workers_first(interrupting: Callable[[], None]) -> None:
    began, ended = threading.Barrier(2), list[int]()

    def make_worker(stopped: Stopped) -> Callable[[int], None]:
        def work(item: int) -> None:
            began.wait(10)
            if item == 0:
                interrupting()
            while not stopped():
                pass
            threading.Event().wait(0.05)  # a read that does not end at once
            ended.append(item)

        return work

    with pytest.raises(KeyboardInterrupt):
        for_each([0, 1], make_worker, workers=2)
    assert sorted(ended) == [0, 1]


def test_two_interrupts_at_once_end_the_workers_first_too(
    interrupting: Callable[[], None],
) -> None:
    """The handler of the second runs while the first one's exception is being caught."""
    main, ended = threading.main_thread().ident, list[bool]()
    before = signal.signal(signal.SIGUSR2, signal.getsignal(signal.SIGUSR1))

    def make_worker(stopped: Stopped) -> Callable[[int], None]:
        def work(_: int) -> None:
            assert main is not None
            signal.pthread_kill(main, signal.SIGUSR2)
            interrupting()
            while not stopped():
                pass
            threading.Event().wait(0.05)
            ended.append(True)

        return work

    try:
        with pytest.raises(KeyboardInterrupt):
            for_each([1], make_worker, workers=1)
        assert ended == [True]
    finally:
        signal.signal(signal.SIGUSR2, before)


LACKS = [RuntimeError("can't start new thread"), MemoryError()]


@pytest.mark.parametrize("lack", LACKS, ids=repr)
def test_when_a_thread_cannot_be_started_the_others_end_first(monkeypatch: pytest.MonkeyPatch, lack: Exception) -> None:
    start, began, ended = threading.Thread.start, threading.Event(), list[bool]()

    def limited(thread: threading.Thread) -> None:
        if thread.name == "modelparams-1":
            began.wait(10)
            raise lack
        start(thread)

    def make_worker(stopped: Stopped) -> Callable[[int], None]:
        def work(_: int) -> None:
            began.set()
            while not stopped():
                pass
            ended.append(True)

        return work

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(type(lack)):
        for_each([1, 2], make_worker, workers=2)
    assert ended == [True]


def test_work_that_had_not_begun_before_an_interrupt_is_not_done_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    late, done = list[Callable[[], None]](), list[bool]()

    def interrupted(run: Callable[[], None], _: tuple[()]) -> None:
        late.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr("_thread.start_new_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        uninterrupted(lambda: done.append(True), lambda: None)
    late[0]()  # the thread that was begun all the same
    assert done == []


@pytest.mark.parametrize("lack", LACKS, ids=repr)
def test_without_a_thread_for_it_work_is_done_where_it_may_be_torn(
    monkeypatch: pytest.MonkeyPatch, lack: Exception
) -> None:
    """Such as to wipe what was opened: it may not be left because there is no memory."""

    def none(*_: object) -> None:
        raise lack

    monkeypatch.setattr("_thread.start_new_thread", none)
    assert uninterrupted(lambda: "done", lambda: None) == "done"
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0, lambda: None)


def test_nothing_to_do_is_done_at_once() -> None:
    for_each([], lambda _: pytest.fail, workers=2)
