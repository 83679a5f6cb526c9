"""kubectl, as users run it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.state import home_of
from cluster.tools import binary


class KubectlFailed(RuntimeError):
    """It exited non-zero; the message is what it wrote to standard error."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs kubectl with one kubeconfig: `kubectl("get", "mpv", "-o", "wide")` gives its standard output.

    Attributes:
        namespace: the default one, if given.
    """

    kubeconfig: Path
    namespace: str = ""

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 60) -> str:
        """Run it.

        Raises:
            KubectlFailed: the exit code was not zero.
        """
        scope = ["--namespace", self.namespace] if self.namespace else []
        command: list[str | Path] = [binary("kubectl"), "--kubeconfig", self.kubeconfig, *scope, *arguments]
        # By default discovery is cached in HOME by host and port: a test cluster's come back with other kinds.
        environment = dict(os.environ) | {"KUBECACHEDIR": str(home_of(os.getpid()) / "kubectl-cache")}
        done = subprocess.run(
            command, input=stdin, capture_output=True, encoding="utf-8", timeout=timeout, env=environment, check=False
        )
        if done.returncode:
            raise KubectlFailed(done.stderr.strip())
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """Run it with `-o json`."""
        return dict(json.loads(self(*arguments, "-o", "json")))

    def apply(self, *documents: dict[str, Any] | str) -> str:
        """Apply objects (JSON or YAML text) as a user would."""
        text = "\n---\n".join(d if isinstance(d, str) else json.dumps(d) for d in documents)
        return self("apply", "-f", "-", stdin=text)
