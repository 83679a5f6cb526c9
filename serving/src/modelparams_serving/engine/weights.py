"""A version's tensors as a model's parameters: views of the arena on a CPU, of one copy on a device.

Everything is checked before a parameter is bound: names and shapes against what the architecture wants and against
the version that runs, then each value (finite), then the digest over the tensors as they are resident.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from modelparams.errors import LayoutMismatch
from modelparams.tensors import TensorSpec
from modelparams_serving.module_tensors import DTYPES

_SHOWN = 5
_OF_THE_INDEX = "of the index (by name, from 0)"


def view(data: memoryview, spec: TensorSpec) -> torch.Tensor:
    """Give the bytes as a tensor of `spec.shape`, without a copy."""
    dtype = DTYPES[spec.dtype]
    if not data.nbytes:
        return torch.empty(spec.shape, dtype=dtype)
    with warnings.catch_warnings():
        # The map is read-only on purpose; torch warns that a write would fault.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(data, dtype=dtype).view(spec.shape)


def differences(wanted: Mapping[str, TensorSpec], given: Mapping[str, TensorSpec]) -> list[str]:
    """What is missing, unexpected or different, one phrase for each kind of difference.

    They leave the pod, and names and shapes are confidential: numbers in the version's index must do.
    """
    numbers = {name: number for number, name in enumerate(sorted(given))}
    unexpected = [numbers[name] for name in given.keys() - wanted.keys()]
    changed = [numbers[name] for name in wanted.keys() & given.keys() if wanted[name] != given[name]]
    return [
        *_missing(len(wanted.keys() - given.keys())),
        *_which(unexpected, "is unexpected", "are unexpected"),
        *_which(changed, "has another shape or dtype", "have another shape or dtype"),
    ]


def _which(numbers: Sequence[int], one: str, many: str) -> list[str]:
    """`tensors 0, 1, 2, 3, 4 and 24 more of the index (by name, from 0) are unexpected`."""
    if len(numbers) < 2:
        return [f"tensor {number} {_OF_THE_INDEX} {one}" for number in numbers]
    rest = len(numbers) - _SHOWN
    *first, last = [*map(str, sorted(numbers)[:_SHOWN]), *([f"{rest} more"] if rest > 0 else [])]
    return [f"tensors {', '.join(first)} and {last} {_OF_THE_INDEX} {many}"]


def numbered(name: str, index: Iterable[str]) -> str:
    """A tensor as people without keys may hear of it; `modelparams inspect` lists the names in that order."""
    return f"tensor {sorted(index).index(name)} {_OF_THE_INDEX}"


def _missing(count: int) -> list[str]:
    return [f"{count} tensor{'s are' if count > 1 else ' is'} missing"] if count else []


def refuse_differences(found: list[str], *, against: str) -> None:
    """Raise one error that says all differences.

    Raises:
        LayoutMismatch: there are some.
    """
    if found:
        # In the message, since of a hint no engine's answer has room.
        named = "'modelparams diff' of it and one that ran, with the keys, names them"
        raise LayoutMismatch(f"the tensors are not those of {against}: {'; '.join(found)} ({named})")


def wanted_layout(model: Any, given: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """What the architecture wants to be given, with the dtypes as stored: they are the publisher's choice.

    Tensors that are tied to another one may be left out; `bind` finds out when all of a group are.
    """
    wanted: dict[str, TensorSpec] = {}
    tied = model.all_tied_weights_keys.keys() | set(model.all_tied_weights_keys.values())
    for name, tensor in model.state_dict().items():
        if name not in given and name in tied:
            continue
        stored = given.get(name)
        same_kind = stored is not None and DTYPES[stored.dtype].is_floating_point == tensor.dtype.is_floating_point
        dtype = stored.dtype if stored is not None and same_kind else _NAMES[tensor.dtype]
        wanted[name] = TensorSpec(dtype, tuple(tensor.shape))
    return wanted


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def ignored(model: Any, names: Iterable[str]) -> set[str]:
    """Names of old checkpoints that the architecture itself says to pass over, and buffers it now makes by itself."""
    import re

    patterns = [re.compile(p) for p in model._keys_to_ignore_on_load_unexpected or ()]
    made = {name for name, _ in model.named_non_persistent_buffers()}
    return {name for name in names if name in made or any(p.search(name) for p in patterns)}


def bind(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make `tensors` the model's parameters, tie what is tied, and compute the buffers that no file holds.

    Raises:
        LayoutMismatch: something of the model still has no value.
    """
    missing = set(model.load_state_dict(dict(tensors), strict=False, assign=True).missing_keys)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    _make_buffers(model)
    left = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    refuse_differences(_missing(len(left)), against=f"a {type(model).__name__}")


def _make_buffers(model: Any) -> None:
    """Compute non-persistent buffers (rotary frequencies) by the library's own rule, and nothing else.

    It initialises whatever is not marked as loaded; the parameters are marked, so the read-only arena is not written.
    """
    given = [*model.parameters(), *(b for _, b in model.named_buffers() if not b.is_meta)]
    device = next(model.parameters()).device
    for tensor in given:
        tensor._is_hf_initialized = True
    for name, buffer in list(model.named_non_persistent_buffers()):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        module._buffers[leaf] = torch.empty_like(buffer, device=device)
    for module in model.modules():
        module._is_hf_initialized = False
    model.initialize_weights()
