"""For every test: nothing of a run is left behind."""

from __future__ import annotations

import os

import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the run started, when its main process ends; after a kill of it the guard does the same."""
    if not hasattr(config, "workerinput"):
        from cluster.shared import end_run

        end_run(os.getpid())
