"""Whatever becomes of a request is an answer of one form, names the version that it began on, and is counted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from modelparams.protocol import Resident
from modelparams_serving.engine.bodies import Bodies
from modelparams_serving.engine.drain import Drain
from modelparams_serving.engine.generate import GenerationFailed
from modelparams_serving.engine.metrics import Metrics
from modelparams_serving.engine.openai_answers import error_body, headers
from modelparams_serving.engine.passes import PassFailed
from modelparams_serving.engine.probes import COME_BACK
from modelparams_serving.engine.refusals import Refused
from modelparams_serving.engine.sending import CLIENT_GONE, Pieces
from modelparams_serving.engine.swap import NoVersion, Swapper

_log = structlog.get_logger("engine.http")
_LEAVE = {"Connection": "close"}  # the rest of the body would be taken for the next request's head


def begins_on(request: Request, identity: Resident) -> None:
    """Note the version that answers: whatever becomes of the request, its answer names this one."""
    request.state.answering = identity


class Endpoints:
    """Makes an endpoint of what answers a request, or raises."""

    def __init__(self, swapper: Swapper, drain: Drain, metrics: Metrics, bodies: Bodies) -> None:
        self._swapper, self._drain, self._metrics, self._bodies = swapper, drain, metrics, bodies

    def of(
        self, name: str, work: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Errors as answers, and a count of everything."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            response = await self._answered(request, work)
            version = response.headers.get("x-modelparams-version", "")
            if self._drain.draining:
                response.headers["Connection"] = "close"  # its next request shall go elsewhere

            def count() -> None:
                self._metrics.requests.labels(name, str(response.status_code), version).inc()
                self._metrics.seconds.labels(name).observe(time.perf_counter() - started)

            if isinstance(response, Pieces):
                response.stack.callback(count)
            else:
                count()
            return response

        return endpoint

    async def _answered(self, request: Request, work: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            return await work(request)
        except Refused as error:
            return self._error(request, error.status, error.body)
        except ClientDisconnect:
            return self._error(request, CLIENT_GONE, error_body("the client left", kind="invalid_request_error"))
        except (GenerationFailed, PassFailed, NoVersion):
            body = error_body("the engine gave the request up", kind="server_error", code="engine_failed")
            return self._error(request, 503, body)
        except Exception as error:
            _log.exception("failed", path=request.url.path, kind=type(error).__name__)
            body = error_body("the engine failed on the request; its log says where", kind="server_error")
            return self._error(request, 500, body)
        finally:
            self._bodies.forget(request)

    def _error(self, request: Request, status: int, body: dict[str, Any]) -> Response:
        retry = COME_BACK if status == 503 else _LEAVE if status == 408 else {}
        return JSONResponse(body, status_code=status, headers=retry | self._headers(request))

    def _headers(self, request: Request) -> dict[str, str]:
        """The version that the request began on; before it began on one, what it would have."""
        current = self._swapper.current
        identity = getattr(request.state, "answering", current.identity if current else None)
        return headers(identity) if identity else {}


async def http_error(_request: Request, error: Exception) -> Response:
    """Give what Starlette refuses, such as an unknown path, the same form."""
    assert isinstance(error, HTTPException)
    body = error_body(error.detail, kind="invalid_request_error", code=None)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
