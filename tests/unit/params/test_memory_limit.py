"""What the kernel lets a container take before it kills the engine in it: read as each kind of node tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelparams.memory_limit import fits, room

MIB = 1 << 20


class Node:
    """`/proc` and `/sys/fs/cgroup` as files."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.tell(self.proc / "meminfo", f"MemFree: 9 kB\nSwapFree: {0} kB\n")

    def tell(self, path: Path, text: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def own(self, *lines: str) -> None:
        self.tell(self.proc / "self" / "cgroup", "\n".join(lines))

    def second(self, path: str = "", **files: object) -> None:
        for name, value in files.items():
            self.tell(self.cgroups / path / f"memory.{name.replace('_', '.', 1)}", value)

    @property
    def room(self) -> int | None:
        return self.room_beside(0)

    def room_beside(self, shared: int) -> int | None:
        return room(shared, proc=self.proc, mounted=self.cgroups)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def stat(**facts: int) -> str:
    return "\n".join(f"{name} {value}" for name, value in facts.items())


def test_a_container_s_room_is_its_limit_less_what_it_holds(node: Node) -> None:
    node.own("0::/")
    node.second(max=100 * MIB, current=30 * MIB, stat=stat(anon=30 * MIB, inactive_file=0))
    assert node.room == 70 * MIB


def test_what_the_kernel_gives_back_before_it_kills_counts_as_room(node: Node) -> None:
    """Caches of files, such as of the libraries that were read; a tmpfs's pages are none."""
    node.own("0::/")
    facts = stat(inactive_file=40 * MIB, active_file=20 * MIB, shmem=25 * MIB, inactive_anon=25 * MIB)
    node.second(max=100 * MIB, current=90 * MIB, stat=facts)
    assert node.room == 70 * MIB


def test_of_what_the_kernel_s_own_caches_may_give_back_half_counts(node: Node) -> None:
    """Names of files that a large image has; what keeps the pages of a tmpfs is told as such too, and stays."""
    node.own("0::/")
    node.second(max=100 * MIB, current=90 * MIB, stat=stat(inactive_file=0, slab_reclaimable=60 * MIB))
    assert node.room == 40 * MIB


@pytest.mark.parametrize(("own", "left"), [(0, 30), (10, 40), (40, 70), (50, 70)])
def test_what_an_engine_before_it_left_in_the_pod_s_memory_takes_room_too(node: Node, own: int, left: int) -> None:
    """It is charged to the pod, whose cgroup a container does not see, and the pod's limit kills as well."""
    node.own("0::/")
    node.second(max=100 * MIB, current=30 * MIB, stat=stat(inactive_file=0, shmem=own * MIB))
    assert node.room_beside(40 * MIB) == left * MIB


def test_where_nobody_says_whose_the_pages_of_a_tmpfs_are_they_are_taken_for_counted(node: Node) -> None:
    node.own("0::/")
    node.second(max=100 * MIB, current=30 * MIB, stat=stat(inactive_file=0))
    assert node.room_beside(40 * MIB) == 70 * MIB


def test_without_a_limit_there_is_no_end_of_room(node: Node) -> None:
    node.own("0::/")
    node.second(max="max", current=30 * MIB, stat=stat(inactive_file=0))
    assert node.room is None


@pytest.mark.parametrize(("own", "pod", "left"), [("max", 50, 30), (45, 50, 30), (35, 50, 25), (35, "max", 25)])
def test_the_tightest_of_the_limits_above_counts_as_far_as_they_are_seen(
    node: Node, own: object, pod: object, left: int
) -> None:
    node.own("0::/pod/engine")
    for path, limit, used in (("pod/engine", own, 10), ("pod", pod, 20)):
        limit = limit * MIB if isinstance(limit, int) else limit
        node.second(path, max=limit, current=used * MIB, stat=stat(inactive_file=0))
    assert node.room == left * MIB


@pytest.mark.parametrize(("swap_max", "free"), [("max", 5), (8 * MIB, 5), (3 * MIB, 2), (0, 0)])
def test_what_may_be_swapped_counts_as_far_as_there_is_swap(node: Node, swap_max: object, free: int) -> None:
    node.own("0::/")
    node.tell(node.proc / "meminfo", f"SwapFree: {5 * 1024} kB")
    node.second(max=100 * MIB, current=100 * MIB, stat=stat(inactive_file=0), swap_max=swap_max, swap_current=MIB)
    assert node.room == free * MIB


@pytest.mark.parametrize("path", ["/", "/kubepods/of-the-host/that-is-not-mounted-here"])
def test_nodes_of_the_first_version_of_cgroups_tell_it_by_other_names(node: Node, path: str) -> None:
    node.own("5:devices:/", f"4:hugetlb,memory:{path}", "0::/")
    folder = node.cgroups / "memory"
    node.tell(folder / "memory.limit_in_bytes", 100 * MIB)
    node.tell(folder / "memory.usage_in_bytes", 80 * MIB)
    caches = stat(inactive_file=1, total_inactive_file=10 * MIB, total_active_file=5 * MIB)
    node.tell(folder / "memory.stat", caches + "\n" + stat(shmem=1, total_shmem=7 * MIB))
    assert (node.room, node.room_beside(10 * MIB)) == (35 * MIB, 32 * MIB)


@pytest.mark.parametrize(
    ("limit", "used", "left"), [(103, 80, 23), (100, 80, 20), (100, 85, 15), (1000, 80, 25)], ids=str
)
def test_there_memory_and_swap_have_a_limit_together(node: Node, limit: int, used: int, left: int) -> None:
    node.own("4:memory:/")
    node.tell(node.proc / "meminfo", f"SwapFree: {5 * 1024} kB")
    folder = node.cgroups / "memory"
    for name, most, now in (("", 100, 80), (".memsw", limit, used)):
        node.tell(folder / f"memory{name}.limit_in_bytes", most * MIB)
        node.tell(folder / f"memory{name}.usage_in_bytes", now * MIB)
    node.tell(folder / "memory.stat", stat(total_inactive_file=0))
    assert node.room == left * MIB


@pytest.mark.parametrize("text", ["", "nonsense", "0::/", "4:memory:/", "0::/../.."])
def test_what_cannot_be_read_limits_nothing(node: Node, text: str) -> None:
    assert node.room is None
    node.own(text)
    node.second(current="?", stat="?")
    assert node.room is None


@pytest.mark.parametrize(
    ("left", "granted"), [(None, True), (1000 * MIB, False), (1004 * MIB, False), (1008 * MIB, True)]
)
def test_what_the_kernel_needs_to_keep_the_pages_fits_too(left: int | None, granted: bool) -> None:
    """It kills who takes the whole room, or all of it but a 256th."""
    assert fits(1000 * MIB, left) is granted
