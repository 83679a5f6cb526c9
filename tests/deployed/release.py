"""The chart, installed as its users install it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.helm import Helm
from cluster.kubectl import Kubectl
from deployed.store import SECRET
from deployed.target import Target

CHART = Path(__file__).parents[2] / "charts" / "modelparams"
SYSTEM, NAME = "modelparams-system", "modelparams"
_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Release:
    """The operator in its namespace.

    Attributes:
        operator, serving: the images, `repository:tag`.
        trust: the file of the trust policy.
        namespace: in which models are served.
    """

    target: Target
    operator: str
    serving: str
    trust: Path
    namespace: str

    def install(self, **values: Any) -> str:
        """Install or upgrade it, and wait until the operator is ready; helm's notes.

        Args:
            values: of the chart, by their dotted name with `__` for the dot.

        Raises:
            HelmFailed: it did not become ready, or the values are refused.
        """
        given = self._values() | {name.replace("__", "."): value for name, value in values.items()}
        return Helm(self.target.kubeconfig)(
            *("upgrade", "--install", NAME, CHART, "--namespace", SYSTEM, "--create-namespace"),
            *("--wait", f"--timeout={_SECONDS}s", "--set-file", f"trust.policy={self.trust}"),
            *(part for name, value in given.items() for part in ("--set-json", f"{name}={json.dumps(value)}")),
            timeout=_SECONDS + 30,
        )

    def test(self) -> str:
        """Run `helm test`; its output."""
        return Helm(self.target.kubeconfig)("test", NAME, "--namespace", SYSTEM, "--timeout=120s", timeout=150)

    def uninstall(self) -> None:
        """Remove it; the kinds and their objects stay."""
        Helm(self.target.kubeconfig)("uninstall", NAME, "--namespace", SYSTEM, "--ignore-not-found", "--wait")

    @property
    def kubectl(self) -> Kubectl:
        """In the operator's namespace."""
        return Kubectl(self.target.kubeconfig, SYSTEM)

    def _values(self) -> dict[str, Any]:
        return {
            **_image("image", self.operator),
            **_image("agent.image", self.serving),
            "serving.namespaces": [{"name": self.namespace, "storeSecrets": [SECRET]}],
        }


def _image(prefix: str, image: str) -> dict[str, str]:
    repository, _, tag = image.rpartition(":")
    return {f"{prefix}.repository": repository, f"{prefix}.tag": tag, f"{prefix}.pullPolicy": "Never"}
