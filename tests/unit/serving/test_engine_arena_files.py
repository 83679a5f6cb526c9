"""Arena files: allocated once, grown in place, never truncated."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from modelparams.errors import ArenaExhausted
from modelparams_serving.engine import arena_files
from modelparams_serving.engine.arena_files import ArenaFile

PAGE = 4096


def test_an_arena_is_allocated_in_full_and_open_to_the_agent_of_its_group(tmp_path: Path) -> None:
    arena = ArenaFile(tmp_path / "arena-a")
    assert arena.capacity == 0
    arena.ensure(16 * PAGE)
    status = arena.path.stat()
    assert (arena.capacity, status.st_blocks * 512) == (16 * PAGE, 16 * PAGE)
    assert stat.S_IMODE(status.st_mode) == 0o660


def test_growing_keeps_what_is_there_and_a_smaller_wish_changes_nothing(tmp_path: Path) -> None:
    arena = ArenaFile(tmp_path / "arena-a")
    arena.ensure(PAGE)
    with arena.path.open("r+b") as file:
        file.write(b"kept")
    arena.ensure(4 * PAGE)
    arena.ensure(PAGE)
    assert arena.capacity == 4 * PAGE
    assert arena.path.read_bytes()[:8] == b"kept\0\0\0\0"


def test_a_map_sees_later_writes_of_the_agent_and_refuses_ours(tmp_path: Path) -> None:
    arena = ArenaFile(tmp_path / "arena-a")
    arena.ensure(PAGE)
    pages = memoryview(arena.map())
    with arena.path.open("r+b") as file:
        file.write(b"new")
    assert bytes(pages[:3]) == b"new"
    assert pages.readonly


def test_a_full_volume_is_a_clear_error_and_leaves_the_arena_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = ArenaFile(tmp_path / "arena-b")
    arena.ensure(PAGE)

    def full(descriptor: int, offset: int, size: int) -> None:
        os.ftruncate(descriptor, offset + size // 2)  # as a file system that gave a part before it ran out
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arena_files.os, "posix_fallocate", full)
    with pytest.raises(ArenaExhausted, match=r"arena-b needs 64 MiB and has 0\.0 MiB; \d+(\.\d)? MiB are free in /"):
        arena.ensure(64 << 20)
    assert arena.capacity == PAGE


def test_what_the_memory_limit_cannot_hold_is_refused_before_the_kernel_kills_whoever_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit fails no allocation: the engine that serves would be killed, and again at each try."""
    monkeypatch.setattr(arena_files.os, "posix_fallocate", lambda *_: pytest.fail("the kernel kills it here"))
    arena = ArenaFile(tmp_path / "arena-b", room=lambda _: 64 << 20)
    with pytest.raises(
        ArenaExhausted, match=r"arena-b needs 65 MiB and has 0 MiB; the container's memory limit leaves"
    ):
        arena.ensure(65 << 20)
    assert arena.capacity == 0


def test_what_both_arenas_have_in_memory_is_told_to_whoever_says_how_much_is_left(tmp_path: Path) -> None:
    """An engine that starts again finds them, charged to its pod and no more to its container."""
    for name in ("arena-a", "arena-b"):
        ArenaFile(tmp_path / name).ensure(8 * PAGE)
    with (tmp_path / "arena-b").open("r+b") as file:
        file.truncate(16 * PAGE)  # a hole is not in memory
    told = list[int]()

    def room(shared: int) -> None:
        told.append(shared)

    ArenaFile(tmp_path / "arena-a", room).ensure(9 * PAGE)
    assert told == [16 * PAGE]


@pytest.mark.parametrize("room", [4 * PAGE, None])
def test_what_fits_beside_what_the_arena_has_already_is_given(tmp_path: Path, room: int | None) -> None:
    arena = ArenaFile(tmp_path / "arena-b", room=lambda _: room)
    arena.ensure(3 * PAGE)
    arena.ensure(6 * PAGE)
    assert arena.capacity == 6 * PAGE
