"""A program out of one of Debian's packages, for tests that would like to have it: nothing is installed."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from cluster.tools.recipes import cache_folder

_SECONDS = 60


@functools.cache  # where there is no network, it is waited for once
def program(package: str, path: str) -> Path | None:
    """Take `path` out of `package`, once a machine; None where apt-get is not there or does not give it.

    Args:
        package: its name, in the releases that apt-get knows.
        path: of the program inside of it, such as `usr/bin/promtool`.
    """
    kept = cache_folder() / Path(path).name
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f".{kept.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not kept.exists():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                _take_out(package, path, kept)
    return kept if kept.exists() else None


def _take_out(package: str, path: str, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        fetch = ["apt-get", "--quiet", "--option=APT::Sandbox::User=root", "download", package]
        subprocess.run(fetch, cwd=folder, check=True, capture_output=True, timeout=_SECONDS)
        (archive,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True, timeout=_SECONDS)
        shutil.move(Path(folder, path), kept)
