"""How a version lies in memory: blobs with tensors, each at a page, then the index, then the assets.

Writer and reader compute the layout alike: the agent from the manifest, the engine from the index alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from blake3 import blake3

from modelparams.errors import IndexInvalid
from modelparams.index import INDEX_LIMIT, TensorIndex, blob_starts
from modelparams.manifest import Manifest
from modelparams.protocol import Region
from modelparams.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class ArenaLayout:
    """The region of each blob of a manifest, in its order; bytes."""

    regions: tuple[Region, ...]
    total: int

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Where each blob's plaintext goes."""
        sizes = [blob.pt_size for blob in manifest.blobs]
        starts = blob_starts(sizes)
        regions = tuple(Region(offset=start, size=size) for start, size in zip(starts, sizes, strict=False))
        return cls(regions, starts[-1])

    def blob_offset(self, position: int) -> int:
        """Where the blob at that position of the manifest starts."""
        return self.regions[position].offset

    @property
    def index(self) -> Region:
        """Of the tensor index's JSON."""
        return self.regions[-2]

    @property
    def assets(self) -> Region:
        """Of the small files."""
        return self.regions[-1]

    def check_index(self, index: TensorIndex) -> None:
        """Refuse an index that is for blobs of other sizes than the signed ones.

        Raises:
            IndexInvalid: it is.
        """
        sizes = tuple(region.size for region in self.regions)
        if (*index.blob_sizes, index.assets_size) != (*sizes[:-2], sizes[-1]):
            raise IndexInvalid("the tensor index is for blobs of other sizes than the signed manifest")


def small_hash(arena: memoryview, index: Region, assets: Region) -> str:
    """BLAKE3 in hex of index and small files: they say what all the rest has to be. As `PulledParams` has it."""
    hasher = blake3()
    for part in (index, assets):
        hasher.update(arena[part.offset : part.offset + part.size])
    return hasher.hexdigest()


class ReadableArena:
    """A filled arena, read by name. Nothing is copied but assets; views live as long as `buffer`.

    Args:
        buffer: the arena's bytes; views of it are read-only exactly if it is.
        index_region: where the index is, as the manifest's layout and the engine's `Prepare` say.
        index: what `pull` has parsed from there already; by default it is read again.

    Raises:
        IndexInvalid: the index contradicts itself, its region or the arena's size.
    """

    def __init__(self, buffer: memoryview, index_region: Region, index: TensorIndex | None = None) -> None:
        start, end = index_region.offset, index_region.offset + index_region.size
        if index_region.size > INDEX_LIMIT or end > len(buffer):
            raise IndexInvalid("the tensor index is not inside the arena")
        self.index = index or TensorIndex.parse(buffer[start:end])
        self._starts = blob_starts((*self.index.blob_sizes, index_region.size))
        if self._starts[-2] != start or self._starts[-1] + self.index.assets_size > len(buffer):
            raise IndexInvalid("the tensor index is for an arena of another layout")
        self._buffer = buffer
        self.specs: Mapping[str, TensorSpec] = MappingProxyType(self.index.specs)
        """Dtype and shape of every tensor, in name order."""
        self._tensors = {tensor.name: tensor for tensor in self.index.tensors}
        self._assets = {asset.name: asset for asset in self.index.assets}

    def offset(self, name: str) -> int:
        """Where a tensor starts in the arena; tied tensors start at one place. Raises KeyError for an unknown name."""
        tensor = self._tensors[name]
        return self._starts[tensor.blob] + tensor.offset

    def tensor(self, name: str) -> memoryview:
        """A tensor's bytes, in place. Raises KeyError for an unknown name."""
        start = self.offset(name)
        return self._buffer[start : start + self._tensors[name].size]

    def asset(self, name: str) -> bytes:
        """A copy of a small file. Raises KeyError for an unknown name."""
        asset = self._assets[name]
        start = self._starts[-1] + asset.offset
        return bytes(self._buffer[start : start + asset.size])

    def assets(self) -> Mapping[str, bytes]:
        """Copies of all small files."""
        return MappingProxyType({name: self.asset(name) for name in self._assets})
