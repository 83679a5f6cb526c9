"""`python -m demo`: play the story, write `build/demo/report.json`, exit non-zero when a promise was broken."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from demo.report import Report
from demo.scene import ROOT, NotReached, scene
from demo.story import Story
from models import smollm2

_BUILD = ROOT / "build" / "demo"
_PODS = 3


class AlreadyRuns(RuntimeError):
    """Two demos at once would clear each other's files away."""


def main() -> int:
    """Play it, alone, and say in a line what ended it."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        with _alone(_BUILD / "lock"):
            return _play(console)
    except AlreadyRuns as error:
        console.print(str(error))
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: all that was started has ended")
        return 130


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """The kernel lets go of the lock when this process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRuns(f"a demo runs here already, as process {file.read()}: wait for it, or end it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _play(console: Console) -> int:
    report, start = Report(pods=_PODS), time.monotonic()
    trouble: list[str] = []
    versions = {"1.0.0": smollm2.base(), "1.1.0": smollm2.pirate(), "1.2.0": smollm2.rome()}
    try:
        with scene(_BUILD / "work", _PODS, console.print) as play:
            Story(play, console, report, versions).play()
    except NotReached as error:
        trouble.append(str(error))
    report.seconds = time.monotonic() - start
    return _conclude(console, report, trouble, _BUILD / "report.json")


def _conclude(console: Console, report: Report, trouble: list[str], file: Path) -> int:
    report.write(file)
    report.show(console)
    trouble += report.broken_promises()
    for line in trouble:
        console.print(f"[red]not as promised:[/] {line}")
    console.print(f"report: {file.relative_to(ROOT)}; logs: {_BUILD.relative_to(ROOT)}/work")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
