"""Classification of texts, by models that transformers calls *ForSequenceClassification."""

from __future__ import annotations

from typing import Any

import torch

from modelparams_serving.engine.passes import OnePass, padding_token


class Classifier(OnePass):
    """One number for each label, and the labels' names."""

    def __init__(self, model: Any, *, max_batch_tokens: int) -> None:
        # Without a padding token a decoder would take the padding's last position for the text's.
        super().__init__(model, max_batch_tokens=max_batch_tokens, alone=padding_token(model) is None)
        names = model.config.id2label
        self.labels = tuple(str(names.get(i, f"LABEL_{i}")) for i in range(model.config.num_labels))
        """The label of each number, from config.json."""
        self._kind = model.config.problem_type

    def read(self, output: Any, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 -- the model has used the mask
        """Turn logits (texts, labels) into what vLLM and the library's own pipeline give.

        Probabilities that sum to 1; one for each label on its own where a text can have several, or there is one
        label; the plain values of a regression.
        """
        logits: torch.Tensor = output.logits.float()
        if self._kind == "regression":
            return logits
        if self._kind == "multi_label_classification" or len(self.labels) == 1:
            return logits.sigmoid()
        return logits.softmax(-1)
