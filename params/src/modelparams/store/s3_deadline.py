"""A time by which each answer must be there: a socket's own timeout is between two bytes, and no drip ever meets it.

Who may write a version names the store that the operator calls. A server of theirs that sends a byte now and then would
hold one of the operator's few threads for ever, in a header as well as in a body. So a connection has a deadline from
when its answer is awaited; whoever reads a body sets another for each piece. One thread breaks off what is late.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from modelparams.store.s3_answers import bounded

ANSWER_SECONDS = 30.0
"""For a handshake, and for an answer's head, or a short answer as a whole."""


class _Watch:
    """The deadlines of all connections, by `time.monotonic()`, and the thread that meets them."""

    def __init__(self) -> None:
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
                self._wakes = min(self._due.values(), default=float("inf"))
                self._changed.wait(self._wakes - now if self._due else None)

    def _break_late_off(self, now: float) -> None:
        for connection in [one for one, due in self._due.items() if due <= now]:
            del self._due[connection]
            _break_off(connection)


_watch = _Watch()


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


def _break_off(connection: Any) -> None:
    """End a blocked read in another thread. What has come can still be read, and then it is over."""
    if (sock := connection.sock) is not None:
        with suppress(OSError):
            # Not an SSLSocket's own, which goes on in plain text: sealed bytes would pass for other ones.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def watch_answers(session: Any) -> None:
    """Give each connection that a botocore HTTP session will make a deadline for its answers, and these a limit."""
    classes = session._pool_classes_by_scheme
    for scheme, pool in classes.items():
        watched = type(pool.ConnectionCls.__name__, (_Watched, pool.ConnectionCls), {})
        classes[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": watched})


class _Watched:
    """Mixed into urllib3's connections."""

    def connect(self) -> Any:
        expect_within(self, ANSWER_SECONDS)
        try:
            return super().connect()  # type: ignore[misc]
        finally:
            rest(self)

    def request(self, *arguments: Any, **named: Any) -> Any:
        rest(self)  # sending takes as long as it takes
        return super().request(*arguments, **named)  # type: ignore[misc]

    def getresponse(self) -> Any:
        due = expect_within(self, ANSWER_SECONDS)
        try:
            answer = super().getresponse()  # type: ignore[misc]
        except Exception:
            rest(self)
            _require_time(due)
            raise
        if time.monotonic() >= due:  # a head that was broken off passes for one that ends there
            answer.close()
            _require_time(due)
        return bounded(answer)


def _require_time(due: float) -> None:
    if time.monotonic() >= due:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s")
