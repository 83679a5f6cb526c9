"""A directory as `transformers` saves it, laid out as the blobs that will be sealed; files are mapped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

from modelparams.digest import Digest
from modelparams.errors import IndexInvalid, NotFinite, UsageError
from modelparams.grouping import BlobPlan, places, plan_blobs
from modelparams.index import ASSET_NAME, AssetEntry, TensorEntry, TensorIndex, check, schema_digest, tensors_digest
from modelparams.parameter_files import ParameterFile, is_parameter_file
from modelparams.regular import require_regular
from modelparams.tensors import SHARD_INDEX, TensorSpec, is_finite, read_directory

ASSETS_LIMIT = 256 << 20
"""Bytes of all small files together."""
_ZEROS = memoryview(bytes(4096))
# Pickles run code when they are loaded, and code never travels with parameters; neither is ever opened by an engine.
_REFUSED = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".so"})


@dataclass(frozen=True)
class PlainVersion:
    """What is to be sealed."""

    specs: Mapping[str, TensorSpec]
    """Of all tensors, in name order."""
    views: Mapping[str, memoryview]
    """The bytes of each; of tied ones, the same view under each name."""
    first_names: Mapping[str, str]
    """Tensor name → the name under which its place is laid out; differs for tied tensors alone."""
    plans: tuple[BlobPlan, ...]
    assets: Mapping[str, bytes]

    @property
    def asset_bytes(self) -> bytes:
        """The asset blob's plaintext."""
        return b"".join(self.assets.values())

    @property
    def size(self) -> int:
        """Bytes of plaintext of all blobs with tensors."""
        return sum(plan.size for plan in self.plans)

    @cached_property
    def schema_digest(self) -> Digest:
        """See `index.schema_digest`."""
        return schema_digest(self.specs)

    def pieces(self, plan: BlobPlan) -> Iterator[memoryview]:
        """The blob's plaintext in order, without copying: parts of tensors, and the zeros between them."""
        end = 0
        for part in plan.parts:
            if part.blob_offset > end:
                yield _ZEROS[: part.blob_offset - end]
            yield self.views[part.name][part.tensor_offset : part.tensor_offset + part.size]
            end = part.blob_offset + part.size

    def check_finite(self, plan: BlobPlan) -> None:
        """Refuse NaN and infinity where they are still easily mended.

        Raises:
            NotFinite: naming the tensor; the publisher may know it.
        """
        for part in plan.parts:
            view = self.views[part.name][part.tensor_offset : part.tensor_offset + part.size]
            if not is_finite(view, self.specs[part.name].dtype):
                raise NotFinite(f"{part.name} holds NaN or infinite values", hint="publish a version that has none")

    def index(self, salt: bytes) -> TensorIndex:
        """The index to seal; reads every tensor once, in one thread.

        Raises:
            UsageError: a name of a tensor or file cannot be listed.
        """
        where = places(self.plans)
        tensors = tuple(self._entry(name, *where[self.first_names[name]]) for name in self.specs)
        digest = tensors_digest(salt, ((name, spec, self.views[name]) for name, spec in self.specs.items()))
        try:
            index = TensorIndex(
                salt=salt.hex(),
                tensors_digest=digest,
                blob_sizes=tuple(plan.size for plan in self.plans),
                tensors=tensors,
                assets=tuple(_asset_entries(self.assets)),
            )
            check(index)
        except (ValueError, IndexInvalid) as error:
            raise UsageError(f"these tensors cannot be indexed: {error}", hint="rename what is odd") from error
        return index

    def _entry(self, name: str, blob: int, offset: int) -> TensorEntry:
        spec = self.specs[name]
        return TensorEntry(name=name, dtype=spec.dtype, shape=spec.shape, blob=blob, offset=offset, size=spec.size)


def read_plain(directory: Path, files: Mapping[str, ParameterFile] | None = None) -> PlainVersion:
    """Lay out a directory's tensors and read its small files.

    Args:
        directory: as `save_pretrained` wrote it.
        files: its parameter files, as `map_files` gives them and by default is asked for.

    Raises:
        UsageError: it cannot be published as it is.
    """
    tensors = read_directory(directory, files)
    views = {name: tensor.view for name, tensor in tensors.items()}
    specs = {name: tensor.spec for name, tensor in tensors.items()}
    first_names = _tied(specs, views)
    sizes = {name: spec.size for name, spec in specs.items() if first_names[name] == name}
    return PlainVersion(specs, views, first_names, plan_blobs(sizes), _read_assets(directory))


def _tied(specs: Mapping[str, TensorSpec], views: Mapping[str, memoryview]) -> dict[str, str]:
    """Name → first name with the same matrix.

    Only matrices outside of layers are compared, such as embeddings and heads: those are what models tie. Two layers
    may hold equal vectors by chance (all ones), and sharing these would make one layer's blob depend on another's.
    """
    first_names: dict[str, str] = {}
    seen: dict[TensorSpec, list[str]] = {}
    for name, spec in specs.items():
        candidates = seen.setdefault(spec, []) if _may_be_tied(name, spec) else []
        first_names[name] = next((other for other in candidates if views[other] == views[name]), name)
        candidates.append(name)
    return first_names


def _may_be_tied(name: str, spec: TensorSpec) -> bool:
    return len(spec.shape) >= 2 and not any(part.isdecimal() for part in name.split("."))


def _read_assets(directory: Path) -> dict[str, bytes]:
    """Every other file of the directory by its relative name, in order; hidden ones are left out."""
    assets: dict[str, bytes] = {}
    size = 0
    for name in sorted(_asset_names(directory)):
        path = directory / name
        _refuse_link(path)
        try:
            require_regular(path)
            size += path.stat().st_size
            if size > ASSETS_LIMIT:
                raise UsageError(f"small files of {directory} are more than {ASSETS_LIMIT >> 20} MiB", hint=_ONLY)
            assets[name] = path.read_bytes()
        except OSError as error:
            _refuse_unreadable(error)
    return assets


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UsageError(f"{path} is a link", hint="put there what it leads to")


def _refuse_unreadable(error: OSError) -> NoReturn:
    """Nothing is left out of a version without a word."""
    raise UsageError(
        f"{error.filename} cannot be read ({error.strerror})", hint="restore its rights, or take it away"
    ) from error


_NAMES = "use letters, digits, dots, dashes and underscores, at most 128 characters, in at most 8 levels"
_MERGE = "merge them into the model, directly in the directory and named *.safetensors"
_ONLY = "keep only parameters, configuration and tokenizer there"


def _asset_names(directory: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(directory, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for below in folders:
            _refuse_link(Path(folder, below))  # os.walk does not enter it
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(directory).as_posix()
            if file.startswith(".") or name == SHARD_INDEX or is_parameter_file(name):
                continue
            if path.suffix.lower() in _REFUSED:
                raise UsageError(f"{path} is a pickle or a program, which never travels", hint="delete it; " + _ONLY)
            if path.suffix.lower() == ".safetensors":
                raise UsageError(f"{path} holds parameters that would not be read", hint=_MERGE)
            if not re.fullmatch(ASSET_NAME, name):
                raise UsageError(f"{directory} holds {name!r}, a name that cannot travel", hint=_NAMES)
            yield name


def _asset_entries(assets: Mapping[str, bytes]) -> Iterator[AssetEntry]:
    ends = accumulate((len(data) for data in assets.values()), initial=0)
    for (name, data), offset in zip(assets.items(), ends, strict=False):
        yield AssetEntry(name=name, offset=offset, size=len(data))
