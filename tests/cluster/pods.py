"""PodRunner: the kubelet of one made-up node, with processes for containers.

It runs every pod of its namespace that is bound to its node, whoever made it (`create`, a Deployment, kubectl):
commands, environment (literal and by fieldRef), readiness probes, restarts, SIGTERM and grace period on deletion,
and the pod's status, all as its spec says. What differs from a node, because nothing is isolated here:

- the image is not used, and there are no mounts: the pod's memory volume is a folder, told by
  MODELPARAMS_RUNTIME_DIR; containers that mount the volume `identity` get the pod's own bound token as a kubeconfig,
  told by KUBECONFIG;
- a pod has an address of its own in 127.0.0.0/8, so all pods can use one port, but no Service finds them.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.api import Api, ApiError, Object
from cluster.containers import Container, Probe, now
from cluster.control_plane import Access
from cluster.pki import kubeconfig
from cluster.process import wait_until
from cluster.state import State

AGENT = (sys.executable, "-m", "modelparams_serving.agent")
ENGINE = (sys.executable, "-m", "modelparams_serving.engine")
PORT = 8000

_IDENTITY, _ARENAS = "identity", "arenas"
_SERVICE_ACCOUNT = "modelparams-agent"
_TICK_SECONDS, _LIST_SECONDS = 0.05, 0.1
_TOKEN_SECONDS = 3 * 3600
# What only the agent may hold.
_SECRET_PREFIXES = ("AWS_", "MODELPARAMS_KEYS", "MODELPARAMS_TRUST")
# What a container image would bring or a node would not pass on.
_NOT_INHERITED = ("AWS_", "KUBE", "MODELPARAMS_", "PYTEST_", "COV_")

_addresses = itertools.count(1)


class PodRunner:
    """`with PodRunner(control_plane.access, namespace) as pods: pods.create("web-0", model="smollm2")`.

    Args:
        access: our control plane, or the kubeconfig of an administrator of any other.
        namespace: whose pods to run.
        node: the made-up node's name; a Deployment's template names it as `nodeName`.
        agent, engine: the commands of the two containers that `template` writes.
        service_account: of those pods; made if it is missing, without any right (operator/deploy has its role).
    """

    def __init__(
        self,
        access: Access | Path,
        namespace: str,
        *,
        node: str = "workbench",
        agent: Sequence[str] = AGENT,
        engine: Sequence[str] = ENGINE,
        service_account: str = _SERVICE_ACCOUNT,
    ) -> None:
        self.namespace, self.node = namespace, node
        self._login = access if isinstance(access, Path) else _kubelets(access)
        self._agent, self._engine, self._account = list(agent), list(engine), service_account
        self._pods: dict[str, Pod] = {}
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"kubelet-{node}", daemon=True)

    def __enter__(self) -> Self:
        self._api = Api(self._login)
        self._state = State("pods")
        self._ensure_account()
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; the Pod objects stay, as they do when a node dies."""
        self._stopping.set()
        self._watcher.join()
        for pod in self._pods.values():
            pod.join()
        self._state.close()

    # Pods as API objects.

    def template(
        self, model: str, environment: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None
    ) -> Object:
        """A pod template with agent and engine, as the chart will have it; the engine gets no credential."""
        given = dict(environment or {})
        open_to_all = {name: value for name, value in given.items() if not name.startswith(_SECRET_PREFIXES)}
        arenas = {"name": _ARENAS, "mountPath": "/run/modelparams"}
        identity = {"name": _IDENTITY, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        agent = {
            "name": "agent",
            "image": "none",
            "restartPolicy": "Always",
            "command": self._agent,
            "env": _env(given | {"MODELPARAMS_MODEL": model}),
            "volumeMounts": [arenas, identity],
        }
        engine = {
            "name": "engine",
            "image": "none",
            "command": self._engine,
            "env": _env(open_to_all),
            "ports": [{"containerPort": PORT}],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORT}, "failureThreshold": 3},
            "volumeMounts": [arenas],
        }
        spec = {
            "nodeName": self.node,
            "serviceAccountName": self._account,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 30,
            "tolerations": [{"operator": "Exists"}],
            "initContainers": [agent],
            "containers": [engine],
            "volumes": [
                {"name": _ARENAS, "emptyDir": {"medium": "Memory"}},
                {"name": _IDENTITY, "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
        }
        return {"metadata": {"labels": {"modelparams.dev/model": model, **(labels or {})}}, "spec": spec}

    def create(
        self,
        name: str,
        *,
        model: str,
        environment: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Object:
        """Create one pod from the template; it starts within a tenth of a second."""
        body = self.template(model, environment, labels)
        body["metadata"]["name"] = name
        return self._api.post(self._path(), body)

    def delete(self, name: str, *, wait_seconds: float = 60) -> None:
        """Delete a pod as a user would, and wait until it is gone."""
        self._api.delete(self._path(name))
        wait_until(lambda: self._api.find(self._path(name)) is None, f"pod {name} to be gone", seconds=wait_seconds)

    # What runs.

    def ready(self) -> list[tuple[str, str]]:
        """Name and base URL of each pod that is Ready."""
        return [(pod.name, pod.url) for pod in self._running() if pod.is_ready]

    def restarts(self) -> dict[str, int]:
        """By `pod/container`."""
        return {f"{pod.name}/{c.name}": c.restarts for pod in self._running() for c in pod.containers}

    def pid(self, name: str, container: str) -> int:
        """Of a container's present process, for a look at its memory."""
        return self._container(name, container).process.pid

    def kill(self, name: str, container: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a container's processes, as the kernel's OOM killer would."""
        self._container(name, container).process.signal(number)

    def runtime_dir(self, name: str) -> Path:
        """The pod's memory volume: both arenas and the engine's socket."""
        return self._pod(name).runtime_dir

    def kubeconfig(self, name: str) -> Path:
        """The pod's own login, with its bound token."""
        return self._pod(name).kubeconfig

    def logs(self, name: str, container: str = "engine") -> str:
        """All that a container has written, over its restarts."""
        return self._container(name, container).process.log.read_text(errors="replace")

    def _running(self) -> list[Pod]:
        return list(self._pods.values())

    def _pod(self, name: str) -> Pod:
        return next(pod for pod in reversed(self._running()) if pod.name == name)

    def _container(self, name: str, container: str) -> Container:
        return next(c for c in self._pod(name).containers if c.name == container)

    # The node's loop.

    def _watch(self) -> None:
        while not self._stopping.wait(_LIST_SECONDS):
            try:
                # From the API server's cache; a list of ten pods a tenth of a second costs next to nothing, and
                # unlike a watch it needs no care when the API server goes and comes.
                query = {"fieldSelector": f"spec.nodeName={self.node}", "resourceVersion": "0"}
                pods = self._api.get(self._path(), **query)["items"]
            except (ConnectionError, ApiError):
                continue  # a node goes on with what it knows
            self._adopt(pods)

    def _adopt(self, objects: Iterable[Object]) -> None:
        present = {o["metadata"]["uid"]: o for o in objects}
        for uid, body in present.items():
            if uid not in self._pods and "deletionTimestamp" not in body["metadata"]:
                self._pods[uid] = Pod(body, self._login, self._state, self._stopping)
                self._pods[uid].start()
        for uid, pod in list(self._pods.items()):
            if uid not in present:
                pod.vanish()
            elif "deletionTimestamp" in present[uid]["metadata"]:
                pod.terminate(present[uid]["metadata"].get("deletionGracePeriodSeconds", 30))
            if uid not in present and not pod.is_alive():
                del self._pods[uid]

    def _path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods" + (f"/{name}" if name else "")

    def _ensure_account(self) -> None:
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        if self._api.find(f"{accounts}/{self._account}") is None:
            self._api.post(accounts, {"metadata": {"name": self._account}})


class Pod(threading.Thread):
    """One pod's life on the node: a thread of the pod's name.

    Attributes:
        is_ready: what was last reported as the condition Ready.
    """

    def __init__(self, body: Object, login: Path, state: State, stopping: threading.Event) -> None:
        super().__init__(name=body["metadata"]["name"], daemon=True)
        self._meta, self._spec = body["metadata"], body["spec"]
        self._api, self._stopping, self._mark = Api(login), stopping, state.environment
        uid: str = self._meta["uid"]
        self.folder: Path = state.path / uid
        self.runtime_dir: Path = state.memory / uid
        self.kubeconfig = self.folder / "kubeconfig"
        self.address = _address()
        self.containers: tuple[Container, ...] = ()
        self.is_ready = False
        self._grace: float | None = None
        self._gone = threading.Event()
        self._reported: Object = {}
        self._since: dict[tuple[str, str], str] = {}

    @property
    def url(self) -> str:
        """Of its HTTP port."""
        return f"http://{self.address}:{PORT}"

    def terminate(self, grace_seconds: float) -> None:
        """It was deleted: end it in order within the grace period."""
        self._grace = grace_seconds

    def vanish(self) -> None:
        """Its object is gone already: end it at once."""
        self._gone.set()

    def run(self) -> None:
        """Start, tend and report until the end."""
        self.folder.mkdir(mode=0o700)
        self.runtime_dir.mkdir(mode=0o700)
        if not self._log_in():
            return
        self.containers = tuple(self._containers())
        while not self._stopping.is_set() and not self._gone.is_set() and self._grace is None:
            for container in self.containers:
                container.tend()
            self._report()
            self._gone.wait(_TICK_SECONDS)
        self._end()

    def _log_in(self) -> bool:
        """Get the pod's own token; False when the pod was gone before."""
        account = self._spec.get("serviceAccountName", "default")
        me = {"kind": "Pod", "apiVersion": "v1", "name": self._meta["name"], "uid": self._meta["uid"]}
        path = f"/api/v1/namespaces/{self._meta['namespace']}/serviceaccounts/{account}/token"
        body = {"spec": {"expirationSeconds": _TOKEN_SECONDS, "boundObjectRef": me, "audiences": None}}
        while not self._stopping.is_set() and not self._gone.is_set():
            try:
                token = self._api.post(path, body)["status"]["token"]
            except (ConnectionError, ApiError):
                self._gone.wait(_LIST_SECONDS)
                continue
            self.kubeconfig.touch(mode=0o600)
            self.kubeconfig.write_bytes(kubeconfig(self._api.server, self._api.ca, {"token": token}))
            return True
        return False

    def _containers(self) -> Iterable[Container]:
        for spec in [*self._spec.get("initContainers", []), *self._spec["containers"]]:
            command = [*spec.get("command", []), *spec.get("args", [])]
            yield Container(
                spec["name"], command, self._environment(spec), self.folder / f"{spec['name']}.log", self._probe(spec)
            )

    def _environment(self, spec: Object) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        named = {entry["name"]: self._value(entry) for entry in spec.get("env", [])}
        place = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PYTHONUNBUFFERED": "1"}
        place |= {"MODELPARAMS_RUNTIME_DIR": str(self.runtime_dir), "MODELPARAMS_PORT": str(PORT)}
        if any(mount["name"] == _IDENTITY for mount in spec.get("volumeMounts", [])):
            place["KUBECONFIG"] = str(self.kubeconfig)
        return inherited | named | place | self._mark

    def _value(self, entry: Object) -> str:
        if "valueFrom" not in entry:
            return str(entry.get("value", ""))
        field = entry["valueFrom"]["fieldRef"]["fieldPath"]
        known = {f"metadata.{name}": str(self._meta[name]) for name in ("name", "namespace", "uid")}
        return (known | {"status.podIP": self.address})[field]

    def _probe(self, spec: Object) -> Probe | None:
        if "readinessProbe" not in spec:
            return None
        probe = spec["readinessProbe"]
        return Probe(self.address, probe["httpGet"]["port"], probe["httpGet"]["path"], probe["failureThreshold"])

    def _report(self) -> None:
        """Write the status if it changed; an API server that is away is told later."""
        status = self._status()
        if status == self._reported:
            return
        try:
            self._api.patch(self._path("/status"), {"status": self._stamped(status)})
        except ApiError as error:
            if error.code == 404:
                self._gone.set()
        except ConnectionError:
            pass
        else:
            self._reported, self.is_ready = status, status["conditions"][0]["status"] == "True"

    def _status(self) -> Object:
        ready = "True" if all(c.is_ready for c in self.containers) else "False"
        started = "True" if all(c.process.is_running for c in self.containers) else "False"
        states = {c.name: c.status() for c in self.containers}
        sidecars = [spec["name"] for spec in self._spec.get("initContainers", [])]
        return {
            "phase": "Running",
            "hostIP": "127.0.0.1",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [
                {"type": "Ready", "status": ready},
                {"type": "ContainersReady", "status": ready},
                {"type": "Initialized", "status": started},
                {"type": "PodScheduled", "status": "True"},
            ],
            "initContainerStatuses": [states[name] for name in sidecars],
            "containerStatuses": [state for name, state in states.items() if name not in sidecars],
        }

    def _stamped(self, status: Object) -> Object:
        """With the time at which each condition took its value."""
        values = {(c["type"], c["status"]) for c in status["conditions"]}
        self._since = {value: self._since.get(value) or now() for value in values}
        times = [c | {"lastTransitionTime": self._since[c["type"], c["status"]]} for c in status["conditions"]]
        return status | {"conditions": times}

    def _end(self) -> None:
        """Main containers first, then sidecars in reverse order, as a kubelet does; then finish the deletion."""
        self.is_ready = False
        in_order = self._grace is not None and not self._stopping.is_set() and not self._gone.is_set()
        deadline = time.monotonic() + (self._grace or 0 if in_order else 0)
        for container in reversed(self.containers):
            if in_order:
                container.process.stop(max(0.0, deadline - time.monotonic()))
            container.process.kill()
        while in_order and not self._stopping.is_set():
            try:
                self._api.delete(self._path(), grace_seconds=0)
                return
            except ApiError:
                return  # gone already
            except ConnectionError:
                self._stopping.wait(_LIST_SECONDS)

    def _path(self, part: str = "") -> str:
        return f"/api/v1/namespaces/{self._meta['namespace']}/pods/{self._meta['name']}{part}"


def _kubelets(access: Access) -> Path:
    """A login of its own, which the audit policy leaves out: it would be most of the log."""
    return access.kubeconfig_for("stand-in-kubelet", ["system:masters"])


def _address() -> str:
    """127.x.y.z, unlike that of any other pod of this machine's test runs, by process id and count."""
    number, last = divmod(os.getpid() * 64 + next(_addresses), 254)
    return f"127.{64 + (number >> 8) % 128}.{number & 255}.{last + 1}"


def _env(values: Mapping[str, str]) -> list[Object]:
    """Literal values, and what the downward API tells each pod of itself."""
    fields = {
        "MODELPARAMS_POD_NAME": "metadata.name",
        "MODELPARAMS_POD_NAMESPACE": "metadata.namespace",
        "MODELPARAMS_POD_UID": "metadata.uid",
        "MODELPARAMS_HOST": "status.podIP",
    }
    told: list[Object] = [{"name": n, "valueFrom": {"fieldRef": {"fieldPath": path}}} for n, path in fields.items()]
    return [*told, *({"name": name, "value": value} for name, value in values.items())]
