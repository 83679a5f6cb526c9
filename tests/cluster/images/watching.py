"""A long command that says now and then what it is at."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence

from cluster.tools.build import Progress

_TICK_SECONDS, _SHOWN = 0.5, 80


def watched(command: Sequence[str], environment: Mapping[str, str], progress: Progress) -> tuple[int, list[str]]:
    """Run it to its end, showing the last line that it wrote; its exit code and all lines."""
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                reader.join(_TICK_SECONDS)
                progress.show(lines[-1][:_SHOWN] if lines else "")
        except BaseException:
            child.terminate()
            raise
        return child.wait(), lines


def _read(child: subprocess.Popen[str], lines: list[str]) -> None:
    assert child.stdout is not None
    for text in child.stdout:
        if line := text.strip():
            lines.append(line)  # noqa: PERF401 - seen at once by the other thread
