"""The tensor index: which tensor is where. Sealed, since names and shapes are confidential. FORMAT.md §index.

Offsets are in a blob's plaintext. Blobs are laid into an arena one behind the other (`blob_starts`), so a tensor
that is larger than one blob runs on into the next ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Annotated, Any, Literal

from blake3 import blake3
from pydantic import Field, StringConstraints, TypeAdapter

from modelparams.digest import Digest
from modelparams.errors import IndexInvalid
from modelparams.framing import length_prefix, length_prefixed
from modelparams.manifest import BLOB_PLAIN_LIMIT, BLOBS_LIMIT
from modelparams.strictjson import MAX_SAFE_INTEGER, Hex32, Record, dumps, loads, validated
from modelparams.tensors import ITEM_SIZE, TensorSpec

INDEX_LIMIT = 64 << 20
"""Bytes of an index's JSON."""
TENSOR_ALIGNMENT = 64
"""A tensor starts at a multiple of this in its blob: a cache line, and the widest vector load."""
BLOB_ALIGNMENT = 4096
"""A blob starts at a multiple of this in an arena: a page."""

_AT_ONCE = 1000
"""Tensors of which objects are made in one call: some ms."""

_Natural = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_NAME = r"^[^\x00-\x1f\x7f]{1,512}\z"
# Relative, no empty part, no part that begins with a dot: nothing that could leave a directory.
ASSET_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}"


def aligned(offset: int, alignment: int) -> int:
    """The next multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment


def blob_starts(sizes: Iterable[int]) -> tuple[int, ...]:
    """Where blobs of these sizes start in an arena, and, last, where the next thing after them may start."""
    return tuple(accumulate(sizes, lambda start, size: aligned(start + size, BLOB_ALIGNMENT), initial=0))


class TensorEntry(Record):
    """A tensor: `size` bytes at `offset` of the plaintext of blob `blob`."""

    name: Annotated[str, StringConstraints(pattern=_NAME)]
    dtype: str
    shape: tuple[_Natural, ...] = Field(max_length=16)
    blob: _Natural
    offset: _Natural
    size: _Natural

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape."""
        return TensorSpec(self.dtype, self.shape)


class AssetEntry(Record):
    """A small file: `size` bytes at `offset` of the plaintext of the asset blob."""

    name: Annotated[str, StringConstraints(pattern=rf"^{ASSET_NAME}\z")]
    offset: _Natural
    size: _Natural


