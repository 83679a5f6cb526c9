"""A directory that is made once per recipe: half-made ones never count."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

_INPUTS = ("torch", "transformers", "safetensors")


def cached(name: str, recipe: Path, make: Callable[[Path], None], *, packages: tuple[str, ...]) -> Path:
    """Give `<cache>/<name>-<sum of the recipe and its packages' versions>/`, making it when it is not there."""
    text = recipe.read_text() + "".join(f"{p}=={version(p)}\n" for p in (*_INPUTS, *packages))
    target = _root() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with _locked(target.with_suffix(".lock")):
        if not target.exists():
            _say(f"making {name} (once; it is kept in {target})")
            started, half = time.monotonic(), target.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            make(half)
            half.rename(target)
            _say(f"made {name} in {time.monotonic() - started:.0f} s")
    return target


def _root() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    (path := home / "modelparams" / "models").mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"models: {text}", file=sys.stderr, flush=True)
