"""Places of a version's chat templates: each is given back, whatever becomes of its work."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import pytest

from modelparams_serving.engine import rendering
from modelparams_serving.engine.rendering import Renderer


class Panic(BaseException):
    """As pyo3 raises it for a panic of Rust."""


def panics() -> NoReturn:
    raise Panic("called unwrap on None")


def cannot_start(_: threading.Thread) -> NoReturn:
    raise RuntimeError("can't start new thread")


def test_many_wait_in_line_for_as_long_as_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_STILL_SECONDS", 0.01)
    monkeypatch.setattr(rendering, "monotonic", lambda: 0.0)  # somebody has just moved, whenever one looks

    async def scene() -> list[bool]:
        renderer, ends = Renderer(), [threading.Event() for _ in range(8)]
        asked = [asyncio.create_task(renderer.run(partial(end.wait, 10))) for end in ends]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(asked[-1])
        for end in ends:
            end.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(scene()) == [True] * 8


def test_who_waits_behind_what_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_STILL_SECONDS", 0.05)

    async def scene() -> None:
        renderer, end = Renderer(), threading.Event()
        endless = [asyncio.create_task(renderer.run(partial(end.wait, 10))) for _ in range(4)]
        await asyncio.sleep(0)  # they have the places
        with pytest.raises(TimeoutError):
            await renderer.run(lambda: None)
        end.set()
        assert await asyncio.gather(*endless) == [True] * 4

    asyncio.run(scene())


@pytest.mark.parametrize("fault", ["the tokenizer panics", "no thread can be started"])
def test_what_goes_wrong_keeps_no_place(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        renderer = Renderer()
        work: Callable[[], str] = panics
        if fault == "no thread can be started":
            monkeypatch.setattr(threading.Thread, "start", cannot_start)
        for _ in range(9):
            with pytest.raises(RuntimeError, match=r"gave up: Panic|can't start"):
                await renderer.run(work)
        monkeypatch.undo()
        assert await renderer.run(lambda: "rendered") == "rendered"

    asyncio.run(scene())
