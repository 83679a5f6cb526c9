"""Whether the agent's loop goes on: `GET /healthz`, for a liveness probe.

It is answered from a thread, so also while the event loop hangs. A store or an API server that is away stops no loop,
and is no reason to be killed.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog

from modelparams.errors import UsageError

logger: structlog.stdlib.BoundLogger = structlog.get_logger()
_BEAT_SECONDS = 1.0
_CLIENT_SECONDS, _CLIENTS = 5.0, 32


class Pulse:
    """A loop's sign of life, which says by when the next one comes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due = clock, clock()

    def next_within(self, seconds: float) -> None:
        """Promise the next sign."""
        self._due = self._clock() + seconds

    def late(self) -> float:
        """Seconds since the promise was broken; negative while it holds."""
        return self._clock() - self._due


async def beat(pulse: Pulse) -> None:
    """Show that the event loop itself goes on; for ever."""
    while True:
        pulse.next_within(_BEAT_SECONDS)
        await asyncio.sleep(_BEAT_SECONDS)


class _Server(ThreadingHTTPServer):
    """A thread for each of the latest connections: who holds many open pushes out its own, not the probe's."""

    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._held: dict[socket.socket, None] = {}
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room first; the oldest one's thread finds its connection ended."""
        self._held[request] = None
        for oldest in list(self._held)[:-_CLIENTS]:
            self._held.pop(oldest, None)
            with suppress(OSError):  # it has ended by itself
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Forget it as well."""
        self._held.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 -- the library's
        """Write no traceback of the library's, which is no JSON; a client that has left is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("A probe failed")


def serve(host: str, port: int, pulses: Sequence[Pulse], stuck_seconds: float) -> ThreadingHTTPServer:
    """Answer 200 until one of `pulses` is late by more than `stuck_seconds`, then 503; in a thread.

    Raises:
        UsageError: the address cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_SECONDS

        def do_GET(self) -> None:
            if self.path != "/healthz":
                self._answer(HTTPStatus.NOT_FOUND, "only /healthz is here\n")
            elif (late := max(pulse.late() for pulse in pulses)) > stuck_seconds:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"the agent's loop is {late:.0f} s late\n")
            else:
                self._answer(HTTPStatus.OK, "ok\n")

        def _answer(self, status: HTTPStatus, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """A probe is no news."""

    try:
        server = _Server((host, port), Handler)
    except OSError as error:
        raise UsageError(
            f"{host} port {port} cannot be listened on ({error.strerror})",
            hint="set MODELPARAMS_AGENT_HEALTH_HOST and _PORT to an address that is free",
        ) from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
