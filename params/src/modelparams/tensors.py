"""Tensors by name, dtype and shape, and where they are in safetensors files.

Headers are read strictly (the rules of safetensors' own README, and no duplicate name); no tensor is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from modelparams.errors import UsageError
from modelparams.parameter_files import ParameterFile, is_parameter_file, map_files
from modelparams.regular import require_regular
from modelparams.strictjson import MAX_SAFE_INTEGER, loads

HEADER_LIMIT = 16 << 20
"""Bytes of a safetensors header that are read at most."""
SINGLE_FILE, SHARD_INDEX = "model.safetensors", "model.safetensors.index.json"

ITEM_SIZE: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes of one element, by safetensors' names of dtypes."""


@dataclass(frozen=True, slots=True, order=True)
class TensorSpec:
    """`dtype` by safetensors' name, ``BF16``; `shape` row-major, () for a scalar."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes. Raises KeyError for a dtype that is not in ITEM_SIZE."""
        return math.prod(self.shape) * ITEM_SIZE[self.dtype]

    @property
    def reach(self) -> int:
        """The same with 1 for each dimension of 0: what strides are made of, which have to fit 64 bits."""
        return math.prod(length or 1 for length in self.shape) * ITEM_SIZE[self.dtype]


@dataclass(frozen=True, slots=True)
class FileTensor:
    """Where a tensor's bytes are: `spec.size` bytes at `offset` of `file`."""

    spec: TensorSpec
    file: ParameterFile
    offset: int

    @property
    def view(self) -> memoryview:
        """The bytes, not copied."""
        return self.file.view[self.offset : self.offset + self.spec.size]


def read_directory(directory: Path, files: Mapping[str, ParameterFile] | None = None) -> dict[str, FileTensor]:
    """Every tensor of a directory as `transformers` saves it: one file, or shards with their index. In name order.

    Args:
        directory: holds the index, if there is one.
        files: by name, what `map_files` gives of it; by default it is asked.

    Raises:
        UsageError: no such files, or they contradict each other, or some would be left out.
    """
    is_sharded = (directory / SHARD_INDEX).exists()
    if not is_sharded and not (directory / SINGLE_FILE).exists():
        raise UsageError(f"{directory} holds neither {SINGLE_FILE} nor {SHARD_INDEX}", hint=_SAVE)
    files = map_files(directory) if files is None else files
    found = _read_shards(directory, files) if is_sharded else _read(directory / SINGLE_FILE, files)
    read = {tensor.file.path.name for tensor in found.values()} if is_sharded else {SINGLE_FILE}
    if left_out := files.keys() - read:
        _refuse_left_out(directory, min(left_out), is_sharded)
    return dict(sorted(found.items()))


def _refuse_left_out(directory: Path, name: str, is_sharded: bool) -> NoReturn:
    """Nothing is left out of a version without a word."""
    what_is = f"what {SHARD_INDEX} lists is" if is_sharded else f"{SINGLE_FILE} is"
    instead = f"{SHARD_INDEX} with its shards" if name == SINGLE_FILE else "merge it into the model"
    raise UsageError(
        f"{directory / name} would be left out: only {what_is} read",
        hint=f"delete it, or {instead}, and run 'modelparams hash {directory}' again",
    )


def _read_shards(directory: Path, files: Mapping[str, ParameterFile]) -> dict[str, FileTensor]:
    weight_map = _weight_map(directory / SHARD_INDEX)
    found: dict[str, FileTensor] = {}
    for shard in sorted(set(weight_map.values())):
        in_shard = _read(directory / shard, files)
        if in_shard.keys() != {name for name, file in weight_map.items() if file == shard}:
            raise UsageError(f"{directory / shard} holds other tensors than {SHARD_INDEX} says", hint=_SAVE)
        found |= in_shard
    return found


def _read(path: Path, files: Mapping[str, ParameterFile]) -> dict[str, FileTensor]:
    if path.name not in files:
        raise UsageError(f"{path} cannot be read (it is not there)", hint=_SAVE)
    return read_file(files[path.name])


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = loads(_head(index, HEADER_LIMIT + 1), limit=HEADER_LIMIT)["weight_map"]
        if not all(type(file) is str and is_parameter_file(file) for file in weight_map.values()):
            raise ValueError("a shard is no visible *.safetensors file beside it")
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{index} has no weight_map", hint=_SAVE) from None
    except ValueError as error:
        raise UsageError(f"{index} cannot be used: {error}", hint=_SAVE) from None
    return dict(weight_map)


def read_file(file: ParameterFile) -> dict[str, FileTensor]:
    """The tensors of one safetensors file: 8 bytes length, little-endian; a JSON header; the tensors without gaps.

    Raises:
        UsageError: it is none.
    """
    try:
        specs, start = parse_header(bytes(file.view[: 8 + HEADER_LIMIT]), len(file.view))
    except ValueError as error:
        raise UsageError(f"{file.path} is no safetensors file: {error}", hint=_SAVE) from None
    return {name: FileTensor(spec, file, start + offset) for name, (spec, offset) in specs.items()}


