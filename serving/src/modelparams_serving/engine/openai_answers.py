"""The shape of what the OpenAI-compatible endpoints give: each answer names its version, each error has one form."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelparams.protocol import Resident


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
