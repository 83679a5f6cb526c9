"""Tests of a real node are of two kinds: inside of one, and of one from outside. Both need root.

python -m cluster.node exec --fresh -- python -m pytest -m node     # the first
python -m pytest -m node                                            # the second, as root
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.node import InstallFailed, Node, NodeImpossible, debian
from cluster.tools import ToolMissing, binary
from cluster.tools.recipes import NODE as PROGRAMS


@pytest.fixture(scope="session")
def node() -> Node:
    """The node that the tests run inside of."""
    found = Node.inside()
    if found is None:
        pytest.skip("runs inside of a node: python -m cluster.node exec --fresh -- python -m pytest -m node")
    return found


@pytest.fixture(scope="session")
def kubeconfig(node: Node) -> Path:
    """Instead of a control plane without nodes."""
    return node.kubeconfig


@pytest.fixture(scope="session")
def outside() -> None:
    """For a test that starts nodes of its own."""
    if Node.inside():
        pytest.skip("starts nodes of its own, so it runs outside of one")
    try:
        debian.require()
    except NodeImpossible as why:
        pytest.skip(str(why))
    except InstallFailed as why:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(why))
    try:
        for name in PROGRAMS:
            binary(name)
    except ToolMissing as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
