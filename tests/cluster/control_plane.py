"""etcd, kube-apiserver and kube-controller-manager on loopback, without any node unless one is to come.

What a rollout operator's tests need is on: RBAC, service-account tokens, garbage collection by owner, Deployments,
admission policies, an audit log with the bodies of our group only, secrets encrypted at rest. Three controllers
that would clear away pods without a real node are off. Ready in about five seconds; several run side by side.
For a real node (`cluster.node`) everything is on, as in production, and a scheduler comes with it.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.api import Api, ApiError, Object
from cluster.pki import Pki
from cluster.process import Process, free_port, wait_until
from cluster.state import State
from cluster.tools import binary

GROUP = "modelparams.dev"
CRDS = Path(__file__).parents[2] / "crds"

_SERVICES = "10.96.0.0/16"
_HOSTS = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1")
_START_SECONDS = 60.0
_CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

_PROGRAMS, _SCHEDULER = ("etcd", "kube-apiserver", "kube-controller-manager"), "kube-scheduler"

# Each would remove pods that no kubelet reports on: within 45 s, 64 s and 10 minutes.
_CONTROLLERS_OFF = ("pod-garbage-collector-controller", "node-lifecycle-controller", "taint-eviction-controller")

_AUDIT_POLICY = Path(__file__).parents[2] / "operator" / "deploy" / "audit-policy.yaml"
# Once a second for each pod that has no node.
_UNRECORDED = {"level": "None", "users": ["stand-in-kubelet"]}


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    etcd: int
    etcd_peer: int
    apiserver: int

    @classmethod
    def free(cls) -> Ports:
        """Three that nobody uses."""
        return cls(free_port(), free_port(), free_port())

    @classmethod
    def usual(cls) -> Ports:
        """Those of a cluster that has its network for itself; none can be one that a kubelet takes later."""
        return cls(2379, 2380, 6443)


@dataclass(frozen=True, slots=True)
class Access:
    """What a test needs to use a control plane, whoever started it."""

    folder: Path
    ports: Ports

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"https://127.0.0.1:{self.ports.apiserver}"

    @property
    def etcd_url(self) -> str:
        """Of etcd's client port (no TLS, loopback)."""
        return f"http://127.0.0.1:{self.ports.etcd}"

    @property
    def pki(self) -> Pki:
        """The authority, for certificates of further users."""
        return Pki(self.folder / "pki")

    @property
    def ca(self) -> Path:
        """The authority's certificate, PEM."""
        return self.pki.path("ca.crt")

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.kubeconfig_for("admin", ["system:masters"])

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Of any user; RBAC says what it may."""
        return self.pki.kubeconfig(self.url, user, groups)

    @property
    def audit_log(self) -> Path:
        """One JSON event a line."""
        return self.folder / "audit.jsonl"

    def audit_events(self) -> list[dict[str, Any]]:
        """All events so far."""
        lines = self.audit_log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def dump(self) -> str:
        """As JSON, for another process of the run."""
        return json.dumps({"folder": str(self.folder), "ports": asdict(self.ports)})

    @classmethod
    def load(cls, text: str) -> Access:
        """What `dump` wrote."""
        data = json.loads(text)
        return cls(Path(data["folder"]), Ports(**data["ports"]))


class ControlPlane:
    """The three processes.

    Args:
        crds: folder or files with CustomResourceDefinitions. They are created before the controller manager
            starts, since its garbage collector looks for new kinds only every 30 s.
        owner: the process after whose end everything is swept; by default this one.
        node_address: for real nodes, in a network of our own: where they and their pods reach the API server.

    Raises (on start):
        ToolMissing: a binary is not there.
        ProcessFailed: one did not start; the message holds the end of its log.
    """

    def __init__(
        self, *, crds: Path | Iterable[Path] = CRDS, owner: int | None = None, node_address: str | None = None
    ) -> None:
        self._crds = sorted(crds.glob("*.yaml")) if isinstance(crds, Path) else list(crds)
        self._owner = owner
        self._node_address = node_address
        self._state: State | None = None
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Bring all up; in order, since each needs the one before it."""
        node = self._node_address
        programs = {name: binary(name) for name in (*_PROGRAMS, *([_SCHEDULER] if node else []))}
        self._state = State("control-plane", self._owner)
        try:
            self.access = Access(self._state.path, Ports.usual() if node else Ports.free())
            self._write_settings()
            self._etcd = self._process(programs["etcd"], _etcd_flags(self.access))
            self._apiserver = self._process(programs["kube-apiserver"], _apiserver_flags(self.access, node))
            self._manager = self._process(programs["kube-controller-manager"], _manager_flags(self.access, node))
            self.start_etcd()
            self.start_apiserver()
            self._create_crds()
            if node:
                self._process(programs[_SCHEDULER], _scheduler_flags(self.access)).start()
            self.start_controller_manager()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all and delete every trace."""
        for process in self._processes:
            process.kill()  # nothing here deserves a graceful end
        if self._state is not None:
            self._state.close()
            self._state = None

    # One process at a time, for tests of what happens without it.

    @property
    def processes(self) -> dict[str, Process]:
        """All, by the names of their programs."""
        return {process.name: process for process in self._processes}

    def start_etcd(self) -> None:
        """Start it, with whatever data it had."""
        self._etcd.start()

    def kill_etcd(self) -> None:
        """End it as a crash would; the API server then answers 500 after a while."""
        self._etcd.kill()

    def start_apiserver(self) -> None:
        """Start it and wait until it is ready."""
        self._apiserver.start()
        api = Api(self.kubeconfig)
        self._apiserver.wait_until(lambda: _is_ready(api), seconds=_START_SECONDS)

    def kill_apiserver(self) -> None:
        """End it as a crash would."""
        self._apiserver.kill()

    def start_controller_manager(self) -> None:
        """Start it and wait until it works: until it has made the default service account."""
        self._manager.start()
        api = Api(self.kubeconfig)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._manager.wait_until(lambda: api.find(account) is not None, seconds=_START_SECONDS)

    def kill_controller_manager(self) -> None:
        """End it as a crash would."""
        self._manager.kill()

    # Access, at hand.

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.access.kubeconfig

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Of any user; RBAC says what it may."""
        return self.access.kubeconfig_for(user, groups)

    @property
    def url(self) -> str:
        """Of the API server."""
        return self.access.url

    @property
    def ca(self) -> Path:
        """The authority's certificate, PEM."""
        return self.access.ca

    @property
    def audit_log(self) -> Path:
        """One JSON event a line."""
        return self.access.audit_log

    def _process(self, program: Path, flags: Sequence[str]) -> Process:
        assert self._state is not None
        environment = {"PATH": os.defpath, "HOME": str(self._state.path), **self._state.environment}
        process = Process(program.name, [program, *flags], environment, self._state.path / f"{program.name}.log")
        self._processes.append(process)
        return process

    def _write_settings(self) -> None:
        pki = Pki.create(self.access.pki.folder, [*_HOSTS, *([self._node_address] if self._node_address else [])])
        # RBAC lets cluster administrators read every node's logs, as kubeadm has it too.
        pki.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", ["system:masters"])
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        encryption = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [
                {
                    "resources": ["secrets"],
                    "providers": [{"aesgcm": {"keys": [{"name": "k1", "secret": key}]}}, {"identity": {}}],
                }
            ],
        }
        # Both files are YAML to the API server; JSON is YAML.
        (self.access.folder / "encryption.yaml").write_text(json.dumps(encryption))
        (self.access.folder / "audit.yaml").write_text(json.dumps(_audit_policy()))

    def _create_crds(self) -> None:
        create_crds(Api(self.kubeconfig), self._crds)


