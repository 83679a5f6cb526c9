"""What builds images on this machine: docker, podman or buildah, whichever really works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cluster.images import pip_config
from cluster.images.inputs import ROOT
from cluster.images.watching import watched
from cluster.node import InstallFailed, Node, NodeImpossible, debian
from cluster.tools.build import Progress
from cluster.tools.recipes import cache_folder

_CERTIFICATES = Path("/etc/ssl/certs")
_PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}


class NoBuilder(RuntimeError):
    """Nothing here builds images; the message says what was tried and what to install."""


class BuildFailed(RuntimeError):
    """A build ended with an error; the message holds the end of what it said."""


def home() -> Path:
    """Where images and what they are made of are kept: outside of the tree, as other tools are."""
    return cache_folder().parent / "images"


@dataclass(frozen=True, slots=True)
class Builder:
    """One program that builds images.

    Attributes:
        name: of the program.
        options: how each of its commands begins.
    """

    name: str
    options: tuple[str, ...]

    def works(self) -> str:
        """Nothing if it can build here, else a line that says why not. A client without an engine cannot."""
        if shutil.which(self.name) is None:
            return "is not installed"
        question = {"docker": ("version",), "podman": ("info",), "buildah": ("images",)}[self.name]
        try:
            self.run(*question)
        except BuildFailed as error:
            return str(error).splitlines()[-1]
        return ""

    def build(self, target: str, image: str, arguments: Mapping[str, str], out: TextIO = sys.stderr) -> None:
        """Build one target of the tree's Dockerfile.

        Args:
            target: its name.
            image: the name of the result.
            arguments: build arguments, such as BASE.
            out: where it says what it does.

        Raises:
            BuildFailed: it did not build.
        """
        wanted = ["--target", target, "--tag", image, "--file", str(ROOT / "Dockerfile")]
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        progress = Progress(target, out)
        with pip_config.file() as config:
            secret = ["--secret", f"id=pip,src={config}"] if config else []
            command = [*self.options, *self._build(), *wanted, *given, *secret, str(ROOT)]
            code, lines = watched(command, self._environment(), progress)
        if code:
            progress.end("failed")
            raise BuildFailed(f"{self.name} could not build {target}:\n" + "\n".join(lines[-20:]))
        progress.end("built")

    def tidy(self, kept: int, wanted: Container[str] = ()) -> None:
        """Remove what builds that were ended left, and images of ours that are older than some; buildah's only.

        Args:
            kept: images of each target. A lock that changes leaves gigabytes behind.
            wanted: images that stay, however old: what is built again of the same files has the old date.
        """
        if self.name != "buildah":
            return  # the user's own store
        self.run("rm", "--all")
        listed = json.loads(self.run("images", "--json", "--filter=reference=localhost/modelparams/*") or "[]")
        for name in superseded(listed, kept):
            if name not in wanted:
                self.run("rmi", "--force", name)

    def _build(self) -> list[str]:
        if self.name == "docker":
            return ["build"]
        certificates = [f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"] if _CERTIFICATES.is_dir() else []
        return ["build", "--layers", "--network=host", *certificates]

    def has(self, image: str) -> bool:
        """Whether an image is there."""
        try:
            self.inspect(image)
        except BuildFailed:
            return False
        return True

    def inspect(self, image: str) -> dict[str, Any]:
        """An image's configuration, as OCI has it; `rootfs` is there, `history` may be.

        Raises:
            BuildFailed: there is no such image.
        """
        if self.name == "buildah":
            return dict(json.loads(self.run("inspect", "--type=image", image))["OCIv1"])
        [found] = json.loads(self.run("image", "inspect", image))
        rootfs = {"type": "layers", "diff_ids": found["RootFS"]["Layers"]}
        return {
            "architecture": found["Architecture"],
            "os": found["Os"],
            "config": found["Config"],
            "rootfs": rootfs,
        }

    def pull(self, image: str) -> None:
        """Bring an image from its registry.

        Raises:
            BuildFailed: no registry answered, or there is none of that name.
        """
        self.run("pull", image)

    def save(self, image: str, name: str, path: Path) -> None:
        """Write an archive that nodes and kind take.

        Args:
            image: one that is there.
            name: the name that it is to have on the node.
            path: of the archive.
        """
        path.unlink(missing_ok=True)
        if self.name == "buildah":
            self.run("push", "--quiet", image, f"oci-archive:{path}:{name}")
            return
        self.run("tag", image, name)
        how = ["--format=oci-archive"] if self.name == "podman" else []
        self.run("save", *how, "--output", str(path), name)

    def run(self, *arguments: str) -> str:
        """Run one of its commands; what it printed.

        Raises:
            BuildFailed: the exit code was not zero.
        """
        command = [*self.options, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise BuildFailed(f"{self.name} {arguments[0]}: " + "\n".join(said[-20:]))
        return done.stdout

    def _environment(self) -> Mapping[str, str]:
        environment = dict(os.environ) | {"DOCKER_BUILDKIT": "1"}
        if self.name == "buildah":
            temporary = home() / "tmp" / str(os.getpid())  # whole layers pass through it, and /tmp may be memory
            temporary.mkdir(parents=True, exist_ok=True)
            # chroot: works in a container too, where no further namespaces may be made.
            environment |= {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(temporary)}
        return environment


def sweep(folder: Path) -> None:
    """Remove what runs left that were killed, each under the number of its process: some gigabytes a run."""
    for left in folder.glob("*"):
        if not (left.name.isdigit() and Path("/proc", left.name).exists()):
            shutil.rmtree(left, ignore_errors=True)


def superseded(listed: Sequence[Mapping[str, Any]], kept: int) -> list[str]:
    """The names of images beside the newest of each target.

    Args:
        listed: `names` and `created` of each, as `buildah images --json` has them.
        kept: how many of each target.
    """
    by_target: dict[str, list[tuple[int, str]]] = {}
    for entry in listed:
        for name in entry["names"] or ():
            by_target.setdefault(str(name).rpartition(":")[0], []).append((entry["created"], name))
    return [name for dated in by_target.values() for _, name in sorted(dated, reverse=True)[kept:]]


def storage() -> Path:
    """Of our buildah: nothing of it is shared with other users of the machine."""
    return home() / "storage"


def known() -> Sequence[Builder]:
    """In the order in which they are tried."""
    # It leaves mounts behind, one of them over its storage, across which nothing can be linked: they end with it.
    alone = ("unshare", "--mount", "--propagation=private", "--")
    own = (*alone, "buildah", f"--root={storage()}", f"--runroot={home() / 'run'}")
    return (Builder("docker", ("docker",)), Builder("podman", ("podman",)), Builder("buildah", own))


def find(name: str | None = None, out: TextIO = sys.stderr) -> Builder:
    """The first that works; buildah is installed where that is possible.

    Args:
        name: take this one. Inside of a node it is buildah: an engine's socket is not seen there.
        out: where it says what it installs.

    Raises:
        NoBuilder: none works.
    """
    name = name or ("buildah" if Node.inside() else None)
    candidates = [builder for builder in known() if name in (None, builder.name)]
    if not candidates:
        raise NoBuilder(f"no builder {name}: one of {', '.join(b.name for b in known())}")
    refusals = []
    for builder in candidates:
        if builder.name == "buildah":
            _install(out)
        if not (why := builder.works()):
            return builder
        refusals.append(f"{builder.name}: {why}")
    raise NoBuilder(
        "nothing here builds images. Start Docker or Podman, or run as root on Debian, where buildah is installed.\n"
        + "\n".join(refusals)
    )


def _install(out: TextIO) -> None:
    """buildah and mmdebstrap by apt-get, as root where it is; `works` says what is missing elsewhere."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    try:
        debian.install(_PACKAGES, out)
    except NodeImpossible:
        return
    except InstallFailed as error:
        print(error, file=out)
