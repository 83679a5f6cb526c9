"""Which tensors share a blob: a layer each, so that a layer that does not change keeps its blob between versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelparams.errors import UsageError
from modelparams.index import TENSOR_ALIGNMENT, aligned
from modelparams.manifest import BLOB_PLAIN_LIMIT, BLOBS_LIMIT

# What model code calls its list of layers. Lists inside a layer (experts, parts of an MLP) stay with their layer.
_LAYER = re.compile(r"^(?:.*\.)?(?:layers?|blocks?|h|stages?)\.[0-9]+(?=\.)")
_ANY_LIST = re.compile(r"^(?:.*?\.)?[0-9]+(?=\.)")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes from `tensor_offset` of a tensor, at `blob_offset` of a blob's plaintext."""

    name: str
    tensor_offset: int
    size: int
    blob_offset: int


@dataclass(frozen=True, slots=True)
class BlobPlan:
    """One blob's plaintext: `parts` in order, zeros between them."""

    group: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self.parts[-1].blob_offset + self.parts[-1].size


def group_of(name: str) -> str:
    """The layer that a tensor belongs to: ``model.layers.3.mlp.up_proj.weight`` → ``model.layers.3``.

    By the deepest list of layers; without one by the first list of anything; without that by the first module.
    """
    match = _LAYER.match(name) or _ANY_LIST.match(name)
    return match[0] if match else name.partition(".")[0]


def plan_blobs(sizes: Mapping[str, int], *, limit: int = BLOB_PLAIN_LIMIT) -> tuple[BlobPlan, ...]:
    """Lay tensors into blobs. The same names and sizes always give the same plan.

    A tensor that is larger than a blob is cut; its blobs follow each other, so that its bytes do in an arena too.

    Args:
        sizes: bytes by name; of tied tensors give one name only.
        limit: bytes of plaintext of a blob at most, a multiple of 4096.

    Raises:
        UsageError: more blobs than a manifest may list.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(sizes, key=_natural):
        groups.setdefault(group_of(name), []).append(name)
    plans = tuple(
        BlobPlan(group, parts)
        for group in sorted(groups, key=_natural)
        for parts in _pack({name: sizes[name] for name in groups[group]}, limit)
    )
    if len(plans) > BLOBS_LIMIT - 2:  # the index and the assets have their own
        raise UsageError(f"{len(plans)} groups of tensors are more than {BLOBS_LIMIT - 2}", hint="merge small modules")
    return plans


def places(plans: tuple[BlobPlan, ...]) -> dict[str, tuple[int, int]]:
    """Tensor name → (blob, offset in its plaintext): where the index says that it begins."""
    return {
        part.name: (position, part.blob_offset)
        for position, plan in enumerate(plans)
        for part in plan.parts
        if part.tensor_offset == 0
    }


def _pack(sizes: Mapping[str, int], limit: int) -> Iterator[tuple[Part, ...]]:
    parts: list[Part] = []
    end = 0
    for name, size in sizes.items():
        start = aligned(end, TENSOR_ALIGNMENT)
        if parts and start + size > limit:
            yield tuple(parts)
            parts, start = [], 0
        if size > limit:
            yield from _cut(name, size, limit)
            end = 0
            continue
        parts.append(Part(name, 0, size, start))
        end = start + size
    if parts:
        yield tuple(parts)


def _cut(name: str, size: int, limit: int) -> Iterator[tuple[Part, ...]]:
    for start in range(0, size, limit):
        yield (Part(name, start, min(limit, size - start), 0),)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key by which layer 2 comes before layer 10; 2 and 02 are told apart by their text."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in _DIGITS.split(name)], name
