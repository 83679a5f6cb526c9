"""Pods whose agents answer orders at once, without an engine: the operator cannot tell them from real ones.

Each answers as `modelparams_serving.agent` does: holds what it is told, serves what it holds, refuses lower terms,
and is Ready while it serves. Faults are per pod and by digest, set while it runs.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.api import Api, ApiError
from modelparams.api import API_VERSION, GROUP, MODEL_LABEL
from modelparams.api.assignment import (
    KIND,
    PLURAL,
    AssignmentSpec,
    AssignmentStatus,
    HeldRelease,
    PodState,
    ReleaseFailure,
)
from modelparams.api.release import Release
from modelparams.digest import Digest
from modelparams.reasons import Reason

Object = dict[str, Any]
_ROUND = 0.03


@dataclass
class Pod:
    """One pod as its agent and engine know it. `is_silent`: its agent does not run."""

    name: str
    uid: str
    refuses: dict[Digest, Reason] = field(default_factory=dict)
    is_silent: bool = False
    term: int = 0
    generation: int = -1
    """Of the order that it obeyed last."""
    held: dict[Digest, Release] = field(default_factory=dict)
    live: Digest | None = None
    served: list[str] = field(default_factory=list)
    """Versions in the order in which they became live."""
    written: tuple[str, Object] | None = None
    """The order's UID, and what was answered to it."""
    was_ready: bool | None = None


class Agents:
    """The pods of one namespace. A context manager; its thread plays all of them in rounds."""

    def __init__(self, api: Api, namespace: str, model: str) -> None:
        self._api, self._namespace, self._model = api, namespace, model
        self._pods: dict[str, Pod] = {}
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)

    def __enter__(self) -> Agents:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def create(self, name: str, labels: Mapping[str, str] | None = None) -> Pod:
        """Make a pod that opted in; nobody schedules it, so it can be deleted at once."""
        metadata = {"name": name, "labels": {MODEL_LABEL: self._model, **(labels or {})}}
        spec = {"containers": [{"name": "engine", "image": "none"}], "automountServiceAccountToken": False}
        made = self._api.post(self._pods_path(), {"metadata": metadata, "spec": spec})
        with self._lock:
            pod = self._pods[name] = Pod(name, made["metadata"]["uid"])
        return pod

    def delete(self, name: str) -> None:
        """Delete a pod."""
        with self._lock:
            del self._pods[name]
        self._api.delete(self._pods_path(name), grace_seconds=0)

    @contextlib.contextmanager
    def held_still(self) -> Iterator[None]:
        """No agent does anything inside."""
        with self._lock:
            yield

    def live(self) -> dict[str, str]:
        """Pod name to the version that it serves."""
        with self._lock:
            return {pod.name: str(pod.held[pod.live].version) for pod in self._pods.values() if pod.live}

    def all(self) -> list[Pod]:
        """The pods, by name; read them, change them under `held_still`."""
        with self._lock:
            return [self._pods[name] for name in sorted(self._pods)]

    def order(self, name: str) -> Object | None:
        """A pod's assignment as it is."""
        return self._api.find(self._orders_path(name))

    def _run(self) -> None:
        while not self._stop.wait(_ROUND):
            with contextlib.suppress(
                ConnectionError, ApiError
            ):  # the API server is away, or a pod went: the next round
                self._round()

    def _round(self) -> None:
        orders = {o["metadata"]["name"]: o for o in self._api.get(self._orders_path())["items"]}
        with self._lock:
            for pod in self._pods.values():
                if pod.name in orders and not pod.is_silent:
                    self._answer(pod, orders[pod.name])
                if pod.was_ready is not (pod.live is not None):
                    self._say_ready(pod)

    def _answer(self, pod: Pod, assignment: Object) -> None:
        order, metadata, failure = AssignmentSpec.parse(assignment["spec"]), assignment["metadata"], None
        if order.pod_uid != pod.uid:
            return
        if order.term >= pod.term:
            pod.term = order.term
            failure = self._obey(pod, order)
            pod.generation = metadata["generation"]
        status = _status(pod, failure, pod.generation)
        if (metadata["uid"], status) == pod.written:
            return
        body = {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND, "status": status}
        self._api.apply(self._orders_path(pod.name) + "/status", body, manager="modelparams-agent")
        pod.written = metadata["uid"], copy.deepcopy(status)

    def _obey(self, pod: Pod, order: AssignmentSpec) -> ReleaseFailure | None:
        failure = None
        wanted = {release.manifest_digest: release for release in order.releases}
        for digest, release in wanted.items():
            if digest in pod.refuses:
                failure = _failure(release, pod.refuses[digest], order.attempt)
            else:
                pod.held[digest] = release
        if order.activate in pod.held and order.activate != pod.live and order.activate not in pod.refuses:
            pod.live = order.activate
            pod.served.append(str(pod.held[pod.live].version))
        pod.held = {digest: release for digest, release in pod.held.items() if digest in wanted or digest == pod.live}
        return failure

    def _say_ready(self, pod: Pod) -> None:
        is_ready = pod.live is not None
        condition = {"type": "Ready", "status": "True" if is_ready else "False"}
        self._api.patch(self._pods_path(pod.name) + "/status", {"status": {"conditions": [condition]}})
        pod.was_ready = is_ready

    def _pods_path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods" + (f"/{name}" if name else "")

    def _orders_path(self, name: str = "") -> str:
        return f"/apis/{GROUP}/{API_VERSION}/namespaces/{self._namespace}/{PLURAL}" + (f"/{name}" if name else "")


def _failure(release: Release, reason: Reason, attempt: str) -> ReleaseFailure:
    return ReleaseFailure(
        version_name=release.version_name,
        manifest_digest=release.manifest_digest,
        reason=reason,
        message=f"a test had it fail: {reason}",
        attempt=attempt,
        time=datetime(2026, 11, 24, 12, tzinfo=UTC),
    )


def _status(pod: Pod, failure: ReleaseFailure | None, generation: int) -> Object:
    held = {
        digest: HeldRelease(version_name=r.version_name, version=r.version, manifest_digest=digest)
        for digest, r in pod.held.items()
    }
    state = PodState.FAILED if failure else PodState.LIVE if pod.live else PodState.STAGED
    status = AssignmentStatus(
        observed_generation=generation,
        pod_uid=pod.uid,
        term=pod.term,
        state=state,
        live=held.get(pod.live) if pod.live else None,
        staged=tuple(held.values()),
        pause_microseconds=100 if pod.live else None,
        last_failure=failure,
    )
    return status.wire()
