"""What our pages say is there: commands, targets, files. What they show for use is run, here or where `RUN` says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pydantic_settings import BaseSettings

from builders.doc_blocks import ROOT, for_use, pages, the_block
from cluster.tools.recipes import RECIPES
from modelparams.cli import build
from modelparams_operator.settings import Settings as OperatorSettings
from modelparams_serving.agent.settings import AgentSettings
from modelparams_serving.engine.settings import EngineSettings

DOCUMENTED = "tests/integration/operator/test_documented_commands.py"
RUN = {
    ("README.md", "See it run", "sh"): "below: the targets; CI and `make demo` themselves",
    ("README.md", "Publish and apply your own model", "sh"): DOCUMENTED,
    ("README.md", "Publish and apply your own model", "python"): DOCUMENTED,
    ("README.md", "Make a cluster ready", "sh"): DOCUMENTED,
    ("operator/README.md", "The operator", ""): DOCUMENTED,
    ("params/samples/README.md", "A sample repository of parameters", ""): DOCUMENTED,
    ("tests/cluster/README.md", "The test cluster", ""): "below: modules and tools",
    ("tests/cluster/README.md", "A real node", ""): "tests/integration/node/test_world.py",
    ("tests/cluster/images/README.md", "The images", ""): "tests/unit/cluster/test_images.py",
}
PAGES = [str(page.relative_to(ROOT)) for page in pages()]
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def spans(page: str) -> list[str]:
    """What stands between single backticks, outside of blocks."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return INLINE.findall(text)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_whatever_is_shown_for_use_is_run_by_a_test() -> None:
    """What docs/ shows, tests/unit/test_docs_site.py holds to the command line, the chart and the tree."""
    assert sorted(block.place for block in for_use() if not block.page.startswith("docs/")) == sorted(RUN)


@pytest.mark.parametrize("place", [place for place, where in RUN.items() if where == DOCUMENTED])
def test_the_test_that_runs_a_block_takes_it_from_the_page(place: tuple[str, str, str]) -> None:
    page, heading, language = place
    assert f'the_block("{page}", "{heading}", "{language}")' in (ROOT / DOCUMENTED).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_that_a_page_names_is_there(page: str) -> None:
    named = [words.split()[1] for words in spans(page) if words.startswith("make ")]
    assert {name for name in named if not name.isupper()} <= targets()


def test_the_targets_of_the_first_page_would_run() -> None:
    lines = the_block("README.md", "See it run", "sh").splitlines()
    for line in lines:
        command = line.partition("#")[0].split()
        assert command[:1] == ["make"], line
        done = subprocess.run([*command, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_test_cluster_s_commands_are_there() -> None:
    first, *others = the_block("tests/cluster/README.md", "The test cluster", "").splitlines()
    assert first.split()[:2] == ["make", "tools"]
    assert len(others) == 3
    for line in others:
        path, python, *arguments = line.partition("#")[0].split()
        assert (path, python) == ("PYTHONPATH=tests", ".venv/bin/python")
        understood = subprocess.run(
            [sys.executable, *arguments, "--help"], cwd=ROOT / "tests", capture_output=True, text=True, check=False
        )
        assert understood.returncode == 0, understood.stderr
        assert set(arguments[3:]) <= set(RECIPES)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_is_one(page: str) -> None:
    group = typer.main.get_command(build())
    known = set(group.commands)  # type: ignore[attr-defined]
    named = [words.split()[1] for words in spans(page) if re.match(r"modelparams [a-z]", words)]
    assert set(named) <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_the_map_of_the_rooms_leads_somewhere() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    last, missing = Path(), []
    for span in (span for row in rows for span in INLINE.findall(row)):
        if not re.fullmatch(r"[\w./*-]+[/.][\w*/]*", span):
            continue
        found = list(ROOT.glob(span)) or list(ROOT.joinpath(last).glob(span))
        if found:
            last = Path(span).parent if "/" in span.rstrip("/") else last
        else:
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("operator/README.md", "# The operator", OperatorSettings),
        ("serving/README.md", "# The agent", AgentSettings),
        ("serving/README.md", "# The engine", EngineSettings),
    ],
)
def test_the_table_of_settings_has_each_and_no_other(page: str, heading: str, kind: type[BaseSettings]) -> None:
    _, _, below = (ROOT / page).read_text().partition(f"{heading}\n")
    part = re.split(r"^# ", below, flags=re.MULTILINE)[0]
    first_cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    named = [name for cell in first_cells for name in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(named) == sorted(name.upper() for name in kind.model_fields)


def locked(file: str) -> dict[str, str]:
    """Requirement to its hashes, one string."""
    text = (ROOT / file).read_text().replace("\\\n", "")
    return {line.split()[0]: line for line in text.splitlines() if line}


def test_the_locks_have_hashes_no_addresses_and_do_not_contradict_each_other() -> None:
    setup, rest, docs = (locked(f"requirements{part}.lock") for part in ("-setup", "", "-docs"))
    for line in (*setup.values(), *rest.values(), *docs.values()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line)
        assert "://" not in line
    versions = dict(requirement.split("==") for requirement in rest)
    assert all(versions.get(name, version) == version for name, version in (r.split("==") for r in (*setup, *docs)))


def test_setup_installs_nothing_that_is_not_locked() -> None:
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    (this_project,) = [line for line in installs if " -e ." in line]
    locked_ones = [line for line in installs if line != this_project]
    assert len(locked_ones) == 3
    assert all("--require-hashes" in line and "--no-deps" in line for line in locked_ones)
    assert "--no-deps --no-build-isolation -e ." in this_project
