"""Sampling as noise on a greedy pick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from modelparams_serving.engine.sampling import GREEDY, Sampling, processors

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])


def run(scores: torch.Tensor, wishes: list[Sampling], position: int = 0) -> torch.Tensor:
    """Process `scores` (rows, vocabulary) as a manager does."""
    made: Any = processors()
    requests = [
        SimpleNamespace(
            has_new_token=True, state=SimpleNamespace(logit_processor_kwargs=w.arguments(), position_offset=position)
        )
        for w in wishes
    ]
    storage = torch.zeros(made.tensors_required, len(wishes) + 3, dtype=torch.int32)
    arguments = made.prepare_tensor_args(requests, storage)
    return made(None, scores, arguments[:, : len(wishes)])


def draws(wish: Sampling, count: int) -> torch.Tensor:
    """Tokens at `count` positions."""
    return torch.tensor([int(run(LOGITS[None], [wish], at).argmax()) for at in range(count)])


def test_a_greedy_row_is_left_bit_for_bit_beside_a_sampled_one() -> None:
    scores = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    out = run(scores.clone(), [GREEDY, Sampling(0.7, 0.9, 5), GREEDY])
    assert torch.equal(out[[0, 2]], scores[[0, 2]])
    assert not torch.equal(out[1], scores[1])


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    count = 4000
    found = draws(Sampling(1.5, 1.0, 11), count).bincount(minlength=5) / count
    wanted = (LOGITS / 1.5).softmax(-1)
    # Five standard deviations of each share.
    assert bool(((found - wanted).abs() < 5 * (wanted * (1 - wanted) / count).sqrt()).all())


def test_top_p_never_gives_a_token_outside_the_nucleus() -> None:
    shares = LOGITS.softmax(-1)
    assert float(shares[:2].sum()) > 0.85 > float(shares[0])
    assert set(draws(Sampling(1.0, 0.85, 3), 500).tolist()) == {0, 1}


def test_a_tiny_top_p_is_greedy() -> None:
    assert set(draws(Sampling(2.0, 1e-6, 3), 100).tolist()) == {0}


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10_000))
def test_a_seed_repeats_itself_whatever_it_is_batched_with(seed: int, position: int) -> None:
    wish = Sampling(1.0, 0.95, seed)
    alone = run(LOGITS[None], [wish], position)
    beside = run(LOGITS.repeat(2, 1), [Sampling(0.3, 1.0, 1), wish], position)
    assert torch.equal(alone[0], beside[1])


def test_other_seeds_and_positions_give_other_draws() -> None:
    assert not torch.equal(draws(Sampling(1.0, 1.0, 1), 50), draws(Sampling(1.0, 1.0, 2), 50))
    assert len(set(draws(Sampling(1.0, 1.0, 1), 50).tolist())) > 1
    assert Sampling(1.0).arguments()["seed"] != Sampling(1.0).arguments()["seed"]
