"""Was an answer made by the version that it names, alone? Rescore it token by token.

Greedy decoding gives, at each place, the token with the highest log-probability. Batching sums in another order and
may flip near ties, but never moves a token far: one that lies more than `TEAR_NATS` under that version's best one was
made by other parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from traffic.openloop import Answer

TEAR_NATS = 0.5


class Rescorer:
    """Holds one model a version: `directories` maps a version to what `save_pretrained` wrote."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._torch = torch
        self._models: dict[str, Any] = {
            version: AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()
            for version, path in directories.items()
        }

    def worst_gap(self, version: str, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float:
        """The largest distance in nats of a token under the best one at its place, 0 for a greedy answer."""
        torch, model = self._torch, self._models[version]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + tokens]), use_cache=False).logits[0]
            scores = logits[len(prompt) - 1 : -1].float().log_softmax(-1)  # (tokens, vocabulary)
            chosen = scores.gather(1, torch.tensor(tokens)[:, None])[:, 0]
            return float((scores.max(-1).values - chosen).max())

    def is_torn(self, answer: Answer) -> bool:
        """True when the answer mixes versions, names an unknown one, or could not have come from the one it names."""
        if len(answer.versions_named) != 1 or answer.version not in self._models:
            return True
        if not answer.prompt_token_ids or not answer.token_ids:
            return True  # what cannot be checked is not taken for right
        return self.worst_gap(answer.version, answer.prompt_token_ids, answer.token_ids) > TEAR_NATS

    def torn(self, answers: Iterable[Answer]) -> list[Answer]:
        """Those that are torn; equal answers are scored once."""
        verdicts: dict[tuple[object, ...], bool] = {}
        found = []
        for answer in answers:
            key = (answer.versions_named, answer.prompt_token_ids, answer.token_ids)
            if key not in verdicts:
                verdicts[key] = self.is_torn(answer)
            if verdicts[key]:
                found.append(answer)
        return found
