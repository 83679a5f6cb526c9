"""A real S3 server with keys beside it, and versions to publish into it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cluster.s3 import Versitygw
from modelparams.api.release import S3Source
from modelparams.hashes import write_hashes
from modelparams.keys import LocalKeyProvider
from modelparams.manifest import Expectation
from modelparams.names import ModelName, Version
from modelparams.publish import Published, publish
from modelparams.secret import Secret32
from modelparams.store import Credentials, ObjectStore, open_store
from modelparams.trust import SigningKey, TrustPolicy

MODEL, KEY_REF, BUCKET = ModelName("bench"), "bench", "bench-weights"


@dataclass
class World:
    """One model's store, its keys and its signer."""

    server: Versitygw
    folder: Path
    signer: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.server.bucket(BUCKET)
        self.keys_folder.mkdir(parents=True)
        (self.keys_folder / KEY_REF).write_bytes(Secret32.random().expose())
        self.trust_file.write_bytes(self.trust.to_json())

    @property
    def keys_folder(self) -> Path:
        """With the key-encryption key."""
        return self.folder / "keys"

    @property
    def trust_file(self) -> Path:
        """The trust policy."""
        return self.folder / "trust.json"

    @property
    def keys(self) -> LocalKeyProvider:
        """What opens the model's keys."""
        return LocalKeyProvider(self.keys_folder)

    @property
    def trust(self) -> TrustPolicy:
        """One key, one signature."""
        return TrustPolicy.of(self.signer)

    @property
    def source(self) -> S3Source:
        """Where the model is."""
        return S3Source(endpoint=self.server.endpoint, bucket=BUCKET, prefix=str(MODEL))

    @property
    def store(self) -> ObjectStore:
        """A new client of it."""
        return open_store(self.source, Credentials(self.server.login.access_key, self.server.login.secret_key))

    def expect(self, version: str) -> Expectation:
        """That version of our model, now."""
        return Expectation(MODEL, version=Version(version), now=datetime.now(UTC))

    def publish(self, directory: Path, version: str) -> Published:
        """Hash and publish a directory."""
        write_hashes(directory)
        return publish(
            directory,
            self.store,
            model=MODEL,
            version=Version(version),
            keys=self.keys,
            key_ref=KEY_REF,
            signers=[self.signer],
            cache=self.folder / "journal",
        )


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """A fresh one; gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Versitygw() as server:
        yield World(server, folder)
    shutil.rmtree(folder, ignore_errors=True)


def write_model(directory: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Save bfloat16 tensors (given as uint16 bit patterns) as `save_pretrained` would, with a config beside them."""
    directory.mkdir(parents=True)
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            file.write(memoryview(tensor).cast("B"))
    (directory / "config.json").write_text(json.dumps({"model_type": "bench"}))
    return directory


def bf16(*shape: int, seed: int) -> np.ndarray:
    """Finite random bit patterns of bfloat16: any sign and mantissa, exponents well inside."""
    dice = np.random.default_rng(seed)
    return (dice.integers(0, 1 << 15, shape, np.uint16) & 0x3F7F) | dice.integers(0, 2, shape, np.uint16) << 15


def altered(file: Path, folder: Path) -> Path:
    """A copy in which the lowest bit of every parameter's mantissa is flipped."""
    folder.mkdir(exist_ok=True)
    data = np.fromfile(file, np.uint8)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    data[start::2] ^= 1
    data.tofile(folder / "model.safetensors")
    return folder / "model.safetensors"
