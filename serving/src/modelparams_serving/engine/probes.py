"""What a pod's surroundings ask: health, readiness, metrics; answered from the first second, before torch is there."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from modelparams_serving.engine.drain import Drain
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.openai_answers import error_body, headers, named
from modelparams_serving.engine.swap import Swapper

COME_BACK = {"Retry-After": "1"}
_STARTING = "the engine starts: torch and transformers are being imported"
_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class Probes:
    """Three routes over a `Swapper`."""

    def __init__(self, swapper: Swapper, drain: Drain, metrics: Metrics) -> None:
        self._swapper, self._drain, self._metrics = swapper, drain, metrics

    def routes(self) -> list[Route]:
        """For any application."""
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]

    async def healthz(self, _request: Request) -> Response:
        """200 while every thread that serves lives."""
        well = self._swapper.healthy
        return JSONResponse({"ok": well}, status_code=200 if well else 503)

    async def readyz(self, _request: Request) -> Response:
        """200 only with a verified version applied, and not when about to leave; else it says why not."""
        current, reason = self._swapper.current, self._why_not()
        if current is None or reason:
            return JSONResponse({"ready": False, "reason": reason}, status_code=503)
        return JSONResponse({"ready": True, **named(current.identity)}, headers=headers(current.identity))

    def _why_not(self) -> str:
        if self._drain.draining:
            return "this engine is about to leave"
        if self._swapper.starting:
            return _STARTING
        if not self._swapper.healthy:
            return "a thread that serves has ended; only a restart helps"
        return "" if self._swapper.current else "no verified version is applied yet"

    async def metrics(self, _request: Request) -> Response:
        """Prometheus' text."""
        self._metrics.running.set(self._swapper.requests)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")


class Doors:
    """The application that answers: the probes alone at first, and all others are told to come back; then `inner`."""

    def __init__(self, probes: Probes) -> None:
        routes = [*probes.routes(), Route("/{path:path}", _starting, methods=_ANY)]
        self.inner: ASGIApp = Starlette(routes=routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by whatever is inside now."""
        await self.inner(scope, receive, send)


async def _starting(_request: Request) -> Response:
    body = error_body(_STARTING, kind="server_error", code="starting")
    return JSONResponse(body, status_code=503, headers=COME_BACK)
