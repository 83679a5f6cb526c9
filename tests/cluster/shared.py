"""One control plane for all workers of a test run.

Whoever comes first starts it, in the name of the run's main process, after whose end the guard sweeps it.
On two cores one shared costs less than one a worker (4 s and 0.45 GB each). Tests that break a control plane
start their own.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from cluster.control_plane import Access
from cluster.state import home_of, home_path, sweep


class StartFailed(RuntimeError):
    """The control plane did not start; the message is what `python -m cluster up` said."""


def control_plane(owner: int) -> Access:
    """Of the run that `owner` is the main process of; started by the first caller.

    Raises:
        StartFailed: it did not start.
    """
    home = home_of(owner)
    note = home / "control-plane.json"
    with (home / "control-plane.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            note.write_text(_start(owner))
    return Access.load(note.read_text())


def _start(owner: int) -> str:
    # A process of its own, so that no worker is the parent of what outlives it.
    command = [sys.executable, "-m", "cluster", "up", "--owner", str(owner)]
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise StartFailed(done.stderr.strip())
    return done.stdout


def end_run(owner: int) -> None:
    """Sweep all that the run started, if anything, now rather than after the owner's end."""
    if (home := home_path(owner)).exists():
        sweep(home)
