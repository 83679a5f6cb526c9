"""helm, and a cluster of its own for the chart: its policies hold for all pods of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cluster.control_plane import ControlPlane
from cluster.tools import ToolMissing, binary


@pytest.fixture(scope="session", autouse=True)
def helm_tool() -> None:
    """Skip on a laptop, fail in CI, when it was not built."""
    try:
        binary("helm")
    except ToolMissing as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))


@pytest.fixture(scope="module")
def bare_cluster(control_plane_tools: None) -> Iterator[ControlPlane]:
    """Without our kinds."""
    with ControlPlane(crds=()) as plane:
        yield plane
