"""One generation: from what was asked and the version that answers, to the bytes of the answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from modelparams_serving.engine.assets import Tokenizer
from modelparams_serving.engine.generate import GenerationFailed, Prompt, TextGenerator
from modelparams_serving.engine.openai_answers import Shape
from modelparams_serving.engine.openai_requests import ChatRequest, CompletionRequest, GenerateRequest
from modelparams_serving.engine.refusals import Refused, check_length, check_tokens, serving_as
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.sampling import Sampling
from modelparams_serving.engine.text import TextStream
from modelparams_serving.engine.tokenizing import tokenizing


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    ids: tuple[int, ...]
    finish: str


@dataclass(frozen=True, slots=True)
class Job:
    """One generation on the version that it holds."""

    version: ResidentVersion
    service: TextGenerator
    prompt: Prompt
    shape: Shape
    stops: tuple[str, ...]
    with_usage: bool
    count: Callable[[int], None]
    """Told of new tokens."""

    async def whole(self) -> dict[str, Any]:
        """The body of an answer that is not streamed. Raises GenerationFailed."""
        text, ids, finish = "", list[int](), ""
        async with contextlib.aclosing(self._pieces(every=bool(self.stops))) as pieces:
            async for piece in pieces:
                text, finish = text + piece.text, piece.finish
                ids.extend(piece.ids)
        return self.shape.whole(text, ids, finish)

    async def stream(self) -> AsyncGenerator[bytes]:
        """Server-sent events. A failure is one of them, since the head has left already."""
        yield self.shape.first()
        count = 0
        try:
            async with contextlib.aclosing(self._pieces(every=True)) as pieces:
                async for piece in pieces:
                    count += len(piece.ids)
                    yield self.shape.chunk(piece.text, piece.ids, piece.finish)
        except GenerationFailed:
            yield self.shape.error("the engine gave the request up")
            return
        yield self.shape.last(count, with_usage=self.with_usage)

    async def _pieces(self, *, every: bool) -> AsyncGenerator[_Piece]:
        """Tokens with their text, until the end or a stop string."""
        text = TextStream(self.version.tokenizer.backend, self.stops)
        async with contextlib.aclosing(self.service.tokens(self.prompt, every=every)) as tokens:
            async for new in tokens:
                self.count(len(new.ids))
                certain = text.push(new.ids)
                finish = "stop" if text.stopped else new.finish
                yield _Piece(certain + (text.flush() if new.finish else ""), new.ids, finish)
                if finish:
                    return


async def prompt_ids(
    version: ResidentVersion, asked: ChatRequest | CompletionRequest, prompt: Callable[[Tokenizer], list[int]]
) -> list[int]:
    """Make the prompt of a request into token ids.

    Raises:
        Refused: 400, the version does not generate, or cannot take the prompt; 503, its chat template does not end.
    """
    context, param = serving_as(version, TextGenerator).context, asked.called_in
    check_length(length := asked.length, context, what=asked.called, param=param)
    try:
        if isinstance(asked, ChatRequest):
            return await version.renderer.run(lambda: prompt(version.tokenizer))
        return await tokenizing(length, lambda: prompt(version.tokenizer))
    except TimeoutError as error:
        message = "the model's chat template did not end in time, for this conversation or for others before it"
        raise Refused(503, message, code="overloaded") from error
    except ValueError as error:
        raise Refused(400, str(error), code="invalid_prompt", param=param) from error


def job(
    version: ResidentVersion,
    asked: GenerateRequest,
    ids: list[int],
    limit: int | None,
    *,
    chat: bool,
    count: Callable[[int], None],
) -> Job:
    """Make a job of a request, or refuse it before it reaches the manager, which a request too long would end.

    Args:
        version: what answers.
        asked: the parsed body.
        ids: the prompt's token ids.
        limit: new tokens at most; None = as many as the context has room for.
        chat: the form of the answer.
        count: told of new tokens.

    Raises:
        Refused: 400, with what is wrong.
    """
    service = serving_as(version, TextGenerator)
    room = _room(ids, service, limit or 1, asked.called_in)
    return Job(
        version,
        service,
        Prompt(ids, limit or room, _sampling(asked, version)),
        Shape(version.identity, chat, asked.return_token_ids, ids),
        tuple(asked.stop),
        asked.wants_usage,
        count,
    )


def _room(ids: list[int], service: TextGenerator, least: int, param: str) -> int:
    """Tokens that fit after the prompt. Its length is looked at first: to look at each of a million ids takes long."""
    room = service.context - len(ids)
    if room < least:
        raise Refused(
            400,
            f"prompt ({len(ids)} tokens) and max_tokens ({least}) exceed the context of {service.context} tokens",
            code="context_length_exceeded",
            param=param,
        )
    check_tokens(ids, service.vocabulary, what="the prompt", param=param)
    return room


def _sampling(asked: GenerateRequest, version: ResidentVersion) -> Sampling:
    """The request's wish, else the version's."""
    default = version.defaults
    return Sampling(
        default.temperature if asked.temperature is None else asked.temperature,
        default.top_p if asked.top_p is None else asked.top_p,
        asked.seed,
    )
