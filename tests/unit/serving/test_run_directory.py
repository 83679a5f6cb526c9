"""Where `modelparams serve` has its plaintext, and what becomes of it when a run is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelparams.errors import UsageError
from modelparams_serving.run_directory import run_directory

KILLED = """
import os, signal, sys
from pathlib import Path
from modelparams_serving.run_directory import run_directory
with run_directory(Path(sys.argv[1]), print) as directory:
    (directory / "arena-a").write_text("plaintext")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_goes_at_the_next_and_is_told(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    told: list[str] = []
    with run_directory(tmp_path, told.append) as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert told == [f"{left} of a run that was killed is removed"]
    assert not list(tmp_path.iterdir())


def test_a_run_beside_it_and_what_is_no_run_s_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "modelparams-of-another-program").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").touch()
    (tmp_path / "modelparams-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "modelparams-with-another-s-lock").mkdir()
    (tmp_path / "modelparams-with-another-s-lock" / "lock").symlink_to(tmp_path / "elsewhere" / "lock")
    told: list[str] = []
    with run_directory(tmp_path, told.append) as first, run_directory(tmp_path, told.append) as second:
        assert first.exists()
        assert second.exists()
        assert first.parent == second.parent == tmp_path
    assert told == [], "and nothing is said to be removed"
    assert {path.name for path in tmp_path.iterdir()} == {
        "modelparams-of-another-program",
        "modelparams-with-another-s-lock",
        "modelparams-link",
        "elsewhere",
    }
    assert (tmp_path / "elsewhere" / "lock").exists()


def test_what_another_user_s_killed_run_left_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)
    with run_directory(tmp_path, print):
        assert (left / "arena-a").exists()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"none cannot be used \(No such file"),
        run_directory(tmp_path / "none", print),
    ):
        pass
