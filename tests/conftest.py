"""For every test: nothing of a run is left behind."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let golden files be written anew, to be read in the diff."""
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the run started, when its main process ends; after a kill of it the guard does the same."""
    if not hasattr(config, "workerinput"):
        from cluster.shared import end_run

        end_run(os.getpid())
