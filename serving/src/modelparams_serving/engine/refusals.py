"""What is refused before it reaches a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from modelparams_serving.engine.classify import Classifier
from modelparams_serving.engine.embed import Embedder
from modelparams_serving.engine.generate import TextGenerator
from modelparams_serving.engine.openai_answers import error_body
from modelparams_serving.engine.residents import ResidentVersion, Service

_DOES = {
    TextGenerator: "generates text: ask /v1/completions or /v1/chat/completions",
    Embedder: "embeds text: ask /v1/embeddings",
    Classifier: "classifies text: ask /classify",
}
CHARACTERS_A_TOKEN = 64
"""More than any text has on average: English has 4, and runs of blanks or dashes some dozens."""
R = TypeVar("R", bound=BaseModel)
S = TypeVar("S", bound=Service)


class Refused(Exception):
    """An answer that is an error, with its HTTP status."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = error_body(message, kind=kind, code=code, param=param)


def serving_as(version: ResidentVersion, kind: type[S]) -> S:
    """Give the version's service.

    Raises:
        Refused: 400, it is of another kind; the message says where to ask.
    """
    if not isinstance(version.service, kind):
        does = _DOES[type(version.service)]
        raise Refused(400, f"{version.identity.model_name} {does}", code="unsupported")
    return version.service


def check_length(characters: int, context: int, *, what: str, param: str | None = None) -> None:
    """Look at how long a text is before anything is made of it: tokens of megabytes take seconds, to be refused then.

    Raises:
        Refused: 400, no tokens of it could fit.
    """
    if characters > context * CHARACTERS_A_TOKEN:
        raise Refused(
            400,
            f"{what} has {characters} characters, more than {context} tokens, all that this model takes, can stand for",
            code="context_length_exceeded",
            param=param,
        )


def check_tokens(ids: Sequence[int], vocabulary: int, *, what: str, param: str) -> None:
    """Look at every id, since one outside the table would fail a whole batch, and on a device the process.

    Raises:
        Refused: 400.
    """
    if not ids:
        raise Refused(400, f"{what} has no tokens", code="invalid_prompt", param=param)
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise Refused(400, f"token ids are 0 to {vocabulary - 1}", code="invalid_prompt", param=param)


def parsed(body: bytes, kind: type[R]) -> R:
    """Read a request's JSON.

    Raises:
        Refused: 400, with the first thing that is wrong.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        param = place or getattr(first.get("ctx", {}).get("error"), "param", None)
        raise Refused(400, f"{place}: {message}" if place else message, code="invalid_value", param=param) from error
