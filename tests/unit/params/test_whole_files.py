"""Files that are whole or not there, on a disk that becomes full while they are written."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelparams import whole_files
from modelparams.errors import UsageError
from modelparams.hashes import write_hashes
from modelparams.whole_files import replace_file, write_key_file


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes; what would, fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_key_is_whole_or_not_there(tmp_path: Path) -> None:
    with room_for(10), pytest.raises(OSError, match="File too large"):
        write_key_file(tmp_path / "key", b"x" * 100)
    assert list(tmp_path.iterdir()) == []
    write_key_file(tmp_path / "key", b"x" * 100)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_key_file(tmp_path / "key", b"y")
    assert (tmp_path / "key").read_bytes() == b"x" * 100


def killed_while_it_writes(call: str, path: Path) -> None:
    """Do `call` in a process that ends, as by SIGKILL, when the bytes are down and nothing else is done."""
    code = f"""
import os, pathlib, sys
from modelparams import whole_files
path = pathlib.Path(sys.argv[1])
whole_files.os.fsync = lambda _: os._exit(9)
whole_files.{call}
"""
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 9


def test_a_kill_leaves_no_half_key_in_the_way_of_the_next_try(tmp_path: Path) -> None:
    killed_while_it_writes("write_key_file(path, b'x' * 100)", tmp_path / "key")
    assert not (tmp_path / "key").exists()
    write_key_file(tmp_path / "key", b"x" * 100)
    assert (tmp_path / "key").read_bytes() == b"x" * 100


def test_a_kill_leaves_the_old_file_whole(tmp_path: Path) -> None:
    replace_file(tmp_path / "trust.json", "old")
    killed_while_it_writes("replace_file(path, 'new')", tmp_path / "trust.json")
    assert (tmp_path / "trust.json").read_text() == "old"


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole_files.os, "fsync", interrupted)
    for write in (lambda: write_key_file(tmp_path / "key", b"x"), lambda: replace_file(tmp_path / "trust.json", "new")):
        with pytest.raises(KeyboardInterrupt):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_anew_is_as_it_was(tmp_path: Path) -> None:
    replace_file(tmp_path / "trust.json", "old")
    with room_for(10), pytest.raises(OSError, match="File too large"):
        replace_file(tmp_path / "trust.json", "new" * 100)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("trust.json", "old")]


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert ((tmp_path / "real").read_text(), stat.S_IMODE((tmp_path / "real").stat().st_mode)) == ("new", 0o640)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        replace_file(tmp_path / "new", "text")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    read = list[str]()
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    replace_file(pipe, "text")
    reader.join()
    assert (read, pipe.is_fifo()) == (["text"], True)


def test_hashes_that_find_no_room_leave_the_config_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with room_for(10), pytest.raises(UsageError, match=r"config\.json cannot be written"):
        write_hashes(tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 2
