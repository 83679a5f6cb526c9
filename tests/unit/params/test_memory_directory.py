"""Plaintext weights go into memory: what a directory lies on is looked up, not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelparams import memory_directory
from modelparams.errors import UsageError
from modelparams.memory_directory import check_in_memory, file_system

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24683652k
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
30 25 0:27 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24683652k
31 27 0:40 /sub /home/a\040b rw,relatime - btrfs /dev/vdb rw,subvol=/sub
32 27 0:50 / /mnt/share rw - nfs4 host:/share rw
33 27 0:60 / /run/ram rw - ramfs none rw
"""


@pytest.mark.parametrize(
    ("device", "directory", "kind"),
    [
        ("0:23", "/dev/shm", "tmpfs"),
        ("0:27", "/dev/shm/mine", "tmpfs"),
        ("254:0", "/dev/shm/../../tmp", "ext4"),
        ("254:0", "/srv", "ext4"),
        ("0:50", "/mnt/share/x", "nfs4"),
        ("0:60", "/run/ram", "ramfs"),
        ("0:99", "/home/a b/c", "btrfs"),
        ("0:99", "/home/other", "ext4"),
        ("0:99", "/dev/shm/x", "an unknown file system"),
    ],
)
def test_what_a_directory_lies_on_is_known_by_its_device(device: str, directory: str, kind: str) -> None:
    assert file_system(device, Path(directory), MOUNTS) == kind


def test_a_directory_of_a_disk_is_refused_with_its_name_what_it_is_and_where_to_go() -> None:
    assert check_in_memory(Path("/dev/shm")) is None
    on_no_memory = Path("/proc/self")
    with pytest.raises(UsageError, match=r"^/proc/self is not in memory: it lies on proc, .*/dev/shm.*medium: Memory"):
        check_in_memory(on_no_memory)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none cannot be used \(No such file or directory\)"):
        check_in_memory(tmp_path / "none")


def test_where_no_mount_is_told_of_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_directory, "_MOUNTS", tmp_path / "none")
    check_in_memory(Path("/proc/self"))
