"""One container of a stand-in pod: a process that is started again when it ends, and a probe of it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.process import Process

_BACKOFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Before the n-th restart; a kubelet begins with 10 s, which tests do not wait for."""
_PROBE_TIMEOUT_SECONDS = 2.0
_PROBE_EVERY_SECONDS = {False: 0.1, True: 1.0}
"""By whether it was ready: a change for the better is seen at once, and a busy server is asked seldom."""


def now() -> str:
    """RFC 3339 in UTC with seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP readiness probe."""

    host: str
    port: int
    path: str
    failures: int

    def passes(self) -> bool:
        """True for an answer from 200 to 399, as a kubelet has it."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("GET", self.path)
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Container:
    """Keeps one process running.

    Attributes:
        restarts: as in `restartCount`.
        is_ready: runs, and its probe passed if it has one.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, probe: Probe | None
    ) -> None:
        self.name = name
        self.process = Process(name, command, environment, log)
        self.restarts = 0
        self.is_ready = False
        self._probe = probe
        self._probe_at = 0.0
        self._failed = 0
        self._start_at = time.monotonic()
        self._started = ""
        self._ended = False
        self._last: dict[str, Any] = {}

    def tend(self) -> None:
        """Start it, start it again, or ask how it is: whatever is due."""
        if self.process.is_running:
            self._ask()
        elif self._started and not self._ended:
            self._note_end()
        elif time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        self.restarts += 1 if self._started else 0
        self._started = now()
        self._ended = False
        self._failed, self._probe_at = 0, 0.0
        try:
            self.process.start()
        except OSError as error:  # no such program
            with self.process.log.open("a") as log:
                print(error, file=log)

    def _note_end(self) -> None:
        self.is_ready = False
        self._ended = True
        code = self.process.exit_code
        code = 127 if code is None else 128 - code if code < 0 else code  # a kill by signal 9 is 137, as in a shell
        self._last = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": self._started,
            "finishedAt": now(),
        }
        self._start_at = time.monotonic() + _BACKOFF_SECONDS[min(self.restarts, len(_BACKOFF_SECONDS) - 1)]

    def _ask(self) -> None:
        if self._probe is None:
            self.is_ready = True
        elif time.monotonic() >= self._probe_at:
            self._failed = 0 if (passed := self._probe.passes()) else self._failed + 1
            self.is_ready = passed or (self.is_ready and self._failed < self._probe.failures)
            self._probe_at = time.monotonic() + _PROBE_EVERY_SECONDS[self.is_ready and passed]

    def status(self) -> dict[str, Any]:
        """Its entry in `containerStatuses`."""
        runs = self.process.is_running
        state: dict[str, Any] = {"running": {"startedAt": self._started}} if runs else self._waiting()
        return {
            "name": self.name,
            "image": "none",
            "imageID": "",
            "ready": self.is_ready,
            "started": runs,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": self._last} if self._last else {},
        }

    def _waiting(self) -> dict[str, Any]:
        return {"waiting": {"reason": "CrashLoopBackOff" if self._started else "ContainerCreating"}}
