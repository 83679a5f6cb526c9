"""Classification by a real, tiny model: what it answers, and from which version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from builders.arenas import Laid, of_directory, tiny
from builders.classifiers import LABELS, MODEL, classifier
from builders.engines import engine, put_live, stage, until
from modelparams_serving.engine.__main__ import Engine
from modelparams_serving.engine.classify import Classifier
from modelparams_serving.engine.passes import PassFailed

pytestmark = pytest.mark.model
TEXTS = ["this was a good day", "bad", "it is fine"]
Scene = Callable[[Engine, httpx.AsyncClient], Awaitable[Any]]


def laid(directory: Path, number: str = "1.0.0") -> Laid:
    return of_directory(directory, number, model=MODEL)


def live(folder: Path, version: Laid, scene: Scene) -> Any:
    """Play a scene on an engine that serves a version."""

    async def whole() -> Any:
        async with engine(folder) as (made, client):
            await put_live(made.swapper, version)
            return await scene(made, client)

    return asyncio.run(whole())


def alone(directory: Path, texts: list[str]) -> list[dict[str, float]]:
    """What the library's own pipeline says of each text."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )
    ask: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=None)
    return [{one["label"]: one["score"] for one in said} for said in ask(texts)]


async def classes(client: httpx.AsyncClient, texts: Any, path: str = "/classify") -> dict[str, Any]:
    answer = await client.post(path, json={"model": MODEL, "input": texts})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["x-modelparams-digest"] == body["model_params"]["digest"]
    assert answer.headers["x-modelparams-version"] == body["model_params"]["version"]
    return body


def same(found: dict[str, Any], wanted: list[dict[str, float]]) -> bool:
    """Whether an answer's probabilities are those of the labels alone, and its labels the likeliest."""
    names = list(LABELS.values())
    return all(
        one["probs"] == pytest.approx([each[name] for name in names], abs=1e-5)
        and one["label"] == max(each, key=each.get)  # type: ignore[arg-type]
        for one, each in zip(found["data"], wanted, strict=True)
    )


@pytest.mark.parametrize("kind", ["bert", "llama", "roberta"])
def test_classes_are_those_of_the_model_alone(tmp_path: Path, kind: str) -> None:
    directory = classifier(tmp_path / "model", kind=kind)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        found = await classes(client, TEXTS)
        assert same(found, alone(directory, TEXTS))
        assert found["data"][0]["probs"] != pytest.approx(found["data"][1]["probs"], abs=1e-2)
        assert [one["index"] for one in found["data"]] == [0, 1, 2]
        assert [one["num_classes"] for one in found["data"]] == [3, 3, 3]
        assert found["usage"] == {"prompt_tokens": 15, "total_tokens": 15, "completion_tokens": 0}
        assert (found["object"], found["model"]) == ("list", MODEL)
        assert same(await classes(client, TEXTS[1], "/v1/classify"), alone(directory, TEXTS[1:2]))

    live(tmp_path, laid(directory), scene)


@pytest.mark.parametrize(
    ("config", "sums_to_one"),
    [
        ({"problem_type": "single_label_classification"}, True),
        ({"problem_type": "multi_label_classification"}, False),
        # Logits of about 1: of 9, the last digits of a float32 are more than the 1e-5 below, whatever kernel runs.
        ({"problem_type": "regression", "initializer_range": 0.2}, False),
        ({"id2label": {0: "score"}, "label2id": {"score": 0}}, False),
    ],
    ids=["one of many", "several", "regression", "one label"],
)
def test_the_numbers_are_of_the_kind_that_the_config_names(
    tmp_path: Path, config: dict[str, Any], sums_to_one: bool
) -> None:
    directory = classifier(tmp_path / "model", **config)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        found = await classes(client, TEXTS)
        for one, wanted in zip(found["data"], alone(directory, TEXTS), strict=True):
            assert sorted(one["probs"]) == pytest.approx(sorted(wanted.values()), abs=1e-5)
            assert (sum(one["probs"]) == pytest.approx(1, abs=1e-5)) is sums_to_one

    live(tmp_path, laid(directory), scene)


def test_a_decoder_without_a_padding_token_is_given_one_text_a_pass(tmp_path: Path) -> None:
    directory = classifier(tmp_path / "model", kind="llama", pad_token_id=None)

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        found = await classes(client, TEXTS)
        for text, one in zip(TEXTS, found["data"], strict=True):
            assert same({"data": [one]}, alone(directory, [text]))

    live(tmp_path, laid(directory), scene)


