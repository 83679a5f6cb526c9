"""Embeddings: the last hidden state, pooled as the version's assets say."""

from __future__ import annotations

from typing import Any

import torch

from modelparams.assets import Assets
from modelparams.errors import LayoutMismatch
from modelparams_serving.engine.passes import OnePass

_MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


class Embedder(OnePass):
    """One vector for each text: the mean over its tokens, or its first token."""

    def __init__(self, model: Any, assets: Assets, *, max_batch_tokens: int) -> None:
        super().__init__(model, max_batch_tokens=max_batch_tokens, max_sequence=assets.max_sequence)
        self._normalize, self._mode = assets.normalize, _pooling(assets)

    def read(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        """Pool (texts, width, size) to (texts, size)."""
        hidden, weights = output.last_hidden_state.float(), mask.unsqueeze(-1).float()
        pooled = hidden[:, 0] if self._mode == "cls" else (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(pooled) if self._normalize else pooled


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
