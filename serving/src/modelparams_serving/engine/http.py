"""The HTTP front: OpenAI-compatible endpoints, health, readiness, metrics.

A request takes a lease on the version that is current when it starts, and everything about it, from tokenizing to the
last byte, is that version's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from modelparams_serving.engine import pooling
from modelparams_serving.engine.drain import Drain
from modelparams_serving.engine.generate import GenerationFailed
from modelparams_serving.engine.jobs import job
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.openai import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerateRequest,
    TextsRequest,
    error_body,
    headers,
    named,
)
from modelparams_serving.engine.refusals import Refused
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.swap import NoVersion, Swapper

_CLASSIFY = ("/classify", "/v1/classify")  # vLLM's, and SGLang's for the same
_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
_CLIENT_GONE = 499  # nobody reads it; it is for the metrics
_COME_BACK = {"Retry-After": "1"}
T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)
Q = TypeVar("Q", bound=TextsRequest)


class Front:
    """The routes over a `Swapper`."""

    def __init__(self, swapper: Swapper, drain: Drain, metrics: Metrics, *, max_requests: int) -> None:
        self._swapper, self._drain, self._metrics, self._max_requests = swapper, drain, metrics, max_requests

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/completions", self._endpoint("completions", self.completions), methods=["POST"]),
                Route("/v1/chat/completions", self._endpoint("chat", self.chat), methods=["POST"]),
                Route("/v1/embeddings", self._endpoint("embeddings", self.embeddings), methods=["POST"]),
                *(Route(path, self._endpoint("classify", self.classify), methods=["POST"]) for path in _CLASSIFY),
                Route("/v1/models", self.models),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/metrics", self.metrics),
            ],
            exception_handlers={HTTPException: _http_error},
        )

    # ---- probes

    async def healthz(self, _request: Request) -> Response:
        """200 while every thread that serves lives."""
        well = self._swapper.healthy
        return JSONResponse({"ok": well}, status_code=200 if well else 503)

    async def readyz(self, _request: Request) -> Response:
        """200 only with a verified version applied, and not when about to leave."""
        current = self._swapper.current
        if current is None or self._drain.draining or not self._swapper.healthy:
            return JSONResponse({"ready": False}, status_code=503)
        return JSONResponse({"ready": True, **named(current.identity)}, headers=headers(current.identity))

    async def metrics(self, _request: Request) -> Response:
        """Prometheus' text."""
        self._metrics.running.set(self._swapper.requests)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, _request: Request) -> Response:
        """The one model, named by its version."""
        current = self._swapper.current
        if current is None:
            return JSONResponse({"object": "list", "data": []})
        identity = current.identity
        entry = {"id": str(identity.model_name), "object": "model", "owned_by": "modelparams", **named(identity)}
        return JSONResponse({"object": "list", "data": [entry]}, headers=headers(identity))

    # ---- endpoints

    async def completions(self, request: Request) -> Response:
        """Continue a prompt."""
        asked = await _parsed(request, CompletionRequest)

        def prompt(version: ResidentVersion) -> list[int]:
            given = asked.prompt
            return given if isinstance(given, list) else version.tokenizer.encode(given, special=True)

        return await self._generate(request, asked, prompt, asked.max_tokens or _COMPLETION_TOKENS, chat=False)

    async def chat(self, request: Request) -> Response:
        """Answer a conversation; without a limit, up to the end of the context."""
        asked = await _parsed(request, ChatRequest)
        limit = asked.max_completion_tokens or asked.max_tokens
        return await self._generate(request, asked, lambda v: v.tokenizer.chat(asked.conversation), limit, chat=True)

    async def embeddings(self, request: Request) -> Response:
        """Embed texts."""
        return await self._pooled(request, await _parsed(request, EmbeddingRequest), pooling.embeddings)

    async def classify(self, request: Request) -> Response:
        """Classify texts."""
        return await self._pooled(request, await _parsed(request, ClassifyRequest), pooling.classes)

    async def _pooled(
        self, request: Request, asked: Q, answer: Callable[[ResidentVersion, Q], Coroutine[Any, Any, dict[str, Any]]]
    ) -> Response:
        with self._lease(asked.model) as version:
            return JSONResponse(await _unless_gone(request, answer(version, asked)), headers=headers(version.identity))

    async def _generate(
        self,
        request: Request,
        asked: GenerateRequest,
        prompt: Callable[[ResidentVersion], list[int]],
        limit: int | None,
        *,
        chat: bool,
    ) -> Response:
        with contextlib.ExitStack() as stack:
            version = stack.enter_context(self._lease(asked.model))
            count = self._metrics.tokens.labels(str(version.identity.version)).inc
            made = job(version, asked, prompt, limit, chat=chat, count=count)
            if not asked.stream:
                return JSONResponse(await _unless_gone(request, made.whole()), headers=headers(version.identity))
            return _Leased(made.stream(), headers(version.identity), stack.pop_all())

    def _lease(self, model: str | None) -> contextlib.AbstractContextManager[ResidentVersion]:
        current = self._swapper.current
        if current is None:
            raise Refused(503, "no verified version is applied yet", code="no_version")
        if model is not None and model != str(current.identity.model_name):
            raise Refused(404, f"this server has {current.identity.model_name} only", code="model_not_found")
        if self._swapper.requests >= self._max_requests:
            raise Refused(503, "too many requests are under way", code="overloaded")
        return self._swapper.lease()

    def _endpoint(
        self, name: str, work: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Errors as answers, and a count of everything."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            try:
                response = await work(request)
            except Refused as error:
                retry = _COME_BACK if error.status == 503 else {}
                response = JSONResponse(error.body, status_code=error.status, headers=retry | self._headers())
            except (GenerationFailed, RuntimeError, NoVersion):
                body = error_body("the engine gave the request up", kind="server_error", code="engine_failed")
                response = JSONResponse(body, status_code=503, headers=_COME_BACK | self._headers())
            version = response.headers.get("x-modelparams-version", "")

            def count() -> None:
                self._metrics.requests.labels(name, str(response.status_code), version).inc()
                self._metrics.seconds.labels(name).observe(time.perf_counter() - started)

            if isinstance(response, _Leased):
                response.stack.callback(count)
            else:
                count()
            return response

        return endpoint

    def _headers(self) -> dict[str, str]:
        current = self._swapper.current
        return headers(current.identity) if current else {}


class _Leased(StreamingResponse):
    """A stream that gives its lease back however it ends, also if it never began."""

    def __init__(self, content: AsyncGenerator[bytes], head: dict[str, str], stack: contextlib.ExitStack) -> None:
        super().__init__(content, headers=head | {"Cache-Control": "no-cache"}, media_type="text/event-stream")
        self._content, self.stack = content, stack

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self.stack:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._content.aclose()


async def _parsed(request: Request, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        message = first["msg"].removeprefix("Value error, ")
        raise Refused(400, f"{param}: {message}" if param else message, code="invalid_value", param=param) from error


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it when the client leaves."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused(_CLIENT_GONE, "the client left", code="client_gone")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = error_body(error.detail, kind="invalid_request_error", code=None)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
