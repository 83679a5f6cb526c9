"""Images of the tree as it is, built before if they are not there; skipped where nothing builds images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.images import BuildFailed, Images, NoBuilder, ensure
from cluster.node import Node


@pytest.fixture(scope="session")
def images() -> Images:
    """Both."""
    try:
        return ensure()
    except NoBuilder as why:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(why))
    except BuildFailed as why:
        pytest.fail(str(why))


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
