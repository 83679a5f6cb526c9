"""For every test: nothing of a run is left behind, and properties are tried on the same examples each time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

# The same examples in every run, and no deadline, which only measures what else the machine is doing.
settings.register_profile("steady", deadline=None, derandomize=True)
# To look for new ones: HYPOTHESIS_PROFILE=explore make test
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


_SET_BY_IMPORTS = {
    "HF_HUB_OFFLINE",
    "OMP_WAIT_POLICY",
    "PYTEST_CURRENT_TEST",
    "TOKENIZERS_PARALLELISM",
    "TORCHINDUCTOR_CACHE_DIR",
    "USER",
}
"""Whichever test comes first to the engine's library has it set these, once, for all; the one left is pytest's own."""


@pytest.fixture(autouse=True)
def environment_is_left_as_it_was() -> Iterator[None]:
    """What a test leaves in the environment goes to every process that a later one starts: that is an error."""
    before = _environment()
    yield
    assert _environment() == before, "the test changed os.environ; monkeypatch.setenv puts it back"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _SET_BY_IMPORTS}


@pytest.fixture
def interrupting() -> Iterator[Callable[[], None]]:
    """Raises KeyboardInterrupt in the main thread, as Ctrl-C does, in whatever thread it is called."""

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let golden files be written anew, to be read in the diff."""
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the run started, when its main process ends; after a kill of it the guard does the same."""
    if not hasattr(config, "workerinput"):
        from cluster.shared import end_run

        end_run(os.getpid())
