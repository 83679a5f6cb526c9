"""A time by which each answer must be there: a socket's own timeout is between two bytes, and no drip ever meets it.

Who may write a version names the store that the operator calls. A server of theirs that sends a byte now and then would
hold one of the operator's few threads for ever, in a header as well as in a body. So a connection has a deadline from
when its answer is awaited; whoever reads a body sets another for each piece. One thread breaks off what is late.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

ANSWER_SECONDS = 30.0
"""For a handshake, and for an answer's head, or a short answer as a whole."""


class _Watch:
    """The deadlines of all connections, by `time.monotonic()`, and the thread that meets them."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Without a deadline or a thread: as it is made, and in a process that was forked off, which has no threads."""
        self._due = WeakKeyDictionary[Any, float]()
        self._changed, self._wakes = threading.Condition(), float("inf")
        self._thread: threading.Thread | None = None

    def set(self, connection: Any, due: float) -> None:
        with self._changed:
            self._due[connection] = due
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="modelparams-deadlines", daemon=True)
                self._thread.start()
            if due < self._wakes:
                self._changed.notify()

    def forget(self, connection: Any) -> None:
        with self._changed:
            self._due.pop(connection, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._break_late_off(now := time.monotonic())
                # While the collector takes connections away it counts some that it does not give.
                self._wakes = min(self._due.values(), default=float("inf"))
                self._changed.wait(self._wakes - now if self._wakes < float("inf") else None)

    def _break_late_off(self, now: float) -> None:
        for connection in [one for one, due in self._due.items() if due <= now]:
            del self._due[connection]
            if (sock := connection.awaited) is not None:
                break_off(sock)


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.begin)


def expect_within(connection: Any, seconds: float) -> float:
    """Break `connection` off unless `rest` or another deadline comes first. Gives it, by `time.monotonic()`."""
    due = time.monotonic() + seconds
    if connection is not None:
        _watch.set(connection, due)
    return due


def rest(connection: Any) -> None:
    """Nothing is awaited from it now."""
    if connection is not None:
        _watch.forget(connection)


def break_off(sock: Any) -> None:
    """End a connection, also for who is blocked by it. What has come can still be read, and then it is over."""
    with suppress(OSError):
        # Not an SSLSocket's own, which goes on in plain text: sealed bytes would pass for other ones.
        socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)  # urllib3's TLS within TLS is none
