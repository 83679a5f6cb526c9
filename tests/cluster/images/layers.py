"""The layers of an image in buildah's storage: plain folders, as overlay mounts want them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        digest: of its uncompressed tar, as `rootfs.diff_ids` has it.
        chain: the name of it on all that are below it (OCI's ChainID); containerd's name for its snapshot.
        size: of the tar, bytes.
        folder: what is in it.
    """

    digest: str
    chain: str
    size: int
    folder: Path


class NotInStorage(LookupError):
    """The storage does not hold a layer that its image names."""


def of_image(storage: Path, digests: Sequence[str]) -> list[Layer]:
    """The layers of an image, the lowest first.

    Args:
        storage: the root of a store of containers/storage with the overlay driver.
        digests: the image's `rootfs.diff_ids`.

    Raises:
        NotInStorage: one is not there.
    """
    known: list[dict[str, Any]] = json.loads((storage / "overlay-layers" / "layers.json").read_text())
    found: list[Layer] = []
    parent = None
    for digest, chain in zip(digests, chains(digests), strict=True):
        entry = _child(known, parent, digest)
        parent = str(entry["id"])
        found.append(Layer(digest, chain, int(entry["diff-size"]), storage / "overlay" / parent / "diff"))
    return found


def _child(known: Sequence[dict[str, Any]], parent: str | None, digest: str) -> dict[str, Any]:
    for entry in known:
        if entry.get("diff-digest") == digest and entry.get("parent") == parent:
            return entry
    raise NotInStorage(f"no layer {digest} on {parent or 'nothing'}")


def chains(digests: Sequence[str]) -> list[str]:
    """The ChainID of each layer.

    >>> chains(["sha256:a"])
    ['sha256:a']
    >>> chains(["sha256:a", "sha256:b"])[1] == "sha256:" + hashlib.sha256(b"sha256:a sha256:b").hexdigest()
    True
    """
    result = [digests[0]]
    for digest in digests[1:]:
        result.append("sha256:" + hashlib.sha256(f"{result[-1]} {digest}".encode()).hexdigest())
    return result
