"""helm, as users run it, with folders of its own."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.state import home_of
from cluster.tools import binary


class HelmFailed(RuntimeError):
    """It exited non-zero; the message is what it wrote to standard error."""


@dataclass(frozen=True, slots=True)
class Helm:
    """Runs helm: `helm("template", "modelparams", chart)` gives its standard output.

    Attributes:
        kubeconfig: of the cluster; None for what needs no cluster.
    """

    kubeconfig: Path | None = None

    def __call__(self, *arguments: str | Path, timeout: float = 120) -> str:
        """Run it.

        Raises:
            HelmFailed: the exit code was not zero.
        """
        folder = home_of(os.getpid()) / "helm"
        folders = {f"HELM_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        # Never the user's own cluster.
        cluster = {"KUBECONFIG": str(self.kubeconfig or os.devnull)}
        done = subprocess.run(
            [binary("helm"), *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            env=dict(os.environ) | folders | cluster,
            check=False,
        )
        if done.returncode:
            raise HelmFailed(done.stderr.strip())
        return done.stdout
