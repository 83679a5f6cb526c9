"""Places of a version's chat templates: each is given back, whatever becomes of its work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from modelparams_serving.engine.rendering import Renderer


class Panic(BaseException):
    """As pyo3 raises it for a panic of Rust."""


def panics() -> NoReturn:
    raise Panic("called unwrap on None")


def cannot_start(_: threading.Thread) -> NoReturn:
    raise RuntimeError("can't start new thread")


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
