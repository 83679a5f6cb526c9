"""A version in an arena file as an agent leaves it, and the orders that go with it. No store, no keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from builders.sealed import Tensors, plaintexts
from modelparams.digest import Digest
from modelparams.index import blob_starts
from modelparams.names import ModelName, Version
from modelparams.protocol import Commit, Prepare, Region, Reserve, Resident, Slot
from modelparams.tensors import read_directory

SAMPLES = Path(__file__).parents[2] / "params" / "samples" / "params" / "tiny-llama"
_WEIGHTS = (".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class Laid:
    """A version's plaintext, ready to be written into an arena."""

    resident: Resident
    parts: tuple[bytes, ...]

    @property
    def digest(self) -> Digest:
        return self.resident.manifest_digest

    @property
    def _starts(self) -> tuple[int, ...]:
        return blob_starts(len(part) for part in self.parts)

    @property
    def size(self) -> int:
        return self._starts[-1]

    @property
    def index(self) -> Region:
        return Region(offset=self._starts[-3], size=len(self.parts[-2]))

    def write(self, path: Path) -> None:
        """Fill the arena as an agent does: in place, growing nothing."""
        with path.open("r+b") as file:
            for start, part in zip(self._starts, self.parts, strict=False):
                file.seek(start)
                file.write(part)

    def reserve(self) -> Reserve:
        return Reserve(manifest_digest=self.digest, size=self.size)

    def prepare(self, slot: Slot) -> Prepare:
        return Prepare(slot=slot, resident=self.resident, index=self.index)

    def commit(self, term: int = 0) -> Commit:
        return Commit(manifest_digest=self.digest, term=term)


def version(
    number: str,
    tensors: Tensors,
    assets: Mapping[str, bytes],
    *,
    model: str = "tiny-llama",
    spoil_digest: bool = False,
) -> Laid:
    """Lay a version out. Its manifest's digest is made up from its content."""
    made = plaintexts(tensors, assets)
    parts = tuple(plain for _, plain in made.parts)
    if spoil_digest:
        index = made.index.model_copy(update={"tensors_digest": "00" * 32}).to_json()
        parts = (*parts[:-2], index, parts[-1])
    digest = Digest.from_hex(hashlib.sha256(number.encode() + b"".join(parts)).hexdigest())
    return Laid(
        Resident(
            version_name=f"{model}-{number}",
            model_name=ModelName(model),
            version=Version(number),
            manifest_digest=digest,
        ),
        parts,
    )


@lru_cache
def _files(directory: Path) -> tuple[dict[str, tuple[object, bytes]], dict[str, bytes]]:
    tensors = {}
    for name, found in read_directory(directory).items():
        tensors[name] = (found.spec, bytes(found.view))
    small = (path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(_WEIGHTS))
    return tensors, {str(path.relative_to(directory)): path.read_bytes() for path in small if path.name[0] != "."}


def of_directory(
    directory: Path,
    number: str,
    *,
    model: str = "tiny-llama",
    change: Callable[[dict[str, tuple[object, bytes]]], None] = lambda _: None,
    assets: Mapping[str, bytes | None] = {},
    spoil_digest: bool = False,
) -> Laid:
    """A version of what `save_pretrained` wrote; `change` its tensors, replace (or by None leave out) `assets`."""
    tensors, files = _files(directory)
    tensors = dict(tensors)
    change(tensors)
    kept = {name: data for name, data in {**files, **assets}.items() if data is not None}
    return version(number, tensors, kept, model=model, spoil_digest=spoil_digest)  # type: ignore[arg-type]


def tiny(number: str = "1.0.0", **changes: object) -> Laid:
    """The sample model, ``1.0.0`` or ``1.1.0``, or any other number with the bytes of 1.0.0."""
    directory = SAMPLES / f"v{number}"
    return of_directory(directory if directory.exists() else SAMPLES / "v1.0.0", number, **changes)  # type: ignore[arg-type]
