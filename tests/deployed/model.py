"""What the API server tells of one model: its versions, its rollout, and each pod's order and answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.api import Api
from cluster.kubectl import Kubectl
from cluster.process import wait_until

Object = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One model in one namespace: changed by kubectl, as people do, and read by plain requests.

    Whoever waits reads several times a second, and a kubectl each time takes half a processor from those it waits for.
    """

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
        return self._get(f"modelparamversions/{self.name}-{version}")

    def rollout(self) -> Object:
        """The one that the operator made; empty before it did."""
        return self._api.find(self._path(f"modelparamrollouts/{self.name}-default")) or {}

    def step(self) -> str:
        """Of that rollout, such as `1/3`; empty before there is one."""
        return str(self.rollout().get("status", {}).get("step", ""))

    def orders(self) -> dict[str, Object]:
        """Each pod's assignment, from the rollout that the operator made."""
        every = self._get("modelparamassignments")["items"]
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
        return status.get("observedGeneration") == rollout.get("metadata", {}).get("generation") and any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())
        )

    def wait_live(self, version: str, pods: int, *, seconds: float) -> None:
        """Until so many pods serve a version and the rollout rests."""
        wait_until(
            lambda: list(self.live().values()) == [version] * pods and self.is_at_rest(),
            f"{self.name} {version} live on {pods} pods",
            seconds=seconds,
            every=0.05,
        )

    @cached_property
    def _api(self) -> Api:
        return Api(self.kubectl.kubeconfig)

    def _get(self, what: str) -> Object:
        return self._api.get(self._path(what))

    def _path(self, what: str) -> str:
        return f"/apis/modelparams.dev/v1alpha1/namespaces/{self.kubectl.namespace}/{what}"


def condition(subject: Object, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty ones when it is not there."""
    found = subject.get("status", {}).get("conditions", ())
    return next(((c["status"], c["reason"], c["message"]) for c in found if c["type"] == kind), ("", "", ""))
