"""The images' locks are parts of the one that everything else is tested with, and hold all that the images need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("operator/requirements.lock", "serving/requirements.lock", "serving/torch.lock")
TORCH = re.compile(r"torch|triton|nvidia-|cuda-")


def pins(lock: str) -> dict[str, str]:
    """Each `name==version ; marker` of a lock with its hashes."""
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    return {entry.split("\n")[0].rstrip("\\ "): entry for entry in entries}


def names(lock: str) -> set[str]:
    return {pin.partition("==")[0] for pin in pins(lock)}


def declared(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"][extra]]
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in listed}


@pytest.mark.parametrize("lock", LOCKS)
def test_an_images_lock_has_the_versions_and_hashes_of_the_whole_one(lock: str) -> None:
    whole, part = pins("requirements.lock"), pins(lock)
    # What only one part needs may be asked for under fewer conditions there.
    bare = {pin.partition(" ;")[0]: entry.partition("\n")[2] for pin, entry in whole.items()}
    assert {pin: entry.partition("\n")[2] for pin, entry in part.items()} == {
        pin: bare[pin.partition(" ;")[0]] for pin in part
    }
    assert all("--hash=sha256:" in entry for entry in part.values())


def test_the_locks_hold_all_that_is_declared_for_an_image() -> None:
    assert declared("operator") - names("operator/requirements.lock") == set()
    assert declared("serving") - names("serving/requirements.lock") - names("serving/torch.lock") == set()


def test_torch_and_what_only_it_needs_are_in_the_lock_of_their_own_alone() -> None:
    assert "torch" in names("serving/torch.lock")
    others = names("operator/requirements.lock") | names("serving/requirements.lock")
    assert {name for name in others if TORCH.match(name)} == set()