def parse_header(head: bytes, file_size: int) -> tuple[dict[str, tuple[TensorSpec, int]], int]:
    """Read a header from a file's first bytes. Gives name → (spec, offset in the data), and where the data starts.

    Raises:
        ValueError: with the first thing that is wrong. Names are cut, values not quoted.
    """
    if len(head) < 8:
        raise ValueError("it has no header")
    length = int.from_bytes(head[:8], "little")
    if length > HEADER_LIMIT or 8 + length > file_size or 8 + length > len(head):
        raise ValueError(f"its header of {length} bytes is cut or too long")
    document = loads(head[8 : 8 + length], limit=HEADER_LIMIT)
    if head[8:9] != b"{" or not isinstance(document, dict):
        raise ValueError("its header is no JSON object")
    _check_metadata(document.pop("__metadata__", {}))
    entries = {name: _entry(name, entry) for name, entry in document.items()}
    _check_coverage(entries, file_size - 8 - length)
    return entries, 8 + length


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is no map of strings")


def _entry(name: str, entry: Any) -> tuple[TensorSpec, int]:
    """Name → (spec, offset), with the size that dtype and shape give."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name[:80]!r} has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE:
        raise ValueError(f"tensor {name[:80]!r} has an unknown dtype")
    if not (_naturals(shape) and _naturals(offsets) and len(offsets) == 2):
        raise ValueError(f"tensor {name[:80]!r} has a bad shape or bad offsets")
    spec = TensorSpec(dtype, tuple(shape))
    if offsets[1] - offsets[0] != spec.size:
        raise ValueError(f"tensor {name[:80]!r} has another size than its shape")
    if spec.reach > MAX_SAFE_INTEGER:
        raise ValueError(f"tensor {name[:80]!r} has a shape larger than any memory")
    return spec, offsets[0]


def _naturals(value: object) -> bool:
    # type, not isinstance: true is an int in Python and none in JSON
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= MAX_SAFE_INTEGER for item in value)


def _check_coverage(entries: Mapping[str, tuple[TensorSpec, int]], data_size: int) -> None:
    end = 0
    for name, (spec, offset) in sorted(entries.items(), key=lambda item: (item[1][1], item[1][0].size)):
        if offset != end:
            raise ValueError(f"tensor {name[:80]!r} leaves a gap or overlaps another")
        end += spec.size
    if end != data_size:
        raise ValueError(f"its tensors are {end} bytes, its data {data_size}")


def _head(path: Path, limit: int) -> bytes:
    try:
        require_regular(path)
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", hint=_SAVE) from None


_SAVE = "save the model again with save_pretrained, whole"

# A float is NaN or infinite when its exponent is all ones. Read as a signed integer, the positive ones of those
# are the largest values; read as unsigned, the negative ones are. So two maxima decide, without a temporary.
_NOT_FINITE_FROM: Mapping[str, tuple[str, int, int]] = {
    # dtype → (integer width, least positive bit pattern that is not finite, least negative one)
    "BF16": ("2", 0x7F80, 0xFF80),
    "F16": ("2", 0x7C00, 0xFC00),
    "F32": ("4", 0x7F80_0000, 0xFF80_0000),
    "C64": ("4", 0x7F80_0000, 0xFF80_0000),
    "F64": ("8", 0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000),
    "F8_E5M2": ("1", 0x7C, 0xFC),
    "F8_E4M3": ("1", 0x7F, 0xFF),  # no infinity; one NaN of each sign
    "F8_E8M0": ("1", 0x80, 0xFF),  # no sign: 0xFF is its NaN, 0x80 is more than an int8 can be
}
_FNUZ = frozenset({"F8_E4M3FNUZ", "F8_E5M2FNUZ"})  # their only NaN is what elsewhere is minus zero
_PIECE = 1 << 20  # bytes; both passes over a piece find it in cache


def is_finite(view: memoryview, dtype: str) -> bool:
    """True if no element is NaN or infinite; integers and booleans always are finite.

    Args:
        view: the tensor's bytes, little-endian, contiguous.
        dtype: safetensors' name.

    Cost: one pass over memory, with the GIL released; no copy.
    """
    if dtype in _FNUZ:
        return not bool((np.frombuffer(view, "u1") == 0x80).any()) if len(view) else True
    if dtype not in _NOT_FINITE_FROM:
        return True
    width, positive, negative = _NOT_FINITE_FROM[dtype]
    signed, unsigned = np.frombuffer(view, "<i" + width), np.frombuffer(view, "<u" + width)
    step, largest = _PIECE // signed.itemsize, np.maximum.reduce  # as `max()`, without a Python call around it
    for start in range(0, signed.size, step):
        piece = slice(start, start + step)
        if largest(signed[piece]) >= positive or largest(unsigned[piece]) >= negative:
            return False
    return True
