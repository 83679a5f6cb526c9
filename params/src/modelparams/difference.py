"""How two versions differ, tensor by tensor and in their small files: directories or sealed versions, in any pairing.

Blobs that both versions share are not fetched; of the others, one of each side is open at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modelparams.floe import wipe
from modelparams.hashes import CONFIG, without_hashes
from modelparams.plaintext import PlainVersion
from modelparams.sealed import SealedRelease, open_blob, read_index, segment_buffer
from modelparams.tensors import TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]

_PIECE = 1 << 20  # elements that are compared at once, as float64
_NUMBERS: Mapping[str, str] = {
    "BOOL": "u1",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}


class Side(Protocol):
    """One of the two versions."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtypes and shapes by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names in the order in which reading them is cheapest."""

    def identity(self, name: str) -> object:
        """A value that is equal for two tensors only if their bytes are; None when that is not known unread."""

    def read(self, name: str) -> memoryview:
        """The tensor's bytes, valid until the next call."""

    @property
    def assets_identity(self) -> object:
        """As `identity`, of all small files."""

    def assets(self) -> Mapping[str, bytes]:
        """The small files by name."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, as `plaintext.read_plain` gives it."""

    plain: PlainVersion

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """See `Side`."""
        return self.plain.specs

    @property
    def names(self) -> tuple[str, ...]:
        """See `Side`."""
        return tuple(self.plain.specs)

    def identity(self, name: str) -> object:  # noqa: ARG002 - the protocol's name, for callers by keyword
        """See `Side`."""
        return None

    def read(self, name: str) -> memoryview:
        """See `Side`."""
        return self.plain.views[name]

    @property
    def assets_identity(self) -> object:
        """See `Side`."""
        return None

    def assets(self) -> Mapping[str, bytes]:
        """See `Side`."""
        return self.plain.assets


class Sealed:
    """A sealed version; a blob is fetched and opened when the first of its tensors is read."""

    def __init__(self, release: SealedRelease) -> None:
        self._release, self._manifest = release, release.manifest.manifest
        self._buffer = segment_buffer(self._manifest)
        index = read_index(release)
        self._tensors, self._assets = {tensor.name: tensor for tensor in index.tensors}, index.assets
        self._open: dict[int, memoryview] = {}
        self.fetched_bytes = 0

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """See `Side`."""
        return {name: tensor.spec for name, tensor in self._tensors.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """See `Side`."""
        return tuple(sorted(self._tensors, key=lambda name: (self._tensors[name].blob, self._tensors[name].offset)))

    def identity(self, name: str) -> object:
        """See `Side`. The same sealed blobs at the same place: true of one model's versions alone."""
        tensor = self._tensors[name]
        blobs = tuple(self._manifest.blobs[n].sha256 for n in self._blobs(name))
        return blobs, tensor.offset, tensor.spec

    def read(self, name: str) -> memoryview:
        """See `Side`."""
        tensor, blobs = self._tensors[name], self._blobs(name)
        for position in self._open.keys() - set(blobs):
            wipe(self._open.pop(position))
        views = [self._opened(position) for position in blobs]
        joined = views[0] if len(views) == 1 else memoryview(b"".join(views))
        return joined[tensor.offset : tensor.offset + tensor.size]

    @property
    def assets_identity(self) -> object:
        """See `Side`."""
        return self._manifest.blobs[self._manifest.assets].sha256, tuple(self._assets)

    def assets(self) -> Mapping[str, bytes]:
        """See `Side`."""
        view = self._opened(self._manifest.assets)
        return {one.name: bytes(view[one.offset : one.offset + one.size]) for one in self._assets}

    def _blobs(self, name: str) -> tuple[int, ...]:
        """The blobs that a tensor lies in: one, unless it is larger than a blob."""
        tensor = self._tensors[name]
        last, end = tensor.blob, tensor.offset + tensor.size
        while end > self._manifest.blobs[last].pt_size:
            end -= self._manifest.blobs[last].pt_size
            last += 1
        return tuple(range(tensor.blob, last + 1))

    def _opened(self, position: int) -> memoryview:
        if position not in self._open:
            view = memoryview(bytearray(self._manifest.blobs[position].pt_size))
            open_blob(self._release, position, view, buffer=self._buffer)
            self.fetched_bytes += self._manifest.blobs[position].size
            self._open[position] = view
        return self._open[position]


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor that is not the same in both."""

    name: str
    before: TensorSpec | None
    after: TensorSpec | None
    elements: int = 0
    """How many of its elements changed."""
    max_abs: float | None = None
    """The largest change of an element; None where the numbers cannot be compared."""
    relative_l2: float | None = None
    """The Euclidean norm of the change over the norm of the tensor before."""

    @property
    def what(self) -> str:
        """In a word."""
        if self.before is None:
            return "added"
        if self.after is None:
            return "removed"
        return "changed" if self.before == self.after else "reshaped"


def differences(before: Side, after: Side) -> Iterator[Difference]:
    """Every tensor that differs, in the order of `before`, then what `after` has more."""
    for name in before.names:
        old, new = before.specs[name], after.specs.get(name)
        if new is None or old != new:
            yield Difference(name, old, new)
        elif before.identity(name) is None or before.identity(name) != after.identity(name):
            found = compare(name, old, before.read(name), after.read(name))
            if found.elements:
                yield found
    yield from (Difference(name, None, after.specs[name]) for name in after.names if name not in before.specs)


def changed_files(before: Side, after: Side) -> dict[str, str]:
    """Each small file that differs, in name order, with what became of it in a word. Hashes in config.json do not."""
    if before.assets_identity is not None and before.assets_identity == after.assets_identity:
        return {}
    old, new = _comparable(before), _comparable(after)
    added, removed = dict.fromkeys(new.keys() - old.keys(), "added"), dict.fromkeys(old.keys() - new.keys(), "removed")
    changed = {name: "changed" for name in old.keys() & new.keys() if old[name] != new[name]}
    return dict(sorted((added | removed | changed).items()))


def _comparable(side: Side) -> dict[str, bytes]:
    return {name: without_hashes(data) if name == CONFIG else data for name, data in side.assets().items()}


def compare(name: str, spec: TensorSpec, before: memoryview, after: memoryview) -> Difference:
    """Two tensors of one kind. Elements are compared by their bits: -0.0 differs from 0.0, NaN equals itself."""
    width = spec.size // max(1, math.prod(spec.shape)) if spec.size else 1
    changed, largest, squares, norm = 0, 0.0, 0.0, 0.0
    for start in range(0, len(before), _PIECE * width):
        old, new = before[start : start + _PIECE * width], after[start : start + _PIECE * width]
        bits = np.frombuffer(old, f"V{width}") != np.frombuffer(new, f"V{width}")
        changed += int(bits.sum())
        if (a := _numbers(old, spec.dtype)) is not None and (b := _numbers(new, spec.dtype)) is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # a change may be infinite, or not a number
                delta = b[bits] - a[bits]
                largest = float(np.maximum(largest, np.abs(delta).max(initial=0.0)))  # not a number, if one is not
                squares, norm = squares + float(delta @ delta), norm + float(a @ a)
    if _numbers(memoryview(b""), spec.dtype) is None:
        return Difference(name, spec, spec, changed)
    relative = math.sqrt(squares / norm) if norm else (math.inf if squares else 0.0)
    return Difference(name, spec, spec, changed, largest, relative)


def _numbers(view: memoryview, dtype: str) -> Array | None:
    """As float64; None for dtypes that NumPy has no numbers for."""
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(view, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(view, _NUMBERS[dtype]).astype(np.float64) if dtype in _NUMBERS else None
