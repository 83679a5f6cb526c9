"""Text generation: the continuous-batching manager of transformers around one resident model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig

from modelparams_serving.engine.sampling import GREEDY, Sampling, processors
from modelparams_serving.engine.settings import EngineSettings

_CPU_PAGE, _CUDA_PAGE = 64, 256
_STOP_SECONDS = 30.0
_LOOK_EVERY = 1.0  # seconds
_IDS = 1 << 31


class GenerationFailed(Exception):
    """The manager gave a request up: its thread died, or the model raised."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is to be continued, and until when."""

    token_ids: Sequence[int]
    max_tokens: int
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens of one request. `finish` is `stop` or `length` with the last ones."""

    ids: tuple[int, ...]
    finish: str = ""


class TextGenerator:
    """Owns one manager, and so one KV cache: nothing of it is ever shared with another version."""

    def __init__(self, model: Any, *, eos: Sequence[int], settings: EngineSettings) -> None:
        on_cuda = model.device.type == "cuda"
        page = settings.page_tokens or (_CUDA_PAGE if on_cuda else _CPU_PAGE)
        self._eos, self._numbers = frozenset(eos), itertools.count()
        greedy: Any = GenerationConfig
        self._manager: Any = model.init_continuous_batching(
            greedy(do_sample=False, eos_token_id=list(eos) or -1, max_new_tokens=1),
            ContinuousBatchingConfig(
                page_size=page,
                num_blocks=settings.num_blocks,
                max_batch_tokens=settings.max_batch_tokens,
                max_requests_per_batch=settings.max_requests,
                # Looking for flash kernels may ask a hub for them; an installed one was chosen when the model was made.
                auto_switch_to_flash=False,
                # Else the library (5.24) takes a cancellation up between a batch's start and its update, which ends
                # its thread: each client that leaves would end the engine, on CUDA with flash attention.
                use_async_batching=False,
            ),
        )
        self._manager.logit_processor = processors()
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        """Token ids are below this."""
        self.context = min(settings.num_blocks * page, _positions(model.config))
        """Tokens that one request may have in all. A longer one could never be scheduled and would end the manager."""

    def allocate(self) -> None:
        """Make the KV cache (and on CUDA capture the graphs). Slow; needs no thread of its own."""
        self._manager.warmup()
        _let_in_after_a_cancellation(self._manager.batch_processor.scheduler)

    def start(self) -> None:
        """Begin to serve. The manager's thread inherits the priority of the caller's."""
        self._manager.start()

    @property
    def alive(self) -> bool:
        """False once the manager's thread has ended, or is about to: it fails its requests before it says why."""
        return (
            bool(self._manager.is_running())
            and self._manager.background_thread_status.can_accept_new_requests() is None
        )

    async def tokens(self, prompt: Prompt, *, every: bool) -> AsyncGenerator[Tokens]:
        """Yield tokens as they come, or all at the end unless `every`. Leaving early cancels the request.

        Raises:
            GenerationFailed: the manager gave up.
        """
        name, outputs = f"r{next(self._numbers)}", asyncio.Queue[Any]()
        self._manager.register_result_handler(name, outputs.put_nowait)
        given, finished = 0, False
        try:
            self._submit(name, prompt, every=every)
            while not finished:
                output = await self._next(outputs)
                while not outputs.empty():  # each holds all tokens so far: when they come fast, take the newest
                    output = outputs.get_nowait()
                if output.error is not None:
                    raise GenerationFailed(output.error)
                finished = output.is_finished()
                ids = tuple(output.generated_tokens[given:])
                given += len(ids)
                yield Tokens(ids, self._finish(ids) if finished else "")
        finally:
            if not finished:
                self._cancel(name)

    async def _next(self, outputs: asyncio.Queue[Any]) -> Any:
        """Wait for an output, but not for a thread that died without telling of every request it had."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    return await outputs.get()
            if not self.alive and outputs.empty():
                raise GenerationFailed("the generation thread has ended")

    def _submit(self, name: str, prompt: Prompt, *, every: bool) -> None:
        accepted = self._manager.add_request(
            list(prompt.token_ids),
            request_id=name,
            max_new_tokens=prompt.max_tokens,
            streaming=every,
            **prompt.sampling.arguments(),
        )
        if accepted is None:
            raise GenerationFailed("the generation thread has ended")

    def _finish(self, ids: tuple[int, ...]) -> str:
        return "stop" if ids and ids[-1] in self._eos else "length"

    def _cancel(self, name: str) -> None:
        self._manager.cancel_request(name)
        router = self._manager.output_router  # it forgets a handler only with a last result, which no longer comes
        with router._lock:
            router.result_handlers.pop(name, None)

    def stop(self) -> None:
        """End the thread and free the KV cache; running requests fail."""
        if self._manager.is_running():
            self._manager.stop(block=True, timeout=_STOP_SECONDS, hard_stop=True)
        with suppress(AttributeError):
            self._manager.destroy()
        self._manager.batch_processor = None


def _let_in_after_a_cancellation(scheduler: Any) -> None:
    """Mend a wedge of the library: when the KV cache was full, it lets nobody in until a request *finishes*.

    One that is cancelled (its client left, or its stop word came) never does: with nothing active, all others would
    wait for ever. The scheduler's thread clears the cancelled ones before each batch.
    """
    clear = scheduler.clear_cancelled_requests

    def cleared() -> Any:
        cancelled = clear()
        if not scheduler.active_requests:
            scheduler.block_new_requests = False
        return cancelled

    scheduler.clear_cancelled_requests = cleared


def _positions(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def end_tokens(config: Any, generation: Callable[[str], Any]) -> tuple[int, ...]:
    """Ids that end an answer: generation_config.json's, else config.json's. Some write -1 for none.

    Raises:
        ValueError: they are no ids.
    """
    found = generation("eos_token_id")
    if found is None:
        found = getattr(config.get_text_config(), "eos_token_id", None)
    if found is None:
        return ()
    ids = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not all(type(one) is int and one < _IDS for one in ids):
        raise ValueError("eos_token_id is no token id, nor a list of them")
    return ids
