"""One child process: start, wait until it answers, stop."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.state import MARK, home_of

_NEVER: Final = 1e9


class ProcessFailed(RuntimeError):
    """A child ended, or did not answer in time; the message holds the end of its log."""


class Process:
    """A child in a session of its own that writes to one log file.

    Args:
        name: for messages.
        command: program and arguments.
        environment: the whole environment. The mark of its `State` in it says with what it is swept; without one
            it is swept at the end of this process. Its temporary files are swept along, if it names no place for them.
        log: appended to.
    """

    def __init__(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        mark = environment.get(MARK) or str(home_of(os.getpid()))
        self._environment = {MARK: mark, "TMPDIR": mark, **environment}
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; a second start after an end is fine."""
        assert not self.is_running, f"{self.name} runs already"
        self._child = None
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, also after its end."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """True from start to end."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """As `subprocess` gives it: minus the signal's number after a kill."""
        return self._child.poll() if self._child else None

    def signal(self, number: int) -> None:
        """Send a signal to the process and all that it started."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self._wait(_NEVER)

    def stop(self, grace_seconds: float = 10) -> None:
        """End it in order, or by force after the grace period."""
        if self.is_running:
            self._child_signal(signal.SIGTERM)
            if not self._wait(grace_seconds):
                self.kill()

    def _child_signal(self, number: int) -> None:
        # Only the process itself: what it started is its own to end, within the grace period.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _wait(self, seconds: float) -> bool:
        if self._child is not None:
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
        return True

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Poll `ready` until it is true.

        Raises:
            ProcessFailed: the process ended, or the time is over.
        """
        try:
            wait_until(lambda: not self.is_running or ready(), f"{self.name} to answer", seconds=seconds, every=0.02)
        except TimeoutError as late:
            raise ProcessFailed(f"{late}\n{self.log_tail()}") from late
        if not self.is_running:
            raise ProcessFailed(f"{self.name} ended with {self.exit_code}\n{self.log_tail()}")

    def log_tail(self, lines: int = 25) -> str:
        """The last lines that it wrote."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([f"--- {self.log}", *text.splitlines()[-lines:]])


def wait_until(holds: Callable[[], bool], what: str, *, seconds: float, every: float = 0.05) -> None:
    """Poll a condition.

    Raises:
        TimeoutError: it did not hold within the time; the message names `what`.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


_PORTS = range(10_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens, and that this process was not given before.

    Below the range that the kernel hands to outgoing connections, so that none of those takes it before its
    server does, which may be seconds later; at random, so that runs side by side do not meet, and workers of one run
    have ports of their own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    for _ in range(200):
        port = random.SystemRandom().choice(ports)
        with contextlib.closing(socket.socket()) as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)) != 0 and _can_bind(port):
                _given.add(port)
                return port
    raise OSError(f"found no free port between {_PORTS.start} and {_PORTS.stop}")


def _can_bind(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers_http(url: str) -> bool:
    """True when something speaks HTTP there, whatever it says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=2).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return True
    except OSError:
        return False
    return True
