"""Embeddings and classes: from the texts of a request and the version that answers, to the body of the answer."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelparams_serving.engine.classify import Classifier
from modelparams_serving.engine.embed import Embedder
from modelparams_serving.engine.openai import ClassifyRequest, EmbeddingRequest, TextsRequest, named
from modelparams_serving.engine.passes import OnePass
from modelparams_serving.engine.refusals import Refused, check_length, check_tokens, serving_as
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.tokenizing import tokenizing

_FEW = 8
"""Rows whose JSON is made in some ms."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """What one request asks of one version, as token ids."""

    version: ResidentVersion
    ids: Sequence[Sequence[int]]

    def body(self, data: list[dict[str, Any]], **more: int) -> dict[str, Any]:
        """The answer around its `data`."""
        count = sum(map(len, self.ids))
        usage = {"prompt_tokens": count, "total_tokens": count, **more}
        return {"object": "list", "data": data, **named(self.version.identity), "usage": usage}


async def embeddings(version: ResidentVersion, asked: EmbeddingRequest) -> dict[str, Any]:
    """Answer as OpenAI's /v1/embeddings does. Raises Refused and PassFailed."""
    service = serving_as(version, Embedder)
    texts = await tokenizing(asked.length, lambda: _tokenized(version, service, asked))
    rows = await service.rows(texts.ids)
    return texts.body(
        [
            {"object": "embedding", "index": i, "embedding": encoded(row, asked.encoding_format)}
            for i, row in enumerate(rows)
        ]
    )


async def classes(version: ResidentVersion, asked: ClassifyRequest) -> dict[str, Any]:
    """Answer as vLLM's /classify does. Raises Refused and PassFailed."""
    service = serving_as(version, Classifier)
    texts = await tokenizing(asked.length, lambda: _tokenized(version, service, asked))
    rows = await service.rows(texts.ids)
    data = [
        {"index": i, "label": service.labels[row.index(max(row))], "probs": row, "num_classes": len(row)}
        for i, row in enumerate(rows)
    ]
    head = {"id": f"classify-{uuid.uuid4().hex}", "created": int(time.time())}
    return head | texts.body(data, completion_tokens=0)


def _tokenized(version: ResidentVersion, service: OnePass, asked: TextsRequest) -> _Texts:
    most = asked.most_tokens(service.context)
    for i, text in enumerate(asked.texts if most is None else ()):
        check_length(len(text), service.context, what=f"input {i}", param="input")
    ids = [_ids(version, text, most) for text in asked.texts]
    for i, each in enumerate(ids):
        check_tokens(each, service.vocabulary, what=f"input {i}", param="input")
        if len(each) > service.context:
            raise Refused(
                400,
                f"input {i} has {len(each)} tokens, more than the {service.context} that this model takes; "
                'shorten it, or send "truncate_prompt_tokens": -1 to have it cut',
                code="context_length_exceeded",
                param="input",
            )
    return _Texts(version, ids)


def _ids(version: ResidentVersion, text: str, most: int | None) -> list[int]:
    if most is None:
        return version.tokenizer.encode(text, special=True)
    return version.tokenizer.encode_start(text, most)


async def rendered(body: dict[str, Any]) -> bytes:
    """Give an answer's JSON; that of many rows is made on a thread, a row at a time: `dumps` lets nobody else run."""
    rows = body["data"]
    return _rendered(body) if len(rows) <= _FEW else await asyncio.to_thread(_rendered, body)


def _rendered(body: dict[str, Any]) -> bytes:
    rows = ",".join(_json(row) for row in body["data"])
    rest = _json({name: value for name, value in body.items() if name != "data"})
    return f'{{"data":[{rows}],{rest[1:]}'.encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encoded(vector: list[float], form: str) -> list[float] | str:
    """Give the numbers as they are, or as base64 of little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if form == "base64" else vector
