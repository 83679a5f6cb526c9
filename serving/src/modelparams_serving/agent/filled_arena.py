"""Whether an arena is still what this process filled it with: the engine and others may have written to it since."""

from __future__ import annotations

from pathlib import Path

from modelparams import errors
from modelparams.arena import small_hash
from modelparams.protocol import EngineState, SlotState
from modelparams_serving.agent.arena import inode_of, mapped
from modelparams_serving.agent.background import in_background
from modelparams_serving.agent.memory import Filled


def still_holds(runtime_dir: Path, filled: Filled, engine: EngineState) -> bool:
    """Whether the engine knows of nothing else in its slot, and its file is the one that was filled."""
    state = engine.slots.get(filled.slot, SlotState())
    held = state.resident.manifest_digest if state.resident else state.filling
    return held in (None, filled.digest) and inode_of(runtime_dir / filled.slot.file_name) == filled.inode


async def is_as_verified(runtime_dir: Path, filled: Filled) -> bool:
    """Look at index and small files; the engine compares the tensors with the index.

    An engine that was taken over could have written others for the one that comes after it.

    Raises:
        ArenaExhausted: there is no memory or no thread to look with.
    """

    def look() -> bool:
        with mapped(runtime_dir / filled.slot.file_name, writable=False) as arena:
            return small_hash(arena, filled.index, filled.assets) == filled.small_hash

    try:
        return await in_background(look)
    except (OSError, RuntimeError) as error:
        raise errors.ArenaExhausted(f"{filled.slot.file_name} cannot be looked at ({error})") from error
