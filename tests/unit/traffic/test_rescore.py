"""The judge of torn answers, itself judged: what it lets pass, and what it must not."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from builders.arenas import SAMPLES
from traffic.openloop import Answer
from traffic.rescore import Rescorer

pytestmark = pytest.mark.model
VERSIONS = ("1.0.0", "1.1.0")
PROMPTS = [(9, 8, 7), (100, 101, 102, 103), (42,)]
LENGTH = 12


@lru_cache
def rescorer() -> Rescorer:
    return Rescorer({version: SAMPLES / f"v{version}" for version in VERSIONS})


@lru_cache
def model_of(version: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(SAMPLES / f"v{version}", dtype="auto").eval()


def greedy(version: str, tokens: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`tokens` and `count` more that the version chooses, each by a pass of its own."""
    import torch

    with torch.inference_mode():
        for _ in range(count):
            tokens = (*tokens, int(model_of(version)(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens


def answer(prompt: tuple[int, ...], tokens: tuple[int, ...], *named: str) -> Answer:
    return Answer(
        due=0.0,
        ended=1.0,
        pod="a",
        version=min(named),
        prompt_token_ids=prompt,
        token_ids=tokens,
        versions_named=frozenset(named),
    )


def turned_at(place: int, prompt: tuple[int, ...], first: str, second: str) -> tuple[int, ...]:
    """An answer that one version began and the other one went on with after `place` tokens."""
    return greedy(second, greedy(first, prompt, place), LENGTH - place)[len(prompt) :]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_version_said_alone_is_whole(version: str, prompt: tuple[int, ...]) -> None:
    whole = answer(prompt, greedy(version, prompt, LENGTH)[len(prompt) :], version)
    assert not rescorer().is_torn(whole)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("place", [1, 4, 8])
@pytest.mark.parametrize(("first", "second"), [VERSIONS, VERSIONS[::-1]])
def test_what_one_version_began_and_the_other_went_on_with_is_torn_whichever_it_names(
    first: str, second: str, place: int, prompt: tuple[int, ...]
) -> None:
    tokens = turned_at(place, prompt, first, second)
    assert rescorer().is_torn(answer(prompt, tokens, first))
    assert rescorer().is_torn(answer(prompt, tokens, second))


def test_what_the_other_version_said_alone_is_torn_too() -> None:
    said = greedy("1.1.0", PROMPTS[0], LENGTH)[len(PROMPTS[0]) :]
    assert rescorer().is_torn(answer(PROMPTS[0], said, "1.0.0"))


def test_an_answer_that_cannot_be_checked_is_not_taken_for_whole() -> None:
    prompt, said = PROMPTS[0], greedy("1.0.0", PROMPTS[0], LENGTH)[len(PROMPTS[0]) :]
    assert rescorer().is_torn(answer(prompt, said, *VERSIONS))
    assert rescorer().is_torn(answer(prompt, said, "1.2.0"))
    assert rescorer().is_torn(answer(prompt, (), "1.0.0"))
    assert rescorer().is_torn(answer((), said, "1.0.0"))


def test_of_many_answers_exactly_the_torn_ones_are_found_also_repeated_ones() -> None:
    prompt = PROMPTS[0]
    whole = answer(prompt, greedy("1.0.0", prompt, LENGTH)[len(prompt) :], "1.0.0")
    torn = answer(prompt, turned_at(4, prompt, "1.0.0", "1.1.0"), "1.0.0")
    assert rescorer().torn([whole, torn, whole, torn]) == [torn, torn]
