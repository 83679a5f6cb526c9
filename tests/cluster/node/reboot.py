"""What a power cut does to a node: every container and everything in memory is gone; its disk is not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from cluster.node.world import run
from cluster.process import wait_until

_RUN = Path("/run")
_SECONDS = 20.0


def power_cut(volumes: Path) -> None:
    """End all pods, and clear what a reboot clears. kubelet, containerd and kube-proxy have been killed before.

    Args:
        volumes: kubelet's folder; what is mounted in it is a pod's.

    Raises:
        TimeoutError: a container lives on.
        RuntimeError: a mount or rule could not be removed.
    """
    wait_until(_kill_pods, "all containers to end", seconds=_SECONDS)
    for mount in _mounts_below(volumes, _RUN):
        run(["umount", "--lazy", mount])
    for path in _RUN.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(["nft", "flush", "ruleset"])


def _kill_pods() -> bool:
    """True when there was nothing to kill."""
    victims = set(_containers()) | set(_shims())
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not victims


def _containers() -> Iterator[int]:
    for file in Path("/sys/fs/cgroup").glob("**/kubepods/**/cgroup.procs"):
        with contextlib.suppress(OSError):  # gone meanwhile
            yield from map(int, file.read_text().split())


def _shims() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().startswith("containerd-shim"):
                yield int(entry.name)


def _mounts_below(*folders: Path) -> list[str]:
    """Innermost first."""
    paths = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [path for path in reversed(paths) if any(folder in Path(path).parents for folder in folders)]
