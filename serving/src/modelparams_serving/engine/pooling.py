"""Embeddings and classes: from the texts of a request and the version that answers, to the body of the answer."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelparams_serving.engine.body_budget import LITTLE
from modelparams_serving.engine.classify import Classifier
from modelparams_serving.engine.embed import Embedder
from modelparams_serving.engine.openai_answers import named
from modelparams_serving.engine.openai_requests import ClassifyRequest, EmbeddingRequest, TextsRequest
from modelparams_serving.engine.passes import OnePass, Row
from modelparams_serving.engine.refusals import Refused, check_length, check_tokens, serving_as
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.tokenizing import tokenizing

_PIECE = 1 << 14
"""Bytes of JSON, about, that are made at a time: in some ms, which let nobody else run."""
_NUMBER, _ENTRY = 24, 128
"""Bytes of JSON, at most nearly: of one number; of what is around the numbers of one text."""
Hold = Callable[[int], object]
"""Told how many bytes an answer will hold, before it is made; gives whom they count for. Raises Refused."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """An answer of which the numbers are there, and the JSON is made as it is sent."""

    around: Mapping[str, Any]
    """All of its body but `data`."""
    rows: Sequence[Row]
    entry: Callable[[int, Row], dict[str, Any]]
    """One of `data`, by its index."""
    owner: object
    """Whom its memory counts for; None for so little that it is sent at once."""

    @property
    def size(self) -> int:
        """Bytes of its JSON, about."""
        return len(self.rows) * len(_json(self.entry(0, self.rows[0])))

    def whole(self) -> bytes:
        """The body."""
        return b"".join(self._piece(start, 1) for start in range(len(self.rows))) + self._end()

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The same, made on a thread a piece at a time: `dumps` lets nobody else run."""
        step = max(1, _PIECE // _json_size(1, len(self.rows[0])))
        for start in range(0, len(self.rows), step):
            yield await asyncio.to_thread(self._piece, start, step)
        yield self._end()

    def _piece(self, start: int, count: int) -> bytes:
        rows = enumerate(self.rows[start : start + count], start)
        return ("," if start else '{"data":[').encode() + b",".join(_json(self.entry(i, row)) for i, row in rows)

    def _end(self) -> bytes:
        return b"]," + _json(self.around)[1:]


@dataclass(frozen=True, slots=True)
class _Texts:
    """What one request asks of one version, as token ids."""

    version: ResidentVersion
    ids: Sequence[Sequence[int]]

    def around(self, **more: int) -> dict[str, Any]:
        """The answer around its `data`."""
        count = sum(map(len, self.ids))
        usage = {"prompt_tokens": count, "total_tokens": count, **more}
        return {"object": "list", **named(self.version.identity), "usage": usage}

    def held(self, width: int, hold: Hold) -> object:
        """Count what the answer will hold: its numbers, and the piece of their JSON that waits for the client."""
        texts = len(self.ids)
        return hold(texts * (_ENTRY + 4 * width) + LITTLE) if _json_size(texts, width) > LITTLE else None


def _json_size(texts: int, width: int) -> int:
    return texts * (_ENTRY + _NUMBER * width)


async def embeddings(version: ResidentVersion, asked: EmbeddingRequest, hold: Hold) -> Pooled:
    """Answer as OpenAI's /v1/embeddings does. Raises PassFailed, Refused and what `hold` does."""
    service = serving_as(version, Embedder)
    texts = await tokenizing(asked.length, lambda: _tokenized(version, service, asked))
    owner = texts.held(service.width, hold)

    def entry(i: int, row: Row) -> dict[str, Any]:
        return {"object": "embedding", "index": i, "embedding": encoded(row, asked.encoding_format)}

    return Pooled(texts.around(), await service.rows(texts.ids), entry, owner)


async def classes(version: ResidentVersion, asked: ClassifyRequest, hold: Hold) -> Pooled:
    """Answer as vLLM's /classify does. Raises PassFailed, Refused and what `hold` does."""
    service = serving_as(version, Classifier)
    texts = await tokenizing(asked.length, lambda: _tokenized(version, service, asked))
    owner, labels = texts.held(service.width, hold), service.labels

    def entry(i: int, row: Row) -> dict[str, Any]:
        probs = row.tolist()
        return {"index": i, "label": labels[probs.index(max(probs))], "probs": probs, "num_classes": len(probs)}

    head = {"id": f"classify-{uuid.uuid4().hex}", "created": int(time.time())}
    return Pooled(head | texts.around(completion_tokens=0), await service.rows(texts.ids), entry, owner)


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


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def encoded(vector: Row, form: str) -> list[float] | str:
    """Give the numbers as they are, or as base64 of little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if form == "base64" else vector.tolist()
