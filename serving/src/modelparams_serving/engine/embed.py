"""Embeddings: one thread a resident model that takes whatever waits into its next forward pass."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from modelparams.errors import LayoutMismatch
from modelparams_serving.engine.assets import Assets

_DEFAULT_POSITIONS = 512
_MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


@dataclass(frozen=True, slots=True)
class _Job:
    token_ids: Sequence[int]
    answer: Future[list[float]]


class Embedder:
    """Pools the last hidden state as the version's assets say: mean over tokens, or the first token."""

    def __init__(self, model: Any, assets: Assets, *, max_batch_tokens: int) -> None:
        self._model, self._normalize, self._mode = model, assets.normalize, _pooling(assets)
        self._max_batch_tokens = max_batch_tokens
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="embedder", daemon=True)
        positions = int(getattr(model.config, "max_position_embeddings", _DEFAULT_POSITIONS))
        self.context = min(positions, assets.max_sequence or positions)
        """Tokens that one text may have; the rest is cut off, as sentence-transformers does."""

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once the thread has ended."""
        return self._thread.is_alive()

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Give one vector for each text's token ids.

        Raises:
            RuntimeError: the forward pass failed.
        """
        jobs = [_Job(ids, Future()) for ids in texts]
        for job in jobs:
            self._jobs.put(job)
        return list(await asyncio.gather(*(asyncio.wrap_future(job.answer) for job in jobs)))

    def forward(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Embed one batch on the caller's thread."""
        width = max(len(ids) for ids in texts)
        device = self._model.device
        ids = torch.tensor([[*t, *[0] * (width - len(t))] for t in texts], device=device)
        mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts], device=device)
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (texts, width, size)
            weights = mask.unsqueeze(-1).float()
            pooled = hidden[:, 0] if self._mode == "cls" else (hidden * weights).sum(1) / weights.sum(1)
            result: list[list[float]] = (torch.nn.functional.normalize(pooled) if self._normalize else pooled).tolist()
        return result

    def stop(self) -> None:
        """End the thread; jobs under way finish first."""
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, last = self._gather(job)
            batch = [job for job in batch if job.answer.set_running_or_notify_cancel()]
            if batch:
                self._answer(batch)
            if last:
                return

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        batch, widest = [first], len(first.token_ids)
        while widest * (len(batch) + 1) <= self._max_batch_tokens:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
            widest = max(widest, len(job.token_ids))
        return batch, False

    def _answer(self, batch: list[_Job]) -> None:
        try:
            vectors = self.forward([job.token_ids for job in batch])
        except Exception as error:  # the waiters must learn of whatever torch raises
            for job in batch:
                job.answer.set_exception(RuntimeError(f"the forward pass failed: {type(error).__name__}"))
            return
        for job, vector in zip(batch, vectors, strict=True):
            job.answer.set_result(vector)


def _pooling(assets: Assets) -> str:
    """`mean` or `cls`.

    Raises:
        LayoutMismatch: the version wants another pooling.
    """
    if not assets.pooling:
        return "mean"
    for mode, flag in _MODES.items():
        if assets.pooling.get(flag) or assets.pooling.get("pooling_mode") == mode:
            return mode
    raise LayoutMismatch("1_Pooling/config.json wants a pooling that is not served", hint="publish with mean or cls")