def test_a_request_that_runs_while_the_version_changes_is_answered_whole_by_its_own(tmp_path: Path) -> None:
    one, two = (classifier(tmp_path / number, seed) for seed, number in enumerate(("1.0.0", "1.1.0")))
    said = {"1.0.0": alone(one, TEXTS), "1.1.0": alone(two, TEXTS)}

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        await stage(made.swapper, laid(two, "1.1.0"))
        assert made.swapper.current is not None
        service = made.swapper.current.service
        assert isinstance(service, Classifier)
        service._max_batch_tokens = 1  # one pass a text: between them the version changes
        running = asyncio.create_task(classes(client, TEXTS * 20))
        await until(lambda: made.swapper.requests == 1)
        made.swapper.commit(laid(two, "1.1.0").commit())
        later, earlier = await classes(client, TEXTS), await running
        assert earlier["model_params"]["version"] == "1.0.0"
        assert same(earlier, said["1.0.0"] * 20)
        assert later["model_params"]["version"] == "1.1.0"
        assert same(later, said["1.1.0"])

    live(tmp_path, laid(one), scene)


def test_a_text_that_is_too_long_is_refused_or_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    directory = classifier(tmp_path / "model")

    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        long = {"input": ["bad", "good day " * 30]}
        refused = (await client.post("/classify", json=long)).json()["error"]
        assert refused["code"] == "context_length_exceeded"
        assert "input 1 has 62 tokens, more than the 24" in refused["message"]
        cut = (await client.post("/classify", json=long | {"truncate_prompt_tokens": -1})).json()
        assert cut["usage"]["prompt_tokens"] == 3 + 24
        # Cut as the library does: the text, not the special token at its end.
        assert same({"data": cut["data"][1:]}, alone(directory, ["good day " * 11]))
        short = await client.post("/classify", json=long | {"truncate_prompt_tokens": 5})
        assert short.json()["usage"]["prompt_tokens"] == 3 + 5

    live(tmp_path, laid(directory), scene)


def test_the_positions_that_roberta_keeps_for_padding_are_no_room_for_text(tmp_path: Path) -> None:
    directory = classifier(tmp_path / "model", kind="roberta", pad_token_id=1)

    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        assert made.swapper.current.service.context == 22
        answer = await client.post("/classify", json={"input": "day " * 50, "truncate_prompt_tokens": -1})
        assert answer.json()["usage"]["prompt_tokens"] == 22

    live(tmp_path, laid(directory), scene)


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        ({}, "input: Field required", "input"),
        ({"input": []}, "input: give 1 to 2048 texts", "input"),
        ({"input": 5}, "input: give a text or a list of texts", "input"),
        ({"input": [5]}, "input: give a text or a list of texts", "input"),
        ({"input": "bad", "use_activation": False}, "use_activation is not supported", "use_activation"),
        ({"messages": [{"role": "user", "content": "bad"}]}, "messages is not supported", "messages"),
        ({"input": "bad", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens", "truncate_prompt_tokens"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(tmp_path: Path, body: dict[str, Any], says: str, param: str) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        refused = await client.post("/classify", json=body)
        assert refused.status_code == 400
        assert says in refused.json()["error"]["message"]
        assert refused.json()["error"]["param"] == param

    live(tmp_path, laid(classifier(tmp_path / "model")), scene)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/embeddings", {"input": "a"}),
    ],
)
def test_another_endpoint_says_where_to_ask(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        refused = await client.post(path, json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "unsupported")
        assert error["message"] == "tiny-classifier classifies text: ask /classify"
        assert refused.headers["x-modelparams-version"] == "1.0.0"

    live(tmp_path, laid(classifier(tmp_path / "model")), scene)


def test_classify_says_where_to_ask_a_model_that_generates(tmp_path: Path) -> None:
    async def scene(_: Engine, client: httpx.AsyncClient) -> None:
        refused = (await client.post("/classify", json={"input": "a"})).json()["error"]
        assert refused["message"] == "tiny-llama generates text: ask /v1/completions or /v1/chat/completions"
        other = await client.post("/classify", json={"input": "a", "model": "gpt-9"})
        assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")

    live(tmp_path, tiny(), scene)


def test_a_text_that_the_model_cannot_take_fails_alone(tmp_path: Path) -> None:
    directory = classifier(tmp_path / "model")

    async def scene(made: Engine, _: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        service = made.swapper.current.service
        assert isinstance(service, Classifier)
        beside = await asyncio.gather(
            *(service.rows([ids]) for ids in ([2, 5, 3], [99], [2, 5, 3])), return_exceptions=True
        )
        assert [type(one) for one in beside] == [list, PassFailed, list]
        assert beside[0] == beside[2]
        assert service.alive

    live(tmp_path, laid(directory), scene)


def test_numbers_that_are_none_are_an_error_and_no_answer(tmp_path: Path) -> None:
    async def scene(made: Engine, client: httpx.AsyncClient) -> None:
        assert made.swapper.current is not None
        service = made.swapper.current.service
        assert isinstance(service, Classifier)
        service.read = lambda output, mask: torch.full((len(mask), 3), float("nan"))  # type: ignore[method-assign]
        assert (await client.post("/classify", json={"input": "bad"})).status_code == 503

    live(tmp_path, laid(classifier(tmp_path / "model")), scene)
