"""Images without a registry: archives made here, and containerd's import.

A tree is what a layer holds: path in the image → bytes, a file, or a folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

Tree = Mapping[str, bytes | Path]

_OCI = "application/vnd.oci.image"
_INDEXES = (f"{_OCI}.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


class ImageFailed(RuntimeError):
    """containerd refused; the message is what `ctr` said."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an archive needs of an image.

    Attributes:
        config: as OCI has it; `rootfs.diff_ids` matches the layers.
        layers: descriptors.
        blobs: those layers whose bytes are to be in the archive.
    """

    config: dict[str, Any]
    layers: tuple[dict[str, Any], ...] = ()
    blobs: tuple[bytes, ...] = ()

    @classmethod
    def scratch(cls, entrypoint: Sequence[str]) -> Image:
        """Nothing but a command."""
        config = {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]}
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        rootfs = {"type": "layers", "diff_ids": []}
        return cls({"architecture": architecture, "os": "linux", "config": config, "rootfs": rootfs})

    def with_layer(self, tree: Tree) -> Image:
        """The same with one more layer on top; the archive then holds that layer."""
        blob = layer(tree)
        rootfs = self.config["rootfs"]
        config = {key: value for key, value in self.config.items() if key != "history"}
        config["rootfs"] = rootfs | {"diff_ids": [*rootfs["diff_ids"], _digest(blob)]}
        return Image(config, (*self.layers, _descriptor("layer.v1.tar", blob)), (*self.blobs, blob))

    def archive(self, name: str) -> bytes:
        """An OCI archive that `ctr images import` gives that name."""
        config = json.dumps(self.config).encode()
        manifest = _document("manifest", config=_descriptor("config.v1+json", config), layers=self.layers)
        named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        index = _document("index", manifests=[_descriptor("manifest.v1+json", manifest) | {"annotations": named}])
        files = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (config, manifest, *self.blobs)}
        return _tar({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **files})


def layer(tree: Tree) -> bytes:
    """An uncompressed layer; the same tree gives the same bytes."""
    return _tar(dict(_files(tree)))


def _files(tree: Tree) -> Iterator[tuple[str, bytes | Path]]:
    for name, content in tree.items():
        if isinstance(content, Path) and content.is_dir():
            for file in sorted(content.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    yield f"{name.strip('/')}/{file.relative_to(content)}", file
        else:
            yield name.strip("/"), content


def _tar(files: Tree) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            entry = tarfile.TarInfo(name)  # root's, from 1970
            entry.size = len(data)
            entry.mode = 0o755 if isinstance(content, Path) and os.access(content, os.X_OK) else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _document(kind: str, **fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": f"{_OCI}.{kind}.v1+json", **fields}).encode()


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": f"{_OCI}.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Containerd:
    """The images that kubelet sees."""

    socket: Path

    def load(self, archive: Path | bytes | IO[bytes]) -> None:
        """Import an archive as `docker save` or `buildah push` makes it: a file, its bytes, or a stream of them.

        Raises:
            ImageFailed: it is none, or does not hold all that it names.
        """
        command = ("images", "import", "-")
        if isinstance(archive, bytes):
            self._ctr(*command, input=archive)
        elif isinstance(archive, Path):
            with archive.open("rb") as stream:
                self._ctr(*command, stdin=stream)
        else:
            self._ctr(*command, stdin=archive)

    def image(self, name: str) -> Image:
        """One that is there, by its full name (`docker.io/…` included).

        Raises:
            ImageFailed: it is not there.
        """
        lines = [line.split() for line in self._ctr("images", "ls").decode().splitlines()]
        digest = next((fields[2] for fields in lines if fields[0] == name), None)
        if digest is None:
            raise ImageFailed(f"no image {name} on the node; there are {', '.join(f[0] for f in lines[1:]) or 'none'}")
        manifest = self._json(digest)
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            manifest = self._json(manifest["manifests"][0]["digest"])
        return Image(self._json(manifest["config"]["digest"]), tuple(manifest["layers"]))

    def answers(self) -> bool:
        """True once it serves."""
        try:
            self._ctr("version")
        except ImageFailed:
            return False
        return True

    def _json(self, digest: str) -> dict[str, Any]:
        return dict(json.loads(self._ctr("content", "get", digest)))

    def _ctr(self, *arguments: str, **streams: Any) -> bytes:
        command = ["ctr", f"--address={self.socket}", "--namespace=k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, check=False, **streams)
        if done.returncode:
            raise ImageFailed(f"ctr {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
        return bytes(done.stdout)
