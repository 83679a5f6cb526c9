"""The wire of the OpenAI-compatible endpoints: what is taken, and the shape of what is given.

Fields that this engine does not know are passed over, as clients send many; fields that would change the answer and
are not supported are refused, since a silently different answer is worse than none.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modelparams.protocol import Resident

_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    # field → the values that ask for nothing
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "functions": (None, []),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
}


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, harmless in _UNSUPPORTED.items():
                if data.get(name) not in harmless:
                    raise ValueError(f"{name} is not supported by this server")
        return data


class StreamOptions(BaseModel):
    """What a stream carries beside tokens."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: bool = False


class GenerateRequest(_Request):
    """What completions and chat completions have in common."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings; empty ones stop nothing."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(word for word in given if word)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(GenerateRequest):
    """POST /v1/completions. One prompt: text, or token ids."""

    prompt: str | list[int] | list[str]

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if isinstance(self.prompt, list) and not (self._ids or len(self.prompt) == 1):
            raise ValueError("send one prompt a request: they are batched here anyway")
        return self

    @property
    def _ids(self) -> bool:
        return isinstance(self.prompt, list) and bool(self.prompt) and all(isinstance(i, int) for i in self.prompt)

    @property
    def text(self) -> str | list[int]:
        """The prompt as text or token ids."""
        if isinstance(self.prompt, str):
            return self.prompt
        return [int(i) for i in self.prompt] if self._ids else str(self.prompt[0])


class ChatRequest(GenerateRequest):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class EmbeddingRequest(_Request):
    """POST /v1/embeddings."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None

    @property
    def texts(self) -> list[str]:
        """The texts, one or more."""
        return [self.input] if isinstance(self.input, str) else self.input


def headers(identity: Resident) -> dict[str, str]:
    """Which version made the answer, in every answer's head."""
    return {
        "X-ModelParams-Version": str(identity.version),
        "X-ModelParams-Digest": str(identity.manifest_digest),
    }


def named(identity: Resident) -> dict[str, Any]:
    """The same in a body."""
    return {
        "model": str(identity.model_name),
        "system_fingerprint": identity.manifest_digest.short,
        "model_params": {"version": str(identity.version), "digest": str(identity.manifest_digest)},
    }


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True, slots=True)
class Shape:
    """How one generation's answer is written: whole or in chunks, as chat or as text."""

    identity: Resident
    chat: bool
    with_ids: bool
    prompt_ids: Sequence[int]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, ids: Sequence[int], finish: str) -> dict[str, Any]:
        """The one body of an answer that is not streamed."""
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        body = self._body("chat.completion" if self.chat else "text_completion", [self._choice(content, ids, finish)])
        return body | self._prompt() | {"usage": usage(len(self.prompt_ids), len(ids))}

    def first(self) -> bytes:
        """The chunk that opens a stream."""
        content: dict[str, Any] = {"delta": {"role": "assistant", "content": ""}} if self.chat else {"text": ""}
        return self._event(self._chunk([self._choice(content, (), "")]) | self._prompt())

    def chunk(self, text: str, ids: Sequence[int], finish: str) -> bytes:
        """New text of a stream."""
        content: dict[str, Any] = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return self._event(self._chunk([self._choice(content, ids, finish)]))

    def last(self, count: int, *, with_usage: bool) -> bytes:
        """The end of a stream."""
        counted = self._event(self._chunk([]) | {"usage": usage(len(self.prompt_ids), count)}) if with_usage else b""
        return counted + b"data: [DONE]\n\n"

    def error(self, message: str) -> bytes:
        """The end of a stream that failed: no end mark follows, so that nobody takes it for whole."""
        return self._event({**error_body(message, kind="server_error"), **named(self.identity)})

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._body("chat.completion.chunk" if self.chat else "text_completion", choices)

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        head = {"id": prefix + self.id, "object": kind, "created": self.created}
        return {**head, **named(self.identity), "choices": choices}

    def _choice(self, content: dict[str, Any], ids: Sequence[int], finish: str) -> dict[str, Any]:
        token_ids = {"token_ids": list(ids)} if self.with_ids else {}
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish or None, **token_ids}

    def _prompt(self) -> dict[str, Any]:
        return {"prompt_token_ids": list(self.prompt_ids)} if self.with_ids else {}

    @staticmethod
    def _event(data: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def error_body(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's form of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
