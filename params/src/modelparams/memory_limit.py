"""How much memory this container may still take before the kernel kills a process in it.

The limit of a cgroup refuses no page of a tmpfs: whoever takes one too many is killed, or a neighbour is. So who is
about to take much has to look first. What cannot be read limits nothing: the kernel has the last word in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class _Version:
    """What the files of a cgroup are called."""

    limit: str
    used: str
    caches: tuple[str, str]
    """Of `memory.stat`: what the kernel gives back before it kills. Pages of a tmpfs are none of it."""
    shared: str
    """Of `memory.stat`: the pages of a tmpfs."""
    swap: tuple[str, str]
    """Limit and use: of swap, or of memory and swap together."""


_FIRST = _Version(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
    "total_shmem",
    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
)
_SECOND = _Version(
    "memory.max",
    "memory.current",
    ("inactive_file", "active_file"),
    "shmem",
    ("memory.swap.max", "memory.swap.current"),
)


_SLABS = "slab_reclaimable"
"""Half of it counts, as in the kernel's MemAvailable: what keeps pages of a tmpfs is in it too, and stays."""


def room(shared: int = 0, *, proc: Path = Path("/proc"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes until the tightest limit on this process; None: there is none to be seen.

    Args:
        shared: what lies in memory that outlives a container. Its pages are charged to the one that touched them, and
            when that has ended to the pod alone, whose cgroup no container sees, and whose limit kills as well.
        proc: where processes are told of.
        mounted: where cgroups are.
    """
    try:
        version, cgroups = _own((proc / "self" / "cgroup").read_text(), mounted)
        swap = _swap_free((proc / "meminfo").read_text())
    except (OSError, ValueError):
        return None
    return min((left for cgroup in cgroups if (left := _left(cgroup, version, swap, shared)) is not None), default=None)


def fits(size: int, left: int | None) -> bool:
    """Whether so much may be taken where there is `room` for so much.

    With a 128th more for what the kernel takes to keep the pages: of 800 MiB a 256th was too little, a 200th enough.
    """
    return left is None or size + size // 128 <= left


def _own(lines: str, mounted: Path) -> tuple[_Version, list[Path]]:
    """The process's cgroup and those above it. A container often sees its own as the root, whatever its path says."""
    parts = [line.split(":", 2) for line in lines.splitlines()]
    first = [path for _, controllers, path in parts if "memory" in controllers.split(",")]
    second = [path for number, controllers, path in parts if (number, controllers) == ("0", "")]
    version, root, path = (_FIRST, mounted / "memory", first[0]) if first else (_SECOND, mounted, "".join(second[:1]))
    return version, list(_upwards(root, PurePosixPath(path)))


def _upwards(root: Path, path: PurePosixPath) -> Iterator[Path]:
    inside = [part for part in path.parts if part not in ("/", "..")]
    for depth in range(len(inside), -1, -1):
        yield root.joinpath(*inside[:depth])


def _left(cgroup: Path, version: _Version, swap: int, shared: int) -> int | None:
    try:
        limit = (cgroup / version.limit).read_text().strip()
        if limit == "max":
            return None
        facts, left = _facts(cgroup), int(limit) - int((cgroup / version.used).read_text())
        swappable = _swap_allowed(cgroup, version, swap, left)
        given_back = sum(facts.get(name, 0) for name in version.caches) + facts.get(_SLABS, 0) // 2
        uncounted = max(0, shared - facts.get(version.shared, shared))
        return max(0, left + min(swap, swappable) + given_back - uncounted)
    except (OSError, ValueError):
        return None


def _facts(cgroup: Path) -> dict[str, int]:
    lines = (cgroup / "memory.stat").read_text().splitlines()
    return {name: int(value) for name, value in map(str.split, lines)}


def _swap_allowed(cgroup: Path, version: _Version, otherwise: int, left: int) -> int:
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in version.swap)
    except FileNotFoundError:
        return otherwise
    if limit == "max":
        return otherwise
    return int(limit) - int(used) - (left if version is _FIRST else 0)


def _swap_free(meminfo: str) -> int:
    kilobytes = [line.split()[1] for line in meminfo.splitlines() if line.startswith("SwapFree:")]
    return int(kilobytes[0]) << 10 if kilobytes else 0
