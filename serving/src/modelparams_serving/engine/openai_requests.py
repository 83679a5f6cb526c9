"""What the OpenAI-compatible endpoints take; fields that are not known here are passed over, as clients send many."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from modelparams_serving.engine.unsupported import CHAT, CLASSIFY, COMPLETION, EMBEDDING, Harmless, refuse_unsupported

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
_TEXTS_MAX, _MESSAGES_MAX, _STOPS_MAX = 2048, 2048, 16  # the first two are OpenAI's


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    unsupported: ClassVar[Harmless] = {}

    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_unsupported(data, cls.unsupported)
        return data


def _words(value: Any) -> Any:
    """Stop strings as a list; empty ones stop nothing."""
    words = [value] if isinstance(value, str) else value or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or len(words) > _STOPS_MAX:
        raise ValueError(f"give a text or a list of at most {_STOPS_MAX} texts")
    return [word for word in words if word]


def _prompt(value: Any) -> Any:
    """One prompt: a text, token ids, or a list with one of them."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        return _prompt(value[0])
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, str | list) for one in value):
        raise ValueError("send one prompt a request: they are batched here anyway")
    if isinstance(value, str) or (isinstance(value, list) and all(type(one) is int for one in value)):
        return value
    raise ValueError("give a text or a list of token ids")


def _texts(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("give a text or a list of texts")
    if not 1 <= len(texts) <= _TEXTS_MAX:
        raise ValueError(f"give 1 to {_TEXTS_MAX} texts a request")
    return texts


def _content(value: Any) -> Any:
    """A message's text, which may come in parts; vLLM puts each on a line of its own too."""
    if not isinstance(value, list):
        return value
    texts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
    parts = [text for text in texts if isinstance(text, str)]
    if len(parts) < len(value):
        raise ValueError("only parts of type text are supported by this server")
    return "\n".join(parts)


def _no_tool_calls(value: Any) -> None:
    if value:
        raise ValueError("tools are not supported by this server")


class StreamOptions(BaseModel):
    """What a stream carries beside tokens."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: bool = False


class GenerateRequest(_Request):
    """What completions and chat completions have in common."""

    called: ClassVar[str] = "the prompt"
    """How an error calls what is to be continued."""
    called_in: ClassVar[str] = "prompt"
    """The field that holds it."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[str], BeforeValidator(_words)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(GenerateRequest):
    """POST /v1/completions."""

    unsupported = COMPLETION

    prompt: Annotated[str | list[int], BeforeValidator(_prompt)]
    """Text or token ids."""

    @property
    def length(self) -> int:
        """Characters to make tokens of; token ids have none."""
        return len(self.prompt) if isinstance(self.prompt, str) else 0


class Message(BaseModel):
    """One turn of a conversation; a template may look at more of its fields than these."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: str = Field(min_length=1, max_length=64)
    content: Annotated[str, BeforeValidator(_content)]
    tool_calls: Annotated[None, BeforeValidator(_no_tool_calls)] = None


_AROUND = 64
"""Characters that a text or message counts beside its own: each costs a token at least, and a template's marks."""


def _characters(value: Any) -> int:
    """Of all the texts in a JSON value."""
    if isinstance(value, dict):
        return sum(len(key) + _characters(inner) for key, inner in value.items())
    return sum(map(_characters, value)) if isinstance(value, list) else len(str(value))


class ChatRequest(GenerateRequest):
    """POST /v1/chat/completions."""

    unsupported = CHAT
    called = "the conversation, with the marks around its messages,"
    called_in = "messages"

    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=_MESSAGES_MAX)]
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def length(self) -> int:
        """Characters to make tokens of, also those of fields that only a template may know."""
        own = sum(len(message.role) + len(message.content) + _AROUND for message in self.messages)
        return own + sum(_characters(message.model_extra or {}) for message in self.messages)

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """The messages as a template takes them."""
        return [message.model_dump(exclude_none=True) for message in self.messages]


class TextsRequest(_Request):
    """What embeddings and classification have in common."""

    texts: Annotated[list[str], BeforeValidator(_texts)] = Field(alias="input")
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)
    """vLLM's: cut longer texts to so many tokens; -1 = to what the model takes."""

    @property
    def length(self) -> int:
        """Characters to make tokens of."""
        return sum(len(text) + _AROUND for text in self.texts)

    def most_tokens(self, context: int) -> int | None:
        """Give the length to cut to, or None to cut nothing."""
        asked = self.truncate_prompt_tokens
        return asked if asked is None else context if asked < 0 else min(asked, context)


class EmbeddingRequest(TextsRequest):
    """POST /v1/embeddings."""

    unsupported = EMBEDDING

    encoding_format: Literal["float", "base64"] = "float"


class ClassifyRequest(TextsRequest):
    """POST /classify, as vLLM has it."""

    unsupported = CLASSIFY
