"""An image into a node on the same machine, without moving it: each layer becomes a snapshot of hard links.

An archive of six gigabytes takes minutes to write and to import. containerd unpacks no layer whose snapshot it has, and
needs no blob that it does not unpack; so the snapshots are made first, and the archive then holds no layer. What pods
see are the same files, which nobody writes to.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.images.layers import Layer
from cluster.node import ImageFailed, Node
from cluster.node.images import Image

_LAYER = "application/vnd.oci.image.layer.v1.tar"


def seed(node: Node, name: str, config: Mapping[str, Any], layers: list[Layer]) -> None:
    """Give a node an image.

    Args:
        node: with containerd's overlay snapshots.
        name: the image's full name there.
        config: of the image, as OCI has it.
        layers: the lowest first.

    Raises:
        ImageFailed: containerd refused, or a layer could not be linked.
    """
    snapshots = Snapshots(node.files.socket)
    parent = ""
    for layer in layers:
        if not snapshots.has(layer.chain):
            snapshots.make(layer, parent)
        parent = layer.chain
    described = tuple({"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in layers)
    without_history = {key: value for key, value in config.items() if key != "history"}
    node.load(Image(without_history, described).archive(name))


class Snapshots:
    """containerd's, by `ctr`."""

    def __init__(self, socket: Path) -> None:
        self._command = ["ctr", f"--address={socket}", "--namespace=k8s.io", "snapshots", "--snapshotter=overlayfs"]

    def has(self, name: str) -> bool:
        """Whether a layer is unpacked."""
        return any(line.split()[0] == name for line in self._ctr("list").splitlines()[1:])

    def make(self, layer: Layer, parent: str) -> None:
        """Make a layer's snapshot on its parent's (none: "")."""
        active = f"seed-{uuid.uuid4().hex}"
        mounts = json.loads(self._ctr("prepare", "--mounts", active, *([parent] if parent else [])))
        try:
            link(layer.folder, _folder(mounts))
            self._ctr("commit", layer.chain, active)
        except BaseException:
            self._ctr("remove", active)
            raise

    def _ctr(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImageFailed(f"ctr snapshots {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


def _folder(mounts: list[dict[str, Any]]) -> Path:
    """Where a snapshot's own files are, from what would be mounted."""
    [mount] = mounts
    upper = [option.removeprefix("upperdir=") for option in mount["Options"] if option.startswith("upperdir=")]
    return Path(upper[0] if upper else mount["Source"])


def link(source: Path, target: Path) -> None:
    """Fill a folder with hard links to another's files, or with copies where they are on different disks.

    Raises:
        ImageFailed: it could not be filled.
    """
    how = "--link" if source.stat().st_dev == target.stat().st_dev else "--reflink=auto"
    # Owners, modes, whiteouts and overlay's own attributes too.
    command = ["cp", "--archive", how, "--", f"{source}/.", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageFailed(f"{source} could not be linked to {target}: {done.stderr.strip()[-1000:]}")
