"""What the API server tells of one model: its versions, its rollout, and each pod's order and answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.kubectl import Kubectl
from cluster.process import wait_until

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """One model in one namespace, by kubectl."""

    kubectl: Kubectl
    name: str

    def apply(self, file: Path) -> None:
        """Apply a version, as `publish` printed it."""
        self.kubectl("apply", "-f", str(file))

    def delete(self, version: str) -> None:
        """Take a version's object away, as a Git revert would; does not wait."""
        self.kubectl("delete", "mpv", f"{self.name}-{version}", "--wait=false")

    def version(self, version: str) -> Object:
        """A version's object."""
        return self.kubectl.json("get", "mpv", f"{self.name}-{version}")

    def rollout(self) -> Object:
        """The one that the operator made."""
        return self.kubectl.json("get", "mpr", f"{self.name}-default")

    def orders(self) -> dict[str, Object]:
        """Each pod's assignment, from the rollout that the operator made."""
        every = self.kubectl.json("get", "mpa")["items"]
        return {o["metadata"]["name"]: o for o in every if o["spec"]["rolloutName"] == f"{self.name}-default"}

    def live(self) -> dict[str, str]:
        """Each pod's live version; empty when there is none."""
        return {
            name: (order.get("status", {}).get("live") or {}).get("version", "")
            for name, order in self.orders().items()
        }

    def is_at_rest(self) -> bool:
        """True when the rollout is Ready for what is asked of it."""
        rollout = self.rollout()
        status = rollout.get("status", {})
        return status.get("observedGeneration") == rollout["metadata"]["generation"] and any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())
        )

    def wait_live(self, version: str, pods: int, *, seconds: float) -> None:
        """Until so many pods serve a version and the rollout rests."""
        wait_until(
            lambda: list(self.live().values()) == [version] * pods and self.is_at_rest(),
            f"{self.name} {version} live on {pods} pods",
            seconds=seconds,
            every=0.2,
        )


def condition(subject: Object, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty ones when it is not there."""
    found = subject.get("status", {}).get("conditions", ())
    return next(((c["status"], c["reason"], c["message"]) for c in found if c["type"] == kind), ("", "", ""))
