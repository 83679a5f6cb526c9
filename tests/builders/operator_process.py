"""The operator as users run it: a process, with a kubelet's patience."""

from __future__ import annotations

import json
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.process import Process, wait_until

QUICK = {
    "MODELPARAMS_LEASE_DURATION": "8",
    "MODELPARAMS_LEASE_RENEW_DEADLINE": "6",
    "MODELPARAMS_LEASE_RETRY_PERIOD": "0.3",
    "MODELPARAMS_RESYNC": "5",
    "MODELPARAMS_METRICS_HOST": "127.0.0.1",
    "MODELPARAMS_METRICS_PORT": "0",
}
"""Short waits for tests, yet long enough for a machine that is busy with others."""


class OperatorProcess:
    """One operator. A context manager.

    Args:
        is_restarted: start it again whenever it ends by itself, as a Deployment does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kubeconfig: Path,
        namespace: str,
        trust: Path,
        name: str = "operator",
        is_restarted: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / f"{name}.log"
        full = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "KUBECONFIG": str(kubeconfig),
            "MODELPARAMS_TRUST": str(trust),
            "MODELPARAMS_WATCH_NAMESPACES": namespace,
            "MODELPARAMS_LEASE_NAMESPACE": namespace,
            "MODELPARAMS_IDENTITY": name,
            **QUICK,
            **(environment or {}),
        }
        self._process = Process(name, [sys.executable, "-m", "modelparams_operator", "run"], full, self.log)
        self._is_restarted, self._closing = is_restarted, threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self.restarts = 0

    def __enter__(self) -> OperatorProcess:
        self.start()
        if self._is_restarted:
            self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        self._process.stop()

    def start(self) -> None:
        """Start it, anew if need be."""
        self._process.start()

    def kill(self) -> None:
        """As a node's power switch does."""
        self._process.kill()

    def stop(self) -> int | None:
        """In order; its exit code."""
        self._process.stop()
        return self._process.exit_code

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.is_running

    @property
    def exit_code(self) -> int | None:
        """Of its last end."""
        return self._process.exit_code

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def records(self) -> list[dict[str, Any]]:
        """Its log lines; whatever is no JSON is a failure."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    def said(self, event: str, **fields: object) -> bool:
        """Whether there is such a log line."""
        return any(r["event"] == event and fields.items() <= r.items() for r in self.records())

    def wait_until_said(self, event: str, seconds: float = 20, **fields: object) -> None:
        """Wait for a log line."""
        wait_until(lambda: self.said(event, **fields), f"the operator says {event!r} {fields}", seconds=seconds)

    def http(self, path: str) -> tuple[int, str]:
        """Ask its metrics and probe server."""
        port = [r["port"] for r in self.records() if r["event"] == "Serving metrics and probes"][-1]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def _supervise(self) -> None:
        while not self._closing.wait(0.2):
            if not self._process.is_running:
                self.restarts += 1
                self._process.start()
