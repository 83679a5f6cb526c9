"""Where the cluster's programs come from."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import pytest

from cluster.tools import ToolMissing, binary
from cluster.tools.build import Progress, build, describe
from cluster.tools.recipes import DEFAULT, HERE, RECIPES, cached, inputs_sum


@pytest.fixture
def nothing_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with an empty cache and no tool on PATH but Go."""
    inputs_sum(RECIPES["etcd"])  # asks Go for its version, which is remembered
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def _program(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_missing_program_says_how_to_get_it(nothing_anywhere: Path) -> None:
    with pytest.raises(ToolMissing, match="make tools"):
        binary("etcd")


def test_a_given_folder_comes_before_the_cache_and_the_cache_before_path(
    nothing_anywhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = _program(nothing_anywhere / "bin" / "etcd")
    assert binary("etcd") == on_path
    built = _program(cached(RECIPES["etcd"]))
    assert binary("etcd") == built
    given = _program(nothing_anywhere / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    assert binary("etcd") == given


def test_a_folder_that_lacks_a_program_is_no_obstacle(nothing_anywhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(nothing_anywhere))
    built = _program(cached(RECIPES["etcd"]))
    assert binary("etcd") == built


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_committed_sums_for_its_package(name: str) -> None:
    recipe = RECIPES[name]
    module = (HERE / recipe.module / "go.mod").read_text()
    if recipe.package == "." and "require" not in module:
        return  # our own program, of Go alone
    assert recipe.package == "." or f"\t{recipe.package}\n" in module.replace("tool ", "\t")
    assert (HERE / recipe.module / "go.sum").stat().st_size > 10_000


def test_the_suite_needs_only_what_is_built_by_default() -> None:
    assert set(DEFAULT) == {"versitygw", "etcd", "kube-apiserver", "kube-controller-manager", "helm", "verdict"}


def test_another_flag_gives_another_place() -> None:
    recipe = RECIPES["etcd"]
    assert cached(recipe) != cached(dataclasses.replace(recipe, stamps="-X main.version=2"))


def test_what_is_built_is_not_built_again(nothing_anywhere: Path) -> None:
    built = _program(cached(RECIPES["etcd"]))
    said = io.StringIO()
    assert build(RECIPES["etcd"], said) == built
    assert said.getvalue() == ""


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        pytest.param([], "reading modules and the build cache", id="at-first"),
        pytest.param(["go: downloading k8s.io/api v0.36.3"], "downloading k8s.io/api", id="modules"),
        pytest.param(
            ["go: downloading k8s.io/api v0.36.3", "internal/abi", "crypto/tls"],
            "compiled 2 packages, at crypto/tls",
            id="packages",
        ),
    ],
)
def test_a_build_says_what_it_is_at(lines: list[str], says: str) -> None:
    assert describe(lines) == says


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    out = io.StringIO()
    progress = Progress("etcd", out)
    for _ in range(100):
        progress.show("compiling")
    progress.end("ready")
    assert [line.split(maxsplit=3)[-1] for line in out.getvalue().splitlines()] == ["ready"]
    assert os.linesep not in out.getvalue().rstrip("\n")