def _audit_policy() -> Object:
    """The one that users install, with a rule of our own before it, as docs/audit.md shows."""
    import yaml

    policy: Object = yaml.safe_load(_AUDIT_POLICY.read_text())
    return {**policy, "rules": [_UNRECORDED, *policy["rules"]]}


def create_crds(api: Api, files: Iterable[Path]) -> None:
    """Apply the CustomResourceDefinitions in files, and wait until they are served."""
    import yaml

    create_kinds(api, [d for file in files for d in yaml.safe_load_all(file.read_text()) if d])


def create_kinds(api: Api, documents: Sequence[Object]) -> None:
    """Apply CustomResourceDefinitions, and wait until each kind can be listed.

    Established alone is not enough: for a moment the storage answers 429.
    """
    for document in documents:
        api.apply(f"{_CRD}/{document['metadata']['name']}", document)
    for document in documents:
        wait_until(
            functools.partial(_is_served, api, document), f"{document['metadata']['name']} to be served", seconds=30
        )


def _is_served(api: Api, document: Object) -> bool:
    spec = document["spec"]
    try:
        for version in spec["versions"]:
            api.get(f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}", limit=1)
    except ApiError as error:
        if error.code in (404, 429):
            return False
        raise
    return True


def _is_ready(api: Api) -> bool:
    try:
        return api.text("/readyz") == "ok" and api.find("/api/v1/namespaces/default") is not None
    except (ConnectionError, ApiError):
        return False


