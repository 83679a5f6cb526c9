"""The HTTP front: OpenAI-compatible endpoints, and the probes beside them.

A request takes a lease on the version that is current when it starts, and everything about it, from tokenizing to the
last byte, is that version's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelparams.protocol import Resident
from modelparams_serving.engine.assets import Tokenizer
from modelparams_serving.engine.bodies import Bodies, check_values
from modelparams_serving.engine.drain import Drain
from modelparams_serving.engine.endpoints import Endpoints, begins_on, http_error
from modelparams_serving.engine.jobs import job, prompt_ids
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.openai_answers import headers, named
from modelparams_serving.engine.openai_requests import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingRequest,
    TextsRequest,
)
from modelparams_serving.engine.pooling import Hold, Pooled, classes, embeddings
from modelparams_serving.engine.probes import Probes
from modelparams_serving.engine.refusals import Refused, parsed
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.sending import Pieces, unless_gone
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.swap import Swapper

_CLASSIFY = ("/classify", "/v1/classify")  # vLLM's, and SGLang's for the same
_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
R = TypeVar("R", bound=BaseModel)
Q = TypeVar("Q", bound=TextsRequest)


class Front:
    """The routes over a `Swapper`."""

    def __init__(self, swapper: Swapper, drain: Drain, metrics: Metrics, settings: EngineSettings) -> None:
        self._swapper, self._drain, self._metrics, self._settings = swapper, drain, metrics, settings
        self._bodies, self._started = Bodies(settings), int(time.time())

    def app(self) -> Starlette:
        """The ASGI application."""
        endpoint = Endpoints(self._swapper, self._drain, self._metrics, self._bodies).of
        return Starlette(
            routes=[
                Route("/v1/completions", endpoint("completions", self.completions), methods=["POST"]),
                Route("/v1/chat/completions", endpoint("chat", self.chat), methods=["POST"]),
                Route("/v1/embeddings", endpoint("embeddings", self.embeddings), methods=["POST"]),
                *(Route(path, endpoint("classify", self.classify), methods=["POST"]) for path in _CLASSIFY),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                *Probes(self._swapper, self._drain, self._metrics).routes(),
            ],
            exception_handlers={HTTPException: http_error},
        )

    async def models(self, _request: Request) -> Response:
        """The one model, named by its version."""
        current = self._swapper.current
        if current is None:
            return JSONResponse({"object": "list", "data": []})
        return JSONResponse(
            {"object": "list", "data": [self._entry(current.identity)]}, headers=headers(current.identity)
        )

    async def model(self, request: Request) -> Response:
        """The same by its name."""
        current = self._swapper.current
        if current is None or request.path_params["name"] != str(current.identity.model_name):
            raise HTTPException(404, "there is no such model here: /v1/models lists what there is")
        return JSONResponse(self._entry(current.identity), headers=headers(current.identity))

    def _entry(self, identity: Resident) -> dict[str, Any]:
        entry = {"id": str(identity.model_name), "object": "model", "owned_by": "modelparams"}
        return {**entry, "created": self._started, **named(identity)}

    # ---- endpoints

    async def completions(self, request: Request) -> Response:
        """Continue a prompt."""
        asked = await self._parsed(request, CompletionRequest)
        given = asked.prompt

        def prompt(tokenizer: Tokenizer) -> list[int]:
            return given if isinstance(given, list) else tokenizer.encode(given, special=True)

        return await self._generate(request, asked, prompt, asked.max_tokens or _COMPLETION_TOKENS)

    async def chat(self, request: Request) -> Response:
        """Answer a conversation; without a limit, up to the end of the context."""
        asked = await self._parsed(request, ChatRequest)
        limit = asked.max_completion_tokens or asked.max_tokens
        return await self._generate(request, asked, lambda tokenizer: tokenizer.chat(asked.conversation), limit)

    async def embeddings(self, request: Request) -> Response:
        """Embed texts."""
        return await self._pooled(request, await self._parsed(request, EmbeddingRequest), embeddings)

    async def classify(self, request: Request) -> Response:
        """Classify texts."""
        return await self._pooled(request, await self._parsed(request, ClassifyRequest), classes)

    async def _pooled(
        self, request: Request, asked: Q, answer: Callable[[ResidentVersion, Q, Hold], Coroutine[Any, Any, Pooled]]
    ) -> Response:
        with contextlib.ExitStack() as stack:

            def hold(size: int) -> object:
                return stack.enter_context(self._bodies.holding(size))

            with self._lease(request, asked.model) as version:
                made, head = await unless_gone(request, answer(version, asked, hold)), headers(version.identity)
            if made.owner is None:
                return Response(made.whole(), media_type="application/json", headers=head)
            stack.enter_context(self._drain.kept())
            return self._going(made, head, stack.pop_all())

    def _going(self, made: Pooled, head: dict[str, str], stack: contextlib.ExitStack) -> Response:
        """Send it without a lease: its numbers are there, and a swap need not wait for one who reads slowly."""
        going, stalled = self._bodies.going(made.owner, made.size), self._settings.stalled_seconds
        return Pieces(made.pieces(), head, "application/json", stack, stalled_seconds=stalled, going=going)

    async def _generate(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        prompt: Callable[[Tokenizer], list[int]],
        limit: int | None,
    ) -> Response:
        with contextlib.ExitStack() as stack:
            version = stack.enter_context(self._lease(request, asked.model))
            ids = await unless_gone(request, prompt_ids(version, asked, prompt))
            count = self._metrics.tokens.labels(str(version.identity.version)).inc
            made = job(version, asked, ids, limit, chat=isinstance(asked, ChatRequest), count=count)
            if not asked.stream:
                return JSONResponse(await unless_gone(request, made.whole()), headers=headers(version.identity))
            stalled = self._settings.stalled_seconds
            head = headers(version.identity) | {"Cache-Control": "no-cache"}
            return Pieces(made.stream(), head, "text/event-stream", stack.pop_all(), stalled_seconds=stalled)

    @contextlib.contextmanager
    def _lease(self, request: Request, model: str | None) -> Iterator[ResidentVersion]:
        """Hold the version that is current."""
        current = self._admitting()
        if model is not None and model != str(current.identity.model_name):
            only = f"this server has {current.identity.model_name} only"
            raise Refused(404, only, code="model_not_found", param="model")
        with self._swapper.lease() as version:
            begins_on(request, version.identity)
            yield version

    def _admitting(self) -> ResidentVersion:
        """Give what a request that comes now would begin on.

        Raises:
            Refused: 503, none may.
        """
        current = self._swapper.current
        if self._drain.refusing:
            raise Refused(503, "this engine is about to leave; ask again, and another will answer", code="leaving")
        if current is None:
            raise Refused(503, "no verified version is applied yet", code="no_version")
        if self._swapper.requests >= self._settings.max_requests:
            raise Refused(503, "too many requests are under way", code="overloaded")
        return current

    async def _parsed(self, request: Request, kind: type[R]) -> R:
        """What is asked; its body is not read where it could not be answered. Errors as what reads and parses it."""
        context = self._admitting().service.context
        body = await self._bodies.read(request)

        def made() -> R:
            check_values(body, context)
            return parsed(body, kind)

        return await self._bodies.one_by_one(body, made)
