"""What the API server tells of one model: its versions, its rollout, and each pod's order and answer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.api import Api
from cluster.kubectl import Kubectl

Object = dict[str, Any]

_A_WHILE = 5
"""Seconds."""


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
        return _is_at_rest(self.rollout())

    def wait_live(self, version: str, pods: int, *, seconds: float) -> None:
        """Until so many pods serve a version and the rollout rests.

        Watches: whoever asks again and again takes the processor from those it waits for.

        Raises:
            TimeoutError: they did not within the time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError):  # an API server that starts again
                if self._saw_live(version, pods):
                    return
        raise TimeoutError(f"waited {seconds:g} s for {self.name} {version} live on {pods} pods")

    def _saw_live(self, version: str, pods: int) -> bool:
        """Watch for a while. Not for long: that an old pod's order goes is no change of the rollout."""
        seen = self._api.watch(self._path("modelparamrollouts"), f"{self.name}-default", seconds=_A_WHILE)
        return any(_is_at_rest(rollout) and list(self.live().values()) == [version] * pods for rollout in seen)

    @cached_property
    def _api(self) -> Api:
        return Api(self.kubectl.kubeconfig)

    def _get(self, what: str) -> Object:
        return self._api.get(self._path(what))

    def _path(self, what: str) -> str:
        return f"/apis/modelparams.dev/v1alpha1/namespaces/{self.kubectl.namespace}/{what}"


def _is_at_rest(rollout: Object) -> bool:
    status = rollout.get("status", {})
    return status.get("observedGeneration") == rollout.get("metadata", {}).get("generation") and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())
    )


def condition(subject: Object, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty ones when it is not there."""
    found = subject.get("status", {}).get("conditions", ())
    return next(((c["status"], c["reason"], c["message"]) for c in found if c["type"] == kind), ("", "", ""))