def _etcd_flags(access: Access) -> list[str]:
    client, peer = access.etcd_url, f"http://127.0.0.1:{access.ports.etcd_peer}"
    return [
        "--name=test",
        f"--data-dir={access.folder / 'etcd'}",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--unsafe-no-fsync",  # survives a killed process; a crashed machine is not what we test
    ]


_WITHOUT_NODE = (
    "--bind-address=127.0.0.1",
    # No pod looks for the API server by the Service `kubernetes`, whose endpoints may not be on loopback.
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none",
    # It taints new Nodes until the lifecycle controller, which is off, sees a kubelet.
    "--disable-admission-plugins=TaintNodesByCondition",
)


def _with_node(access: Access, address: str) -> list[str]:
    pki = access.pki
    return [
        "--bind-address=0.0.0.0",
        f"--advertise-address={address}",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={pki.path('apiserver-kubelet.crt')}",
        f"--kubelet-client-key={pki.path('apiserver-kubelet.key')}",
        f"--kubelet-certificate-authority={pki.path('ca.crt')}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def _apiserver_flags(access: Access, node_address: str | None) -> list[str]:
    pki = access.pki
    return [
        f"--etcd-servers={access.etcd_url}",
        f"--secure-port={access.ports.apiserver}",
        *(_with_node(access, node_address) if node_address else _WITHOUT_NODE),
        f"--tls-cert-file={pki.path('apiserver.crt')}",
        f"--tls-private-key-file={pki.path('apiserver.key')}",
        f"--client-ca-file={pki.path('ca.crt')}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.path('sa.pub')}",
        f"--service-account-signing-key-file={pki.path('sa.key')}",
        f"--service-cluster-ip-range={_SERVICES}",
        f"--requestheader-client-ca-file={pki.path('front-proxy-ca.crt')}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki.path('front-proxy-client.crt')}",
        f"--proxy-client-key-file={pki.path('front-proxy-client.key')}",
        f"--encryption-provider-config={access.folder / 'encryption.yaml'}",
        f"--audit-policy-file={access.folder / 'audit.yaml'}",
        f"--audit-log-path={access.audit_log}",
        "--audit-log-maxsize=500",
        "--profiling=false",
    ]


def _scheduler_flags(access: Access) -> list[str]:
    login = access.kubeconfig_for("system:kube-scheduler")
    return [
        f"--kubeconfig={login}",
        f"--authentication-kubeconfig={login}",
        f"--authorization-kubeconfig={login}",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def _manager_flags(access: Access, node_address: str | None) -> list[str]:
    pki, login = access.pki, access.kubeconfig_for("system:kube-controller-manager")
    off = () if node_address else _CONTROLLERS_OFF
    return [
        f"--kubeconfig={login}",
        f"--authentication-kubeconfig={login}",
        f"--authorization-kubeconfig={login}",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki.path('sa.key')}",
        f"--root-ca-file={pki.path('ca.crt')}",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=300",  # the defaults (20 and 30) are for a machine that does other things
        "--kube-api-burst=600",
        "--controllers=" + ",".join(["*", *(f"-{name}" for name in off)]),
    ]
