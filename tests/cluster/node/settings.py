"""What containerd, CNI, kubelet and kube-proxy are told. JSON where they want YAML: it is YAML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.control_plane import Access

NODE = "node"
ADDRESS = "172.30.0.1"
"""Of the node. The same in every world: each has a network of its own."""
PAUSE = "localhost/modelparams/pod:1"
"""The sandbox's image, and that of test pods: see `tools/pod`."""

_PODS = "10.244.0.0/24"
_CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd-state"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one node, in the folder of its world; seen from outside of the world too."""

    folder: Path

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.folder / "control.sock"

    @property
    def init(self) -> Path:
        """The number of the world's first process outside of it."""
        return self.folder / "init"

    @property
    def ready(self) -> Path:
        """Written when all is up: what `Access.dump` gives."""
        return self.folder / "ready.json"

    @property
    def temporary(self) -> Path:
        """For what runs inside: its runs are not those of the machine, whose processes it cannot see."""
        return self.folder / "tmp"

    @property
    def kubelet(self) -> Path:
        """Its folder: pods' volumes are mounted in it."""
        return self.folder / "kubelet"

    @property
    def log(self) -> Path:
        """Of the world's setup and its supervisor."""
        return self.folder / "world.log"


def write_runtime(files: Files, cni: Path) -> None:
    """Of containerd, which needs no control plane.

    Args:
        cni: the folder of the CNI plugins.
    """
    (files.folder / "cni").mkdir()
    (files.folder / "cni" / "10-ptp.conflist").write_text(json.dumps(_cni()))
    containerd = _CONTAINERD.format(folder=files.folder, socket=files.socket, pause=PAUSE, cni=cni)
    (files.folder / "containerd.toml").write_text(containerd)


def write_node(files: Files, access: Access) -> None:
    """Of kubelet and kube-proxy."""
    (files.folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")  # where nobody answers: there is no DNS
    (files.folder / "kubelet.yaml").write_text(json.dumps(_kubelet(files, access)))
    (files.folder / "kube-proxy.yaml").write_text(json.dumps(_proxy(access)))


def _cni() -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": "/run/ipam",
        "ranges": [[{"subnet": _PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    ptp = {"type": "ptp", "mtu": 1500, "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [ptp]}


def _kubelet(files: Files, access: Access) -> dict[str, Any]:
    pki = access.pki
    pki.issue("kubelet-serving", f"system:node:{NODE}", ["system:nodes"], hosts=[NODE, ADDRESS])
    login = {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": str(pki.path("ca.crt"))},
    }
    never = dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree"), "0%")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{files.socket}",
        "failSwapOn": False,
        "oomScoreAdj": 0,  # a lower one needs a capability that a container's root may lack
        "address": "0.0.0.0",
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": str(pki.path("kubelet-serving.crt")),
        "tlsPrivateKeyFile": str(pki.path("kubelet-serving.key")),
        "authentication": login,
        "authorization": {"mode": "Webhook"},
        "rotateCertificates": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [ADDRESS],
        "resolvConf": str(files.folder / "resolv.conf"),
        "podLogsDir": str(files.folder / "pod-logs"),
        "volumePluginDir": str(files.folder / "volume-plugins"),
        "makeIPTablesUtilChains": False,
        # The machine's disk is not this node's to judge.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", **never},
        "maxPods": 60,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "serializeImagePulls": True,
        "containerLogMaxSize": "5Mi",
    }


def _proxy(access: Access) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(access.kubeconfig_for("system:kube-proxy"))},
        "hostnameOverride": NODE,
        "mode": "nftables",
        "clusterCIDR": _PODS,
        "nftables": {"masqueradeAll": True},
        # The machine's own connection table stays as it is.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
    }
