"""A module's parameters and persistent buffers as names with places, to be checked against a version and exchanged.

On a CPU a tensor is pointed at the version's bytes: no copy, about a microsecond each. On a device, and wherever
`in_place` is asked for, the bytes are copied over the old ones: captured CUDA graphs and compiled kernels keep the
addresses that they saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelparams.arena import ReadableArena
from modelparams.errors import LayoutMismatch, UsageError
from modelparams.tensors import TensorSpec

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}
_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor of the module, by all names that it has there (more than one: tied)."""

    names: tuple[str, ...]
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Staged:
    """One place and what it shall hold."""

    place: Place
    value: Tensor


def places_of(module: nn.Module) -> tuple[Place, ...]:
    """All that a version must bring, each tensor once.

    Raises:
        UsageError: something is on the meta device, so it has no memory to exchange.
    """
    persistent = module.state_dict(keep_vars=True).keys()
    by_tensor: dict[int, tuple[Tensor, list[str]]] = {}
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        if name in persistent:
            by_tensor.setdefault(id(tensor), (tensor, []))[1].append(name)
    if any(tensor.is_meta for tensor, _ in by_tensor.values()):
        raise UsageError("the module has tensors on the meta device", hint="materialise it first: module.to_empty()")
    return tuple(Place(tuple(names), tensor) for tensor, names in by_tensor.values())


def stage(places: Sequence[Place], arena: ReadableArena) -> list[Staged]:
    """Match every place with a tensor of the version, as a view of the arena; nothing is changed.

    A tied tensor may come under any of its names, or under several that lie at one place in the arena.

    Raises:
        LayoutMismatch: a name is missing or unknown, or a dtype, a shape or a tie differs.
    """
    faults = _faults(places, arena)
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise LayoutMismatch(f"the tensors are not those of the module: {'; '.join(faults[:_SHOWN])}{more}")
    names = [next(name for name in place.names if name in arena.specs) for place in places]
    return [
        Staged(place, _view(arena.tensor(name), arena.specs[name])) for place, name in zip(places, names, strict=True)
    ]


def present(places: Sequence[Place], *, in_place: bool) -> list[Staged]:
    """What the places hold now, to go back to: copies where an exchange would write over it."""
    return [
        Staged(place, place.tensor.data.clone() if _is_copied(place, in_place) else place.tensor.data)
        for place in places
    ]


def brought_near(staged: Sequence[Staged]) -> list[Staged]:
    """The same values on the devices of their places, before the swap: the copy within a device is the short part."""
    return [Staged(one.place, one.value.to(one.place.tensor.device)) for one in staged]


def _faults(places: Sequence[Place], arena: ReadableArena) -> list[str]:
    specs = arena.specs
    known = {name for place in places for name in place.names}
    faults = [f"{name} is unexpected" for name in sorted(specs.keys() - known)]
    for place in places:
        given = [name for name in place.names if name in specs]
        if not given:
            faults.append(f"{place.names[0]} is missing")
        elif len({arena.offset(name) for name in given}) > 1:
            faults.append(f"{' and '.join(given)} are one tensor in the module and differ")
        faults += [
            f"{name} is {spec.dtype}{list(spec.shape)} instead of {_shown(place.tensor)}"
            for name in given
            if not _fits(spec := specs[name], place.tensor)
        ]
    return faults


def _shown(tensor: Tensor) -> str:
    """As a version's specs have it, so that only what differs looks different."""
    return f"{_NAMES.get(tensor.dtype, tensor.dtype)}{list(tensor.shape)}"


def _fits(spec: TensorSpec, tensor: Tensor) -> bool:
    return DTYPES.get(spec.dtype) is tensor.dtype and spec.shape == tuple(tensor.shape)


def _view(data: memoryview, spec: TensorSpec) -> Tensor:
    dtype = DTYPES[spec.dtype]
    if not math.prod(spec.shape):
        return torch.empty(spec.shape, dtype=dtype)  # frombuffer refuses to see nothing
    return torch.frombuffer(data, dtype=dtype).view(spec.shape)


@torch.no_grad()
def exchange(staged: Sequence[Staged], before: Sequence[Staged], *, in_place: bool) -> None:
    """Give every place its value. Expects `stage` to have passed and no step to run.

    If it is interrupted half-way (a signal, a fault of a device), all is put back to `before`, and the exception goes
    on.
    """
    _await_devices(staged)  # a step ends when its kernels are queued: they still read what is to be written over
    try:
        _put(staged, in_place)
    except BaseException:
        _put(before, in_place)
        raise


def _put(staged: Sequence[Staged], in_place: bool) -> None:
    for one in staged:
        if _is_copied(one.place, in_place):
            one.place.tensor.data.copy_(one.value)
        else:
            one.place.tensor.data = one.value
    _await_devices(staged)  # the copies are only queued: a step on another stream must not overtake them


def _await_devices(staged: Sequence[Staged]) -> None:
    for device in {one.place.tensor.device for one in staged}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _is_copied(place: Place, in_place: bool) -> bool:
    return in_place or place.tensor.device.type != "cpu"
