"""The image that ours begin with: one from a registry, or where none answers one made of Debian's packages."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

from cluster.images.builder import Builder, BuildFailed, home
from cluster.images.inputs import ROOT

_PACKAGES = "python3,python3-venv,ca-certificates"
_WITHOUT = tuple(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man"))
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


def default() -> str:
    """The Dockerfile's own."""
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found, "the Dockerfile names no BASE"
    return found[1]


def find(builder: Builder, wanted: str | None, out: TextIO = sys.stderr) -> str:
    """The name of an image that is there for this builder.

    Args:
        builder: that is to use it.
        wanted: take this one.
        out: where it says what it does.

    Raises:
        BuildFailed: the wanted one cannot be had, or none can be made.
    """
    if wanted:
        if not builder.has(wanted):
            builder.pull(wanted)
        return wanted
    if builder.has(default()) or builder.has(made := name()):
        return default() if builder.has(default()) else made
    try:
        builder.pull(default())
    except BuildFailed:
        print(f"no registry gives {default()}: making a base of Debian's packages", file=out, flush=True)
        make(builder, made, out)
        return made
    return default()


def name() -> str:
    """Of the one that is made here, after what it is made of."""
    made_of = "\n".join([_release(), _PACKAGES, *_WITHOUT])
    return f"localhost/modelparams/base:{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def make(builder: Builder, image: str, out: TextIO = sys.stderr) -> None:
    """Make it from the machine's own Debian sources.

    Raises:
        BuildFailed: mmdebstrap is not there, or failed.
    """
    begin = time.monotonic()
    folder = home() / "base"
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root.tar"
    sources = [str(path) for path in _SOURCES if path.exists()][:1]
    # fakeroot's kin are not needed: who builds here is root, or mmdebstrap takes a user namespace.
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", *_WITHOUT]
    try:
        done = subprocess.run([*command, _release(), str(root), *sources], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildFailed(f"no base: {default()} is not to be had, and mmdebstrap is not installed") from None
    if done.returncode:
        raise BuildFailed(f"no base: mmdebstrap: {done.stderr.strip()[-2000:]}")
    (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
    builder.run("build", "--tag", image, str(folder))
    print(f"base       {time.monotonic() - begin:5.0f} s  {root.stat().st_size / 1e6:.0f} MB", file=out, flush=True)
    root.unlink()


def _release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\S+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise BuildFailed("no base: /etc/os-release names no Debian release to make one of")
    return found[1]
