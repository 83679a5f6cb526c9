"""The open-loop load beside which something is measured."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from models import smollm2
from traffic.openloop import Answer, OpenLoop

# Well below what two slow cores answer: near saturation a queue's latency says nothing of a swap. Short answers make
# room for more of them.
_RATE, _TOKENS = 1.0, 8
_PROMPTS = (smollm2.PROMPT, "How many days are in a week?", "Who wrote Hamlet?", "What is water made of?")


@contextlib.contextmanager
def load(ready: Callable[[], Sequence[tuple[str, str]]], *, seed: int) -> Iterator[list[Answer]]:
    """Send until the block ends, then wait for what is under way; the list then holds all answers.

    Args:
        ready: name and base URL of whatever answers, asked before each request.
        seed: of the arrivals.
    """
    loop = OpenLoop(ready, _PROMPTS, _RATE, max_tokens=_TOKENS, seed=seed)
    thread = threading.Thread(target=lambda: asyncio.run(loop.run()))
    thread.start()
    try:
        yield loop.answers
    finally:
        loop.stop()
        thread.join()
