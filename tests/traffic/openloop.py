"""An open-loop load of streaming chat requests.

Requests leave at instants that were fixed beforehand, whether or not earlier ones are answered, and latency counts
from that instant: a closed loop would wait through a stall and hide it ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came of it. Times are seconds of `time.monotonic`."""

    due: float
    ended: float
    pod: str
    error: str = ""
    version: str = ""
    digest: str = ""
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    text: str = ""
    versions_named: frozenset[str] = frozenset()
    """Every version that a header or chunk named: more than one is a tear."""

    @property
    def latency(self) -> float:
        """Seconds from the instant at which it was due to its last byte."""
        return self.ended - self.due


@dataclass
class OpenLoop:
    """Sends `rate` requests a second to the pods that are ready, at Poisson instants (seeded).

    `ready` is asked before each request and gives (pod name, base URL) pairs; requests go round.
    """

    ready: Callable[[], Sequence[tuple[str, str]]]
    prompts: Sequence[str]
    rate: float
    max_tokens: int = 24
    seed: int = 0
    answers: list[Answer] = field(default_factory=list)
    _sent: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Send until `stop`, then wait for what is under way."""
        dice, due = random.Random(self.seed), time.monotonic()
        async with httpx.AsyncClient(timeout=_TIMEOUT) as client, asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                due += dice.expovariate(self.rate)
                if await self._stopped_before(due):
                    return
                group.create_task(self._send(client, due, self.prompts[self._sent % len(self.prompts)]))
                self._sent += 1

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()

    async def _stopped_before(self, due: float) -> bool:
        try:
            await asyncio.wait_for(self._stop.wait(), max(0.0, due - time.monotonic()))
        except TimeoutError:
            return False
        return True

    async def _send(self, client: httpx.AsyncClient, due: float, prompt: str) -> None:
        pods = self.ready()
        if not pods:
            self.answers.append(Answer(due, time.monotonic(), "", error="no pod is ready"))
            return
        pod, url = pods[self._sent % len(pods)]
        try:
            self.answers.append(await ask(client, url, prompt, max_tokens=self.max_tokens, due=due, pod=pod))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self.answers.append(Answer(due, time.monotonic(), pod, error=f"{type(error).__name__}: {error}"[:300]))


async def ask(
    client: httpx.AsyncClient, url: str, prompt: str, *, max_tokens: int, due: float | None = None, pod: str = ""
) -> Answer:
    """Stream one greedy chat answer with its token ids.

    Raises:
        httpx.HTTPError: no answer, or another status than 200.
        ValueError: the stream ended without its end mark.
    """
    due = time.monotonic() if due is None else due
    request = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "return_token_ids": True,
    }
    chunks: list[dict[str, Any]] = []
    async with client.stream("POST", f"{url}/v1/chat/completions", json=request) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            raise httpx.HTTPStatusError(response.text[:200], request=response.request, response=response)
        named = {response.headers["x-modelparams-version"]}
        digest = response.headers["x-modelparams-digest"]
        done = False
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunks.append(json.loads(line.removeprefix("data: ")))
    if not done:
        raise ValueError("the stream ended before its end mark")
    return _answer(chunks, named, digest, due, pod)


def _answer(chunks: list[dict[str, Any]], named: set[str], digest: str, due: float, pod: str) -> Answer:
    failed = next((c["error"] for c in chunks if c.get("error")), None)
    if failed:
        raise ValueError(f"the stream carried an error: {failed}")
    versions = named | {c["model_params"]["version"] for c in chunks if "model_params" in c}
    choices = [choice for c in chunks for choice in c.get("choices", ())]
    return Answer(
        due=due,
        ended=time.monotonic(),
        pod=pod,
        version=min(versions),
        digest=digest,
        prompt_token_ids=tuple(next((c["prompt_token_ids"] for c in chunks if c.get("prompt_token_ids")), ())),
        token_ids=tuple(token for choice in choices for token in choice.get("token_ids") or ()),
        text="".join(choice.get("delta", {}).get("content") or "" for choice in choices),
        versions_named=frozenset(versions),
    )
