"""What each part imports is declared where it is installed from, and nothing else is."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"modelparams", "modelparams_operator", "modelparams_serving"}
OF_OTHERS = {"serving": {"psutil"}}
"""What a library imports by itself where it is there; pyproject.toml says what for."""
PARTS = {"params/src": None, "operator/src": "operator", "serving/src": "serving"}


def imported(source: Path) -> Iterator[str]:
    """The top names that one file imports, wherever in it."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


@lru_cache
def distributions() -> dict[str, str]:
    return {name: normal(found[0]) for name, found in packages_distributions().items()}


def third_party(folder: str) -> set[str]:
    """The distributions that a part's files import from."""
    names = {name for file in (ROOT / folder).rglob("*.py") for name in imported(file)}
    return {distributions()[name] for name in names - sys.stdlib_module_names - OURS}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str | None) -> set[str]:
    """What pyproject.toml names for an extra; for None, what everyone gets."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in listed}


@pytest.mark.parametrize(("folder", "extra"), PARTS.items())
def test_whatever_a_part_imports_is_declared_for_it(folder: str, extra: str | None) -> None:
    assert third_party(folder) - declared(None) - declared(extra) == set()


@pytest.mark.parametrize(("folder", "extra"), PARTS.items())
def test_whatever_is_declared_for_a_part_is_imported_by_it(folder: str, extra: str | None) -> None:
    assert declared(extra) - third_party(folder) == OF_OTHERS.get(extra or "", set())


def test_a_part_repeats_nothing_that_everyone_gets() -> None:
    assert declared(None) & (declared("operator") | declared("serving")) == set()
