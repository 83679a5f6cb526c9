"""Progress on stderr: bars in a terminal; in a log a line as a task begins, and now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as RichProgress

from modelparams.cli.output import console, note, size
from modelparams.progress import Progress

_EVERY_SECONDS = 5.0


@contextmanager
def reporting() -> Iterator[Progress]:
    """What to hand to long work."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console(stderr=True), transient=True) as bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars: RichProgress) -> None:
        self._bars, self._tasks = bars, dict[str, TaskID]()

    def start(self, task: str, total: int) -> None:
        """See `Progress`."""
        self._tasks[task] = self._bars.add_task(task, total=total)

    def advance(self, task: str, n: int) -> None:
        """See `Progress`."""
        self._bars.advance(self._tasks[task], n)


class _Lines:
    def __init__(self) -> None:
        self._lock, self._told = threading.Lock(), time.monotonic()
        self._done, self._total = dict[str, int](), dict[str, int]()

    def start(self, task: str, total: int) -> None:
        """See `Progress`."""
        with self._lock:
            self._done[task], self._total[task], self._told = 0, total, time.monotonic()
        note(f"{task}: {size(total)} to do")

    def advance(self, task: str, n: int) -> None:
        """See `Progress`."""
        with self._lock:
            self._done[task] += n
            done, total = self._done[task], self._total[task]
            due = time.monotonic() - self._told >= _EVERY_SECONDS
            if due:
                self._told = time.monotonic()
        if due:
            note(f"{task}: {size(done)} of {size(total)}")
