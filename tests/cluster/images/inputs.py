"""What an image is made of, and its name: the same inputs make the same name, and are built once."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
TARGETS = ("operator", "serving")

_EVERY = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml", "requirements-setup.lock")
_SOURCES = ("operator/src", "params/src", "serving/src")
_LOCKS = {"operator": ("operator/requirements.lock",), "serving": ("serving/requirements.lock", "serving/torch.lock")}


def version() -> str:
    """Of the project, and so the tag that the chart asks for."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def reference(target: str) -> str:
    """The full name of a released image, as a node knows it."""
    return f"docker.io/modelparams/{target}:{version()}"


def short(name: str) -> str:
    """A name as people write it.

    >>> short("docker.io/modelparams/operator:1")
    'modelparams/operator:1'
    """
    return name.removeprefix("docker.io/")


def inputs_sum(target: str, *more: str, root: Path = ROOT) -> str:
    """Sixteen digits for all that decides what is in an image.

    Args:
        target: of the Dockerfile.
        more: what is not in the tree, such as the base.
        root: of the tree.
    """
    total = hashlib.sha256("\0".join(more).encode())
    for path in files(root, (*_EVERY, *_LOCKS[target], *_SOURCES)):
        total.update(f"\0{path.relative_to(root)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def files(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Those that a build may see of these files and folders, in one order."""
    for name in names:
        path = root / name
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
        else:
            yield path
