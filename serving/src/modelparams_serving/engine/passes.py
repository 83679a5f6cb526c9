"""Models that answer a text by one forward pass: one thread a resident takes whatever waits into its next pass."""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

_DEFAULT_POSITIONS = 512
Row: TypeAlias = "array[float]"  # of float32: a list of as many numbers takes eight times the memory


class PassFailed(Exception):
    """A forward pass raised, or gave numbers that are none."""


@dataclass(frozen=True, slots=True)
class _Job:
    token_ids: Sequence[int]
    answer: Future[Row]


class OnePass(ABC):
    """Gives a row of numbers for each text. What the numbers are is `read`'s, in a subclass."""

    def __init__(
        self, model: Any, *, max_batch_tokens: int, max_sequence: int | None = None, alone: bool = False
    ) -> None:
        """Take a model whose parameters are bound.

        Args:
            model: of transformers.
            max_batch_tokens: of one pass, padding included; a longer text goes alone.
            max_sequence: what the version says it was made for, in tokens.
            alone: give the model one text a pass, since it cannot tell padding from text.
        """
        config = model.config.get_text_config()
        config.use_cache = False  # nothing follows a pass that could use it
        self._model, self._max_batch_tokens, self._alone = model, max_batch_tokens, alone
        self._pad = padding_token(model) or 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._held: deque[_Job | None] = deque()
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        """Token ids are below this."""
        self.context = min(_positions(model), max_sequence or _positions(model))
        """Tokens that one text may have."""
        self.width = 0
        """Numbers of one text's row; known after the first pass, which warms up."""

    @abstractmethod
    def read(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        """Give the rows (texts, numbers) of the model's output; `mask` (texts, width) is 1 where text is."""

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once the thread has ended."""
        return self._thread.is_alive()

    async def rows(self, texts: Sequence[Sequence[int]]) -> list[Row]:
        """Give one row for each text's token ids.

        Raises:
            PassFailed: there is no answer for one of them.
        """
        jobs = [_Job(ids, Future()) for ids in texts]
        for job in jobs:
            self._jobs.put(job)
        return list(await asyncio.gather(*(asyncio.wrap_future(job.answer) for job in jobs)))

    def forward(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Pass one batch on the caller's thread."""
        width = max(len(ids) for ids in texts)
        device = self._model.device
        ids = torch.tensor([[*t, *[self._pad] * (width - len(t))] for t in texts], device=device)
        mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts], device=device)
        with torch.inference_mode():
            return self.read(self._model(input_ids=ids, attention_mask=mask), mask).cpu()

    def stop(self) -> None:
        """End the thread; jobs under way finish first."""
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _serve(self) -> None:
        while (first := self._take()) is not None:
            batch = [job for job in self._gather(first) if job.answer.set_running_or_notify_cancel()]
            if batch:
                self._answer(batch)

    def _take(self) -> _Job | None:
        return self._held.popleft() if self._held else self._jobs.get()

    def _gather(self, first: _Job) -> list[_Job]:
        """Give what waits already and fits into one pass; hold back the first that does not."""
        batch, widest = [first], len(first.token_ids)
        while not self._alone:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            widest = max(widest, len(job.token_ids)) if job else widest
            if job is None or widest * (len(batch) + 1) > self._max_batch_tokens:
                self._held.append(job)
                break
            batch.append(job)
        return batch

    def _answer(self, batch: Sequence[_Job]) -> None:
        try:
            rows = self.forward([job.token_ids for job in batch])
        except Exception as error:  # the waiters must learn of whatever torch raises
            if len(batch) > 1:  # one text may have done it: the others shall not pay for it
                for job in batch:
                    self._answer([job])
            else:
                batch[0].answer.set_exception(PassFailed(f"the forward pass failed: {type(error).__name__}"))
            return
        self.width = rows.shape[-1]
        for job, row, sound in zip(batch, rows.tolist(), rows.isfinite().all(-1).tolist(), strict=True):
            if sound:
                job.answer.set_result(array("f", row))
            else:
                job.answer.set_exception(PassFailed("the forward pass gave NaN or infinity"))


def padding_token(model: Any) -> int | None:
    """Give config.json's pad_token_id; some write -1 for none."""
    found = getattr(model.config.get_text_config(), "pad_token_id", None)
    return int(found) if found is not None and int(found) >= 0 else None


def _positions(model: Any) -> int:
    """What the position table holds, less the rows up to its padding's, which RoBERTa and its kin give no token."""
    found = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _DEFAULT_POSITIONS)
    tables = (table for name, table in model.named_modules() if name.endswith("position_embeddings"))
    kept = getattr(next(tables, None), "padding_idx", None)
    return found if kept is None else found - kept - 1
