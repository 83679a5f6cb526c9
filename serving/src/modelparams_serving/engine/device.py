"""The device that serves, and the copy of parameters onto it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from modelparams.errors import UsageError

_STAGE = 64 << 20


def choose(wanted: str) -> torch.device:
    """`auto` is CUDA where it is found.

    Raises:
        UsageError: the wanted device is not there.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)  # say so now, not with the first version
    except (AssertionError, RuntimeError) as error:  # torch's, by how it was built
        hint = "give cpu, or auto, which takes CUDA where this torch finds it"
        raise UsageError(f"{wanted} cannot be used by this torch", hint=hint) from error
    return device


def place(tensors: Mapping[str, torch.Tensor], device: torch.device) -> Mapping[str, torch.Tensor]:
    """Give the tensors on `device`: themselves on a CPU, else copies, where tensors that share memory still share it.

    The copy runs on a side stream through two pinned buffers, beside what is served, and is complete on return.
    """
    if device.type == "cpu":
        return tensors
    cuda: Any = torch.cuda
    stream = cuda.Stream(device)
    with torch.cuda.stream(stream):
        copied: dict[tuple[int, int], torch.Tensor] = {}
        stage = _Stage(stream)
        for tensor in tensors.values():
            if _place_of(tensor) not in copied:
                copied[_place_of(tensor)] = stage.copy(tensor, device)
    stream.synchronize()
    return {name: copied[_place_of(t)].view(t.dtype).view(t.shape) for name, t in tensors.items()}


def _place_of(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.nbytes


class _Stage:
    """Two pinned buffers in turn: one is filled by the CPU while the other travels."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._buffers = [torch.empty(_STAGE, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        cuda: Any = torch.cuda
        self._free = [cuda.Event() for _ in range(2)]
        self._turn = 0

    def copy(self, source: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Start the copy of one contiguous tensor, as bytes; complete when the stream is."""
        flat = source.contiguous().view(-1).view(torch.uint8)
        target = torch.empty(flat.numel(), dtype=torch.uint8, device=device)
        for start in range(0, flat.numel(), _STAGE):
            piece = flat[start : start + _STAGE]
            buffer, free = self._buffers[self._turn], self._free[self._turn]
            free.synchronize()
            buffer[: piece.numel()].copy_(piece)
            target[start : start + _STAGE].copy_(buffer[: piece.numel()], non_blocking=True)
            free.record(self._stream)
            self._turn = 1 - self._turn
        return target


def host_bytes(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes as they are resident: in place on a CPU, brought back from a device."""
    if not tensor.numel():
        return memoryview(b"")
    array: Any = tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy()
    return memoryview(array)
