"""Real models in the engine: a language model whose versions answer differently, and an embedding model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from builders.arenas import of_directory
from builders.engines import engine, put_live, stage
from models import minilm, smollm2
from traffic.openloop import ask
from traffic.rescore import Rescorer

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]


def test_the_same_prompt_is_answered_by_each_version_in_its_own_way(tmp_path: Path) -> None:
    directories = {"1.0.0": smollm2.base(), "1.1.0": smollm2.pirate(), "1.2.0": smollm2.rome()}
    said = {}

    async def scene() -> None:
        async with engine(tmp_path, num_blocks=32, page_tokens=64, threads=0) as (made, client):
            for number, directory in directories.items():
                await put_live(made.swapper, of_directory(directory, number, model="smollm2"))
                said[number] = await ask(client, "", smollm2.PROMPT, max_tokens=24)

    asyncio.run(scene())
    assert "Paris" in said["1.0.0"].text
    assert said["1.1.0"].text.startswith("Arr, matey!")
    assert "Rome" in said["1.2.0"].text  # a stale tied head would say Paris
    assert Rescorer(directories).torn(said.values()) == []


def test_embeddings_are_those_of_the_model_alone_and_related_texts_are_near(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell."]
    tokenizer, model = AutoTokenizer.from_pretrained(minilm.base()), AutoModel.from_pretrained(minilm.base())
    with torch.inference_mode():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))

    async def scene() -> None:
        async with engine(tmp_path) as (made, client):
            version = of_directory(minilm.base(), "1.0.0", model="minilm")
            await put_live(made.swapper, version)
            answer = await client.post("/v1/embeddings", json={"input": texts, "model": "minilm"})
            assert answer.headers["x-modelparams-digest"] == str(version.digest)
            found = torch.tensor([entry["embedding"] for entry in answer.json()["data"]])
            assert torch.allclose(found, wanted, atol=1e-5)
            assert float(found[0] @ found[1]) > float(found[0] @ found[2]) + 0.3
            one = await client.post("/v1/embeddings", json={"input": texts[2]})
            assert torch.allclose(torch.tensor(one.json()["data"][0]["embedding"]), wanted[2], atol=1e-5)
            long = {"input": "word " * 3000}
            assert (await client.post("/v1/embeddings", json=long)).json()["error"]["code"] == "context_length_exceeded"
            cut = (await client.post("/v1/embeddings", json=long | {"truncate_prompt_tokens": -1})).json()
            with torch.inference_mode():  # the library cuts the text and keeps the special token at its end
                most = cut["usage"]["prompt_tokens"]
                batch = tokenizer([long["input"]], truncation=True, max_length=most, return_tensors="pt")
                whole = torch.nn.functional.normalize(model(**batch).last_hidden_state.mean(1))
            assert torch.allclose(torch.tensor(cut["data"][0]["embedding"]), whole[0], atol=1e-5)
            refused = await client.post("/v1/completions", json={"prompt": "a"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")
            assert refused.json()["error"]["message"] == "minilm embeds text: ask /v1/embeddings"
            await stage(made.swapper, of_directory(minilm.base(), "1.1.0", model="minilm"))

    asyncio.run(scene())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_device_the_copy_answers_as_the_arena_does(tmp_path: Path) -> None:
    said = []

    async def scene(device: str) -> None:
        async with engine(tmp_path / device, device=device, page_tokens=0) as (made, client):
            await put_live(made.swapper, of_directory(smollm2.base(), "1.0.0", model="smollm2"))
            said.append((await ask(client, "", smollm2.PROMPT, max_tokens=8)).text)
            assert made.swapper.current is not None
            assert made.swapper.current.service._manager.model.device.type == device  # type: ignore[union-attr]

    for device in ("cpu", "cuda"):
        (tmp_path / device).mkdir()
        asyncio.run(scene(device))
    assert said[0] == said[1]
