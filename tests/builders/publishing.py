"""A publisher with a store, keys and a signer, and directories as `save_pretrained` would write them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders.sealed import bf16
from modelparams.hashes import write_hashes
from modelparams.keys import LocalKeyProvider
from modelparams.manifest import Expectation, Manifest
from modelparams.names import ModelName, Version
from modelparams.pointers import read_pointer
from modelparams.publish import Published, publish
from modelparams.pull import PulledParams, ReusableArena, SealedRelease, open_release, pull
from modelparams.store import ObjectStore, open_store
from modelparams.tensors import TensorSpec
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.verify import fetch_manifest

MODEL = ModelName("tiny")
KEY_REF = "tiny-kek"
Tensors = Mapping[str, tuple[TensorSpec, bytes]]

NAN, INF = 0x7FC0, 0xFF80
"""Bit patterns of bf16."""


def layered(layers: int = 3, *, size: int = 64, **changed: int) -> dict[str, tuple[TensorSpec, bytes]]:
    """A model of some layers of `size` x `size` in bf16; `changed` gives a layer, `layer1=`, another bit pattern."""
    tensors = {"model.embed_tokens.weight": bf16(16, size, fill=0x3E00), "model.norm.weight": bf16(size)}
    for layer in range(layers):
        fill = changed.get(f"layer{layer}", 0x3F00 + layer)
        tensors[f"model.layers.{layer}.mlp.weight"] = bf16(size, size, fill=fill)
        tensors[f"model.layers.{layer}.norm.weight"] = bf16(size)
    return tensors


def safetensors(tensors: Tensors) -> bytes:
    """One safetensors file."""
    header: dict[str, Any] = {}
    end = 0
    for name, (spec, data) in tensors.items():
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, data in tensors.values())


def write_directory(directory: Path, tensors: Tensors | None = None, **assets: str) -> Path:
    """A directory that is fit to be published; `assets` are file names without `.json` and their content."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors").write_bytes(safetensors(layered() if tensors is None else tensors))
    (directory / "config.json").write_text('{"model_type": "tiny"}')
    for name, text in ({"tokenizer": "{}"} | assets).items():
        (directory / f"{name}.json").write_text(text)
    write_hashes(directory)
    return directory


@dataclass
class Publisher:
    """Everything below `home`, unless another `store` is given."""

    home: Path
    store: ObjectStore = field(default=None)  # type: ignore[assignment]
    signer: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.store = self.store or open_store(self.home / "store")
        self.keys_directory.mkdir(parents=True, exist_ok=True)
        if not (self.keys_directory / KEY_REF).exists():
            (self.keys_directory / KEY_REF).write_bytes(os.urandom(32))

    @property
    def keys_directory(self) -> Path:
        return self.home / "keys"

    @property
    def keys(self) -> LocalKeyProvider:
        return LocalKeyProvider(self.keys_directory)

    @property
    def trust(self) -> TrustPolicy:
        return TrustPolicy.of(self.signer)

    @property
    def journal(self) -> Path:
        return self.home / "cache" / "publish"

    def directory(self, version: str, tensors: Tensors | None = None, **assets: str) -> Path:
        return write_directory(self.home / "params" / str(MODEL) / f"v{version}", tensors, **assets)

    def publish(self, version: str, tensors: Tensors | None = None, **options: Any) -> Published:
        """Write a directory, unless `directory` is given, and publish it."""
        options = {
            "store": self.store,
            "model": MODEL,
            "version": Version(version),
            "keys": self.keys,
            "key_ref": KEY_REF,
            "signers": [self.signer],
            "cache": self.home / "cache",
            "workers": 2,
        } | options
        directory = options.pop("directory", None) or self.directory(version, tensors)
        return publish(directory, **options)

    def expect(self, version: str | None = None) -> Expectation:
        return Expectation(MODEL, version=Version(version) if version else None, now=datetime.now(UTC))

    def manifest(self, version: str) -> Manifest:
        """What the store has under `version`, verified."""
        digest = read_pointer(self.store, Version(version)).digest
        return fetch_manifest(self.store, digest, trust=self.trust, expect=self.expect(version)).manifest

    def open(self, published: Published, **options: Any) -> SealedRelease:
        options = {"trust": self.trust, "expect": self.expect(), "keys": self.keys, "key_ref": KEY_REF} | options
        return open_release(options.pop("store", self.store), published.manifest_digest, **options)

    def pull(
        self, published: Published, reuse: ReusableArena | None = None, **options: Any
    ) -> tuple[PulledParams, memoryview]:
        """Pull into a fresh arena that is full of another version's bytes."""
        release = self.open(published)
        arena = memoryview(bytearray(b"\xaa" * (release.layout.total + 100)))
        return pull(release, arena, reuse=reuse, **options), arena
