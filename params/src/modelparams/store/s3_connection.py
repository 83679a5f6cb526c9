"""A client's connections: each answer in time, of a size that one can have, and of the request that it is taken for."""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from typing import Any

from urllib3.util import wait_for_read

from modelparams.store.s3_answers import Answer, bounded
from modelparams.store.s3_deadline import ANSWER_SECONDS, expect_within, rest

_INVITATION_SECONDS = 1.0
"""For a server to say whether it wants the body; then it is sent (RFC 9110, 10.1.1)."""


def watch_answers(session: Any) -> None:
    """Let each connection that a botocore HTTP session will make be one of ours."""
    classes = session._pool_classes_by_scheme
    for scheme, pool in classes.items():
        watched = type(pool.ConnectionCls.__name__, (_Watched, pool.ConnectionCls), {})
        classes[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": watched})


class _Watched:
    """Mixed into botocore's connections, which are urllib3's, which are http.client's."""

    response_class: Any = Answer
    sock: Any
    _answering: Any = None
    _left: Any = None

    @property
    def awaited(self) -> Any:
        """The socket that something may be awaited from: http.client lets go of that of a connection's last answer."""
        return self.sock or self._answering

    def connect(self) -> Any:
        expect_within(self, ANSWER_SECONDS)
        try:
            made = super().connect()  # type: ignore[misc]
        finally:
            rest(self)
        if self._left is not None:
            self._left.detach()
        # One that an error leaves behind, in whose traceback it is, ends with it: the collector may be long in coming.
        self._left = weakref.finalize(self, _give_back, self.sock)
        self._left.atexit = False
        return made

    def request(self, *arguments: Any, **named: Any) -> Any:
        rest(self)  # sending takes as long as it takes
        return super().request(*arguments, **named)  # type: ignore[misc]

    def _handle_expect_response(self, message_body: Any) -> None:
        """In place of botocore's, which reads lines of any length, for ever once the server is gone.

        It is called when the socket has something, which of TLS may be no more than a ticket.
        """
        answer = Answer(self.sock, method=self._method)  # type: ignore[attr-defined]
        self.response_class = lambda *_, **__: answer  # botocore puts the class back for the next request
        if answer.has_begun() or (wait_for_read(self.sock, _INVITATION_SECONDS) and answer.has_begun()):
            expect_within(self, ANSWER_SECONDS)
            try:
                self._response_received = not answer.invites()
            except BaseException:
                answer.close()
                raise
            finally:
                rest(self)
        self._send_message_body(message_body)  # type: ignore[attr-defined]

    def getresponse(self) -> Any:
        self._answering = self.sock
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


def _give_back(sock: Any) -> None:
    """Close a socket for good, whatever still reads from it; one that is closed already stays so."""
    with suppress(OSError, AttributeError):
        os.close(sock.detach())


def _require_time(due: float) -> None:
    if time.monotonic() >= due:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s")
