"""What a node needs of the machine: namespaces, and Debian's packages, installed where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from cluster.node import world

SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Where programs are looked for: a user's PATH may lack the administrator's folders."""

_CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGIN = "ptp"
_PACKAGE_OF = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    _CNI_PLUGIN: "containernetworking-plugins",
}


INSTEAD = "Use another cluster: set KUBECONFIG to one that you have, or make one with kind"


class NodeImpossible(RuntimeError):
    """No real node can run on this machine; the message says why and what to use instead."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no real node here: {why}. {INSTEAD}")


class InstallFailed(RuntimeError):
    """apt-get is there and failed; the message holds what it said."""


def find(program: str) -> Path | None:
    """A program or CNI plugin of this machine."""
    if program == _CNI_PLUGIN:
        folder = cni_folder()
        return folder / program if folder else None
    found = shutil.which(program, path=SEARCH)
    return Path(found) if found else None


def cni_folder() -> Path | None:
    """Where the CNI plugins are: Debian's folder, or the one of their authors."""
    return next((folder for folder in _CNI_FOLDERS if os.access(folder / _CNI_PLUGIN, os.X_OK)), None)


def missing(package_of: Mapping[str, str] = _PACKAGE_OF) -> list[str]:
    """Packages whose programs are not on this machine, whoever installed the others."""
    return sorted({package for program, package in package_of.items() if find(program) is None})


def require(out: TextIO = sys.stderr) -> None:
    """Make sure that a node can run, installing what is missing.

    Args:
        out: where it says what it does; nothing when there is nothing to do.

    Raises:
        NodeImpossible: not Linux, not root, no right to make namespaces, or no apt-get.
        InstallFailed: apt-get failed.
    """
    if sys.platform != "linux":
        raise NodeImpossible("it needs Linux")
    if os.geteuid() != 0:
        raise NodeImpossible("it needs root (namespaces, mounts and control groups)")
    if refusal := world.refusal():
        raise NodeImpossible(f"it needs the right to make namespaces and control groups ({refusal})")
    install(out=out)


def install(package_of: Mapping[str, str] = _PACKAGE_OF, out: TextIO = sys.stderr) -> None:
    """Install the packages of programs that are not there; needs root if any is missing.

    Args:
        package_of: program to Debian package; by default what a node is made of.
        out: where it says what it does.

    Raises:
        NodeImpossible: something is missing, and there is no apt-get.
        InstallFailed: apt-get failed.
    """
    packages = missing(package_of)
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise NodeImpossible(f"it needs {', '.join(packages)}, and there is no apt-get to install them")
    print(f"installing Debian's {', '.join(packages)} with apt-get", file=out, flush=True)
    stale = _apt("update")  # no failure in itself: another source of the machine may be away
    # Never at the price of another package: a machine with Docker's own containerd keeps it.
    if refused := _apt("install", "--yes", "--no-install-recommends", "--no-remove", *packages):
        raise InstallFailed("\n".join(filter(None, [stale, refused, INSTEAD])))
    if left := missing(package_of):
        raise InstallFailed(f"apt-get installed {', '.join(packages)}, and what {', '.join(left)} brings is not there")


def _apt(*arguments: str) -> str:
    """Run apt-get, waiting for another that runs; what it said if it failed."""
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "--quiet", "--option=DPkg::Lock::Timeout=300", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    return f"'{' '.join(command)}' failed: {done.stderr.strip()}" if done.returncode else ""
