"""A version in a program's own memory: which it is, where it lies, and that its tensors there are the sealed ones."""

from __future__ import annotations

import contextlib
import hmac
import mmap
from dataclasses import dataclass, field

from modelparams import memory_limit
from modelparams.arena import ReadableArena
from modelparams.digest import Digest
from modelparams.errors import ArenaExhausted, IndexInvalid
from modelparams.index import tensors_digest
from modelparams.manifest import Manifest
from modelparams.names import ModelName, Version
from modelparams_serving.module_tensors import Staged

_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python's mmap has no name for it


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """What a module holds."""

    model: ModelName
    version: Version
    sequence: int
    manifest_digest: Digest
    tensors_digest: str


@dataclass(slots=True)
class PrivateArena:
    """Private memory for one version, kept for the next: fresh pages cost ten times what warm ones do."""

    memory: mmap.mmap | None = None
    manifest: Manifest | None = None
    live: LiveVersion | None = None
    staged: list[Staged] = field(default_factory=list)

    def emptied(self, size: int) -> memoryview:
        """Forget the version and give `size` bytes.

        Raises:
            ArenaExhausted: there is no memory.
        """
        self.manifest, self.live, self.staged = None, None, []
        if self.memory is None or len(self.memory) < size:
            self.memory = None  # before the new one is made: at most two are there at any time
            self.memory = _fresh(size)
        return memoryview(self.memory)[:size]


def _fresh(size: int) -> mmap.mmap:
    left = memory_limit.room()
    if not memory_limit.fits(size, left):
        raise _exhausted(size, f"the container's memory limit leaves {left}")
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise _exhausted(size, error.strerror) from error
    with contextlib.suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    with contextlib.suppress(OSError):
        memory.madvise(_MADV_POPULATE_WRITE)
    return memory


def _exhausted(size: int, why: str | None) -> ArenaExhausted:
    return ArenaExhausted(f"no memory for {size} bytes: {why}", hint="free some; then call update again")


def check_digest(arena: ReadableArena) -> None:
    """Compare the tensors as they lie in memory with what the publisher sealed.

    Raises:
        IndexInvalid: they differ.
    """
    index = arena.index
    found = tensors_digest(
        bytes.fromhex(index.salt), ((name, spec, arena.tensor(name)) for name, spec in arena.specs.items())
    )
    if not hmac.compare_digest(found, index.tensors_digest):
        raise IndexInvalid("the tensors do not hash to the digest in their index")
