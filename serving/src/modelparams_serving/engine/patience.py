"""Connections that only stay, or come in crumbs: closed, and read in pieces that hold the loop for a moment only."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_PIECE = 1 << 12
"""Bytes read at a time; asyncio's 256 KiB can be 43,000 chunks of one byte, a third of a second for h11."""

_CRUMBS, _CRUMB = 64, 64
"""A body of more pieces than the first has as many bytes as the second in each, on the average: one costs h11 50 µs."""


class _NoCrumbs(h11.Connection):
    """Takes no body in pieces of a few bytes: some dozen such clients would keep everybody else waiting for seconds."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces, self._bytes = self._pieces + 1, self._bytes + len(event.data)
            if self._pieces > max(_CRUMBS, self._bytes // _CRUMB):
                raise h11.RemoteProtocolError("the body comes in pieces of a few bytes")
        return event


def patient(seconds: float) -> type[asyncio.Protocol]:
    """Give uvicorn's protocol, for connections that may be without a request for `seconds` at a time.

    That is from the first byte, or the end of an answer, to the end of the next head; a body that nobody waits for
    any more counts as none.
    """

    class Patient(H11Protocol):
        _closing: asyncio.TimerHandle | None = None

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.conn = _NoCrumbs(h11.SERVER, self.conn._max_incomplete_event_size)

        def connection_made(self, transport: Any) -> None:
            transport.max_size = _PIECE
            super().connection_made(transport)
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._forget()

        def handle_events(self) -> None:
            super().handle_events()
            self._look()

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                super().send_400_response(msg)
            else:  # it has its answer, or a part of it
                self.transport.close()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def _look(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
            elif self._closing is None:
                self._closing = self.loop.call_later(seconds, self.transport.close)

        def _forget(self) -> None:
            if self._closing is not None:
                self._closing.cancel()
                self._closing = None

    return Patient


def leave_who_takes_nothing(listener: socket.socket, seconds: float) -> None:
    """Let the kernel end connections whose other end takes nothing of what it was sent for `seconds`."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000)))