class TensorIndex(Record):
    """All tensors and assets of a version, each in name order.

    Tied tensors have one place under several names. Otherwise places do not overlap, and nothing but
    alignment is between them. `parse` checks this; use no other way in.
    """

    format: Literal["modelparams.dev/index/v1"] = "modelparams.dev/index/v1"
    salt: Hex32
    tensors_digest: Hex32
    """`tensors_digest` over all of them, keyed by `salt`: what an engine must find in the memory it serves from."""
    blob_sizes: tuple[Annotated[int, Field(ge=0, le=BLOB_PLAIN_LIMIT)], ...] = Field(max_length=BLOBS_LIMIT)
    """Bytes of plaintext of each blob with tensors, in the manifest's order."""
    tensors: tuple[TensorEntry, ...]
    assets: tuple[AssetEntry, ...] = Field(max_length=10_000)

    @classmethod
    def parse(cls, data: bytes | memoryview) -> TensorIndex:
        """Read an index and check that it is whole.

        Raises:
            IndexInvalid: with the first thing that is wrong.
        """
        try:
            index = _read(loads(data, limit=INDEX_LIMIT))
        except ValueError as error:
            raise IndexInvalid(f"the tensor index is not as specified: {error}") from None
        check(index)
        return index

    @property
    def assets_size(self) -> int:
        """Bytes of plaintext of the asset blob."""
        return sum(asset.size for asset in self.assets)

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Dtype and shape by name."""
        return {tensor.name: tensor.spec for tensor in self.tensors}


_ENTRIES = TypeAdapter(tuple[TensorEntry, ...])


def _read(document: Any) -> TensorIndex:
    """Make objects of it, of some tensors at a time: of 94,000 at once that held every other thread for a second."""
    tensors = document.get("tensors") if isinstance(document, dict) else None
    if not isinstance(tensors, list):
        return validated(TensorIndex.model_validate_json, dumps(document))
    rest = validated(TensorIndex.model_validate_json, dumps({**document, "tensors": []}))
    return rest.model_copy(update={"tensors": tuple(chain.from_iterable(_entries(tensors)))})


def _entries(tensors: Sequence[Any]) -> Iterator[Sequence[TensorEntry]]:
    for start in range(0, len(tensors), _AT_ONCE):
        try:
            yield validated(_ENTRIES.validate_json, dumps(tensors[start : start + _AT_ONCE]))
        except ValueError as error:
            raise ValueError(f"of the tensors from {start} on, {error}") from None


def check(index: TensorIndex) -> None:
    """Refuse an index that contradicts itself.

    Raises:
        IndexInvalid: it does. The message names a position, never a tensor: it may be shown to people without keys.
    """
    _require_sorted("tensor", [tensor.name for tensor in index.tensors])
    _require_sorted("asset", [asset.name for asset in index.assets])
    for number, tensor in enumerate(index.tensors):
        _require(tensor.dtype in ITEM_SIZE, f"tensor {number} has an unknown dtype")
        _require(tensor.size == tensor.spec.size, f"tensor {number} has another size than its shape")
        _require(tensor.spec.reach <= MAX_SAFE_INTEGER, f"tensor {number} has a shape larger than any memory")
        _require(tensor.offset % TENSOR_ALIGNMENT == 0, f"tensor {number} is not aligned")
        _require(tensor.blob < len(index.blob_sizes), f"tensor {number} is in a blob that is none")
    _require_coverage(index)
    ends = list(accumulate((asset.size for asset in index.assets), initial=0))
    for number, asset in enumerate(index.assets):
        _require(asset.offset == ends[number], f"asset {number} leaves a gap or overlaps another")
    _require(ends[-1] <= BLOB_PLAIN_LIMIT, "its assets are too large")


def _require_coverage(index: TensorIndex) -> None:
    """Walk the arena: each place begins where the one before it ended, up to alignment or the next blob's start."""
    starts, sizes = blob_starts(index.blob_sizes), index.blob_sizes
    places: dict[tuple[int, int, int], TensorSpec] = {}
    for number, tensor in enumerate(index.tensors):
        place = (tensor.blob, tensor.offset, tensor.size)
        twin = places.setdefault(place, tensor.spec)
        _require(
            tensor.size == 0 or twin == tensor.spec, f"tensor {number} shares its place with another kind of tensor"
        )
    blob, end = 0, 0  # everything before byte `end` of blob `blob` is covered
    for at, offset, size in sorted(places):
        while blob < at:  # that blob must be full
            _require(end == sizes[blob], f"blob {blob} has bytes that no tensor covers")
            blob, end = blob + 1, 0
        _require(
            at == blob and offset == aligned(end, TENSOR_ALIGNMENT), f"blob {at} has a gap or an overlap at {offset}"
        )
        end = offset + size
        while end > sizes[blob]:  # it runs on: then the arena must have no gap between the two blobs
            _require(blob + 1 < len(sizes), f"blob {blob} is shorter than its tensors")
            _require(starts[blob] + sizes[blob] == starts[blob + 1], f"a tensor runs on over a gap after blob {blob}")
            blob, end = blob + 1, end - sizes[blob]
    while blob < len(sizes):
        _require(end == sizes[blob], f"blob {blob} has bytes that no tensor covers")
        blob, end = blob + 1, 0


def _require_sorted(what: str, names: Sequence[str]) -> None:
    _require(all(a < b for a, b in pairwise(names)), f"its {what}s are not in order or one is twice")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise IndexInvalid(f"the tensor index contradicts itself: {otherwise}")


def schema_digest(specs: Mapping[str, TensorSpec]) -> Digest:
    """SHA-256 over names, dtypes and shapes: equal for versions that can be swapped in place of each other."""
    return Digest.of(dumps({name: [spec.dtype, list(spec.shape)] for name, spec in specs.items()}))


def tensors_digest(salt: bytes, tensors: Iterable[tuple[str, TensorSpec, bytes | memoryview]]) -> str:
    """Keyed BLAKE3 in hex over tensors in name order: length-prefixed name, dtype, shape in JSON, bytes.

    The salt is random and sealed with the index, so the digest can be shown: it confirms no guess.

    Raises:
        ValueError: they are not in order.
    """
    hasher, last = blake3(key=salt), ""
    for name, spec, view in tensors:
        if name <= last:
            raise ValueError("tensors_digest takes tensors in name order")
        last = name
        hasher.update(length_prefixed(name, spec.dtype, dumps(list(spec.shape))) + length_prefix(len(view)))
        hasher.update(view)
    return hasher.hexdigest()
