"""The two images of this tree: built once for what they are made of, and brought into a node in seconds.

    images = ensure()
    load_into(node, images)               # a node of cluster.node: seconds
    images.archives                       # files for any other cluster
    images.operator, images.serving       # their names, for a chart or a pod

inputs.py       what an image is made of
builder.py      docker, podman, buildah: which works
base.py         what the images begin with
pip_config.py   where this machine's packages come from
layers.py, seeding.py   into a node without an archive
locking.py, watching.py   one run at a time, and what it is at

`python -m cluster.images` builds them and says how large they are.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cluster.images import base as bases
from cluster.images import layers, seeding
from cluster.images.builder import Builder, BuildFailed, NoBuilder, find, home, storage, sweep
from cluster.images.inputs import ROOT, TARGETS, inputs_sum, reference, short
from cluster.images.locking import alone
from cluster.node import Node

__all__ = ["BuildFailed", "Built", "Images", "NoBuilder", "ensure", "load_into", "reference"]

BASE, TORCH, BUILDER = "BASE", "TORCH", "MODELPARAMS_BUILDER"
"""Environment variables: the image to begin with; the lock of another build of torch; docker, podman or buildah."""
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Built:
    """An image that is there.

    Attributes:
        target: of the Dockerfile.
        image: its name for the builder that has it.
        builder: that has it.
        seconds: that the build took; 0 when it was there.
    """

    target: str
    image: str
    builder: Builder
    seconds: float = 0.0

    @property
    def config(self) -> dict[str, Any]:
        """As OCI has it."""
        return self.builder.inspect(self.image)

    def archive(self) -> Path:
        """A file for `kind load image-archive` and its like, with the name that the chart asks for."""
        folder = home() / "archives"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.image.rpartition('/')[2].replace(':', '-')}.tar"
        with alone(path.with_suffix(".lock")):
            if not path.exists():
                draft = path.with_suffix(".draft")
                self.builder.save(self.image, reference(self.target), draft)
                draft.rename(path)
                for former in folder.glob(f"{self.target}-*.tar"):
                    if former != path:
                        former.unlink(missing_ok=True)  # of a tree before; gigabytes
        return path


@dataclass(frozen=True, slots=True)
class Images:
    """All targets, in the order of `TARGETS`."""

    built: tuple[Built, ...]

    @property
    def operator(self) -> str:
        """The name of the operator's, `repository:tag`, wherever it was loaded."""
        return short(reference("operator"))

    @property
    def serving(self) -> str:
        """The same of the serving pods'."""
        return short(reference("serving"))

    @property
    def archives(self) -> tuple[Path, ...]:
        """For clusters that are elsewhere, written when asked for; minutes for the serving image, once."""
        return tuple(built.archive() for built in self.built)


def ensure(*, builder: str | None = None, base: str | None = None, out: TextIO = sys.stderr) -> Images:
    """Build what is not there for the tree as it is now.

    Args:
        builder: docker, podman or buildah; by default $MODELPARAMS_BUILDER, or the first that works.
        base: the image to begin with; by default $BASE, the Dockerfile's, or one of Debian's packages.
        out: where it says what it does.

    Raises:
        NoBuilder: nothing here builds images.
        BuildFailed: one did not build.
    """
    chosen = find(builder or os.environ.get(BUILDER), out)
    with alone(home() / "lock", out):
        sweep(home() / "tmp")
        arguments = {"BASE": bases.find(chosen, base or os.environ.get(BASE), out)}
        if torch := os.environ.get(TORCH):
            arguments["TORCH"] = torch
        return Images(tuple(_built(chosen, _names(chosen, arguments), arguments, out)))


def _names(builder: Builder, arguments: Mapping[str, str]) -> dict[str, str]:
    """Of each target's image."""
    inputs = (builder.name, arguments["BASE"], _torch(arguments))
    return {target: f"localhost/modelparams/{target}:{inputs_sum(target, *inputs)}" for target in TARGETS}


def _built(builder: Builder, names: Mapping[str, str], arguments: Mapping[str, str], out: TextIO) -> Iterator[Built]:
    missing = [image for image in names.values() if not builder.has(image)]
    if missing:
        builder.tidy(_KEPT, wanted=names.values())
    for target, image in names.items():
        begin = time.monotonic()
        if image in missing:
            builder.build(target, image, arguments, out)
        yield Built(target, image, builder, time.monotonic() - begin if image in missing else 0.0)


def _torch(arguments: Mapping[str, str]) -> str:
    name = arguments.get("TORCH", "serving/torch.lock")
    path = ROOT / name
    if path.parent != ROOT / "serving" or path.suffix != ".lock" or not path.is_file():
        raise BuildFailed(f"TORCH is {name}: name a lock in the tree, such as serving/torch-cpu.lock")
    return path.read_text()


def load_into(node: Node, images: Images | None = None) -> Images:
    """Bring both into a node, with the names that the chart asks for. Again after a change of code, it takes seconds.

    Raises:
        NoBuilder, BuildFailed: as `ensure`.
        ImageFailed: the node did not take one.
    """
    images = images or ensure()
    with alone(home() / "lock"):  # or another run tidies a layer away
        for built in images.built:
            _load(node, built)
    return images


def _load(node: Node, built: Built) -> None:
    if built.builder.name != "buildah":
        node.load(built.archive())
        return
    config = built.config
    found = layers.of_image(storage(), config["rootfs"]["diff_ids"])
    seeding.seed(node, reference(built.target), config, found)
