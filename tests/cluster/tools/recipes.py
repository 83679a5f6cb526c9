"""What each program is built from, and where the result is kept.

A result's folder is named by the sum of everything that decides its bytes, so a stale one is never used and
two checkouts share what is equal. The builds are byte-reproducible.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.tools import golang

HERE = Path(__file__).parent
KUBERNETES, HELM = "1.36.3", "3.22.0"

_MINOR = KUBERNETES.split(".")[1]
_STAMP = {
    "gitVersion": f"v{KUBERNETES}",
    "gitMajor": "1",
    "gitMinor": _MINOR,
    "gitTreeState": "clean",
    "gitCommit": "module",
    "buildDate": "1970-01-01T00:00:00Z",
}
_VERSIONED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_KUBERNETES_FLAGS = " ".join(f"-X {package}.{name}={value}" for package in _VERSIONED for name, value in _STAMP.items())
# Without these three `helm template` takes the cluster for Kubernetes 1.20.
_HELM_FLAGS = (
    f"-X helm.sh/helm/v3/internal/version.version=v{HELM}"
    f" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One program.

    Attributes:
        name: of the binary.
        module: the folder beside this file with go.mod, and go.sum or sources.
        package: its main package.
        stamps: linker flags beyond `-s -w`.
        minutes: of a cold build on two cores, in this order (later Kubernetes programs share packages).
    """

    name: str
    module: str
    package: str
    stamps: str = ""
    minutes: float = 1.0

    @property
    def ldflags(self) -> str:
        """What the linker is told; stripped, or the binaries are half as big again."""
        return f"-s -w {self.stamps}".strip()


def _kubernetes(name: str, minutes: float) -> Recipe:
    return Recipe(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS, minutes)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("versitygw", "versitygw", "github.com/versity/versitygw/cmd/versitygw", minutes=0.7),
        Recipe("etcd", "etcd", "go.etcd.io/etcd/server/v3", minutes=1.7),
        _kubernetes("kube-apiserver", 4.7),
        _kubernetes("kube-controller-manager", 1.0),
        _kubernetes("kube-scheduler", 0.1),
        _kubernetes("kubelet", 0.3),
        _kubernetes("kube-proxy", 0.1),
        Recipe("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", minutes=1.1),
        Recipe("helm", "helm", "helm.sh/helm/v3/cmd/helm", _HELM_FLAGS, minutes=1.2),
        Recipe("pod", "pod", ".", minutes=0.3),
        Recipe("verdict", "verdict", ".", minutes=1.7),
    )
}
DEFAULT = ("versitygw", "etcd", "kube-apiserver", "kube-controller-manager", "helm", "verdict")
"""What the test suite needs; the rest is built when asked for by name."""
_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
NODE = (*_PLANE, "kube-scheduler", "kubelet", "kube-proxy", "pod")
"""What a real node needs: `pod` is our own program, the sandbox and the containers of tests."""

# Ours, not the user's, so that equal sources give equal bytes.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
ARGUMENTS = ("-mod=readonly", "-trimpath")


def cache_folder() -> Path:
    """Outside the tree: survives a clean checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelparams" / "tools"


def cached(recipe: Recipe) -> Path:
    """Where the built program is or will be."""
    return cache_folder() / f"{recipe.name}-{inputs_sum(recipe)}" / recipe.name


def inputs_sum(recipe: Recipe) -> str:
    """Sixteen digits for all that decides the bytes: module sums, flags, Go's version and target."""
    folder = HERE / recipe.module
    paths = (folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*.go")))
    files = [path.read_text() for path in paths if path.exists()]
    flags = [recipe.package, recipe.ldflags, *ARGUMENTS, *(f"{k}={v}" for k, v in ENVIRONMENT.items())]
    return hashlib.sha256("\0".join([*files, *flags, golang.version(), _target()]).encode()).hexdigest()[:16]


def _target() -> str:
    machine = os.uname()
    return f"{machine.sysname}/{machine.machine}"
