"""Temperature, top-p and seed for each request of a batch, while the manager itself stays greedy.

A greedy pick of `scores / temperature + Gumbel noise` is a draw from `softmax(scores / temperature)` (the Gumbel-max
trick; Gumbel 1954, Maddison et al. 2014). So one batch can mix greedy and sampled requests, a greedy row is left
bit for bit as it was, and the noise is a hash of (seed, position, token) instead of a generator's state: a seeded
request repeats itself whatever it is batched with, and a captured CUDA graph replays it rightly.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.logits_process import LogitsProcessorList

_MASK = 0xFFFFFFFF
_KEY_MAX = 0x7FFFFFFF
_COLDEST = 1e-5  # below, scores divided by it overflow and are all alike; vLLM draws the line there too


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. A temperature of (nearly) 0 is greedy and ignores the rest."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def arguments(self) -> dict[str, Any]:
        """As the processors below take them from the manager."""
        if self.temperature < _COLDEST:
            return {}
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return {"temperature": float(self.temperature), "top_p": float(self.top_p), "seed": seed}


GREEDY = Sampling()


class _PerRequest(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """One 32-bit argument a request. `neutral` leaves a row as it is."""

    ignored_kwargs = ()
    neutral: float | int
    dtype: torch.dtype

    def argument(self, state: Any) -> float | int:
        """The request's argument for this step."""
        raise NotImplementedError

    def apply(self, scores: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        """Change `scores` (tokens, vocabulary) by `argument` (tokens, 1)."""
        raise NotImplementedError

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.copy_(torch.full_like(int32_tensor, self.neutral, dtype=self.dtype).view(torch.int32))

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        values = [
            self.argument(r.state) if r.state.logit_processor_kwargs else self.neutral for r in requests_with_new_token
        ]
        return torch.tensor(values, dtype=self.dtype).view(torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        argument = tensor_arg[: scores.size(0)].view(self.dtype).unsqueeze(-1)
        # On a CPU a look at the arguments is free and saves the work; on a device it would wait for the stream.
        if scores.device.type == "cpu" and bool((argument == self.neutral).all()):
            return scores
        return self.apply(scores, argument)


class _Temperature(_PerRequest):
    supported_kwargs = {"temperature": float}  # noqa: RUF012 -- the library's own form
    neutral, dtype = 1.0, torch.float32

    def argument(self, state: Any) -> float:
        return float(state.logit_processor_kwargs["temperature"])

    def apply(self, scores: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        return scores / argument


class _TopP(_PerRequest):
    supported_kwargs = {"top_p": float}  # noqa: RUF012
    neutral, dtype = 1.0, torch.float32

    def argument(self, state: Any) -> float:
        return float(state.logit_processor_kwargs["top_p"])

    def apply(self, scores: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        ordered, where = scores.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        outside = (before >= argument) & (argument < 1.0)  # the first token always stays: nothing is before it
        return scores.masked_fill(outside.scatter(-1, where, outside), float("-inf"))


class _Noise(_PerRequest):
    supported_kwargs = {"seed": int}  # noqa: RUF012
    neutral, dtype = 0, torch.int32

    def argument(self, state: Any) -> int:
        return _key(state.logit_processor_kwargs["seed"], state.position_offset)

    def apply(self, scores: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        noise = _gumbel(argument.long(), scores.size(-1))
        return torch.where(argument != 0, scores + noise, scores)


def _key(seed: int, position: int) -> int:
    """31 bits, never 0, that differ for each step of each seed."""
    data = f"{seed}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest()) % _KEY_MAX + 1


def _gumbel(keys: torch.Tensor, width: int) -> torch.Tensor:
    """Noise of shape (len(keys), width) from a hash of key and column; 23 bits, all strictly inside (0, 1)."""
    columns = torch.arange(width, device=keys.device)
    bits = _mix(_mix(keys) ^ (columns * 0x9E3779B1 & _MASK))
    uniform = ((bits >> 9).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def _mix(x: torch.Tensor) -> torch.Tensor:
    """The finaliser of MurmurHash3 (Appleby), on the low 32 bits of int64."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def processors() -> ContinuousBatchingLogitsProcessorList:
    """What a manager that was made greedy is given, before its first batch."""
    made = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([_Temperature(), _TopP(), _Noise()]))
    made.tensors_required = len(made.logits_processor)  # the library counts only those that it converted itself
    return made
