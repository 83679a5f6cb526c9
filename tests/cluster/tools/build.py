"""Build what is missing, and say what it is doing: a cold kube-apiserver takes five minutes on two cores."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from cluster.tools import golang
from cluster.tools.recipes import ARGUMENTS, ENVIRONMENT, HERE, RECIPES, Recipe, cache_folder, cached

_TICK_SECONDS, _LOG_EVERY_SECONDS = 0.5, 15.0


class BuildFailed(RuntimeError):
    """The Go command failed; the message holds the end of what it wrote."""


class Progress:
    """One line a program: rewritten in place on a terminal, repeated now and then in a log."""

    def __init__(self, name: str, out: TextIO) -> None:
        self._name, self._out = name, out
        self._begin = self._said = time.monotonic()
        self._live = out.isatty()

    def show(self, doing: str) -> None:
        """Say what it waits for."""
        now = time.monotonic()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print("\r\x1b[K" + self._line(doing)[:width], end="", file=self._out, flush=True)
        elif now - self._said >= _LOG_EVERY_SECONDS:
            self._said = now
            print(self._line(doing), file=self._out, flush=True)

    def end(self, what: str) -> None:
        """Say how it ended."""
        print(("\r\x1b[K" if self._live else "") + self._line(what), file=self._out, flush=True)

    def _line(self, text: str) -> str:
        return f"{self._name:24} {time.monotonic() - self._begin:5.0f} s  {text}"


def build_all(names: Sequence[str], out: TextIO = sys.stderr) -> list[Path]:
    """Build each program that is not in the cache yet.

    Raises:
        BuildFailed: one did not build.
    """
    missing = [name for name in names if not cached(RECIPES[name]).exists()]
    if missing:
        minutes = sum(RECIPES[name].minutes for name in missing)
        print(f"building {', '.join(missing)} into {cache_folder()}", file=out)
        print(
            f"the first time takes about {minutes:.0f} minutes on two idle cores and 6 GB of Go's caches",
            file=out,
            flush=True,
        )
    return [build(RECIPES[name], out) for name in names]


def build(recipe: Recipe, out: TextIO = sys.stderr) -> Path:
    """Build one program unless the cache has it; two runs at once build it once.

    Raises:
        BuildFailed: the Go command failed.
    """
    target = cached(recipe)
    if target.exists():
        return target
    progress = Progress(recipe.name, out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / "lock", progress):
        if not target.exists():
            draft = target.with_suffix(".draft")
            _compile(recipe, draft, progress)
            draft.rename(target)
    progress.end(f"ready, {target.stat().st_size / 1e6:.0f} MB")
    return target


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress.show("waiting for another run that builds the same")
                time.sleep(_TICK_SECONDS)
        yield


def _compile(recipe: Recipe, draft: Path, progress: Progress) -> None:
    progress.show(f"taking Go {golang.version()}")
    go = golang.program(cache_folder())
    command: list[str | Path] = [
        "nice",
        go,
        "build",
        *ARGUMENTS,
        "-v",
        "-ldflags",
        recipe.ldflags,
        "-o",
        draft,
        recipe.package,
    ]
    lines = _run(command, HERE / recipe.module, progress)
    if lines is not None:
        raise BuildFailed(f"{recipe.name} did not build:\n" + "\n".join(lines[-20:]))


def _run(command: Sequence[str | Path], folder: Path, progress: Progress) -> list[str] | None:
    """Run it to its end, showing what it does; its output if it failed."""
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(os.environ) | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_pump, args=(child, seen), daemon=True)
    reader.start()
    lines: list[str] = []
    try:
        while child.poll() is None or not seen.empty():
            with contextlib.suppress(queue.Empty):
                lines.append(seen.get(timeout=_TICK_SECONDS))
            progress.show(describe(lines))
    finally:
        child.kill()
        reader.join()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    return lines if child.returncode else None


def _pump(child: subprocess.Popen[str], seen: queue.Queue[str]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        seen.put(line.rstrip())


def describe(lines: Sequence[str]) -> str:
    """What Go is at, from what `go build -v` has printed: downloads, and one package path a line.

    >>> describe([])
    'reading modules and the build cache'
    >>> describe(["go: downloading k8s.io/api v0.36.3"])
    'downloading k8s.io/api'
    >>> describe(["go: downloading k8s.io/api v0.36.3", "internal/abi", "crypto/tls"])
    'compiled 2 packages, at crypto/tls'
    """
    packages = [line for line in lines if line and not line.startswith("go: ")]
    if packages:
        return f"compiled {len(packages)} packages, at {packages[-1]}"
    downloads = [found[1] for line in lines if (found := re.match(r"go: downloading (\S+)", line))]
    return f"downloading {downloads[-1]}" if downloads else "reading modules and the build cache"
