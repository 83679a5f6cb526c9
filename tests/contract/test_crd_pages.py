"""The spec pages beside the CRDs say all that a user can meet."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest

from builders import crds, spec_pages
from builders.doc_blocks import ROOT
from modelparams.api.assignment import PodState
from modelparams.errors import UsageError, every_kind
from modelparams.reasons import Reason

EACH_KIND = pytest.mark.parametrize("plural", crds.PLURALS)
OF_THE_COMMAND_LINE = {
    kind.reason for kind in every_kind() if issubclass(kind, UsageError) and kind.reason is not Reason.INVALID_SPEC
} | {Reason.USAGE}


@EACH_KIND
def test_tables_of_fields_and_reasons_are_those_of_the_crds_and_the_errors(plural: str) -> None:
    text = spec_pages.page(plural).read_text()
    assert text == spec_pages.filled(text, plural), "write them anew: PYTHONPATH=tests python -m builders.spec_pages"


@EACH_KIND
def test_every_page_has_a_table_of_each_part(plural: str) -> None:
    text = spec_pages.page(plural).read_text()
    assert "<!-- spec -->" in text
    assert "<!-- status -->" in text


@pytest.mark.parametrize("reason", sorted(set(Reason) - OF_THE_COMMAND_LINE))
def test_every_reason_is_explained(reason: Reason) -> None:
    assert any(f"`{reason}`" in spec_pages.page(plural).read_text() for plural in crds.PLURALS)


@pytest.mark.parametrize("state", PodState)
def test_every_state_of_a_pod_is_explained(state: PodState) -> None:
    assert f"| `{state}` |" in spec_pages.page("modelparamassignments").read_text()


@EACH_KIND
def test_every_code_word_in_a_page_exists(plural: str) -> None:
    told = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][A-Za-z]+)+)`", spec_pages.page(plural).read_text()))
    enums = {str(v) for p in crds.PLURALS for _, node in crds.nodes(crds.schema(p)) for v in node.get("enum", ())}
    assert told - set(map(str, Reason)) - enums == set()


WORDS = 12
"""Letters and blanks that a text of the code must have to say anything of a message that fits it."""


def pattern(node: ast.AST) -> str:
    """A string as a pattern: what an f-string fills in may be anything."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    fixed = [part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "" for part in parts]
    return "".join(re.escape(text) or ".+" for text in fixed) if len("".join(fixed)) >= WORDS else ""


def texts(tree: ast.AST) -> Iterator[str]:
    """The pattern of each string of a module, f-strings whole."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.JoinedStr, ast.Constant)) and (found := pattern(node)):
            yield found
        if not isinstance(node, ast.JoinedStr):
            yield from texts(node)


@functools.cache
def all_texts() -> tuple[str, ...]:
    files = [file for room in ("operator", "params", "serving") for file in (ROOT / room / "src").rglob("*.py")]
    return tuple(text for file in files for text in texts(ast.parse(file.read_text())))


def is_made_by_code(message: str) -> bool:
    """A text of the code, or an error's with the next step of its kind behind it."""
    steps = {f". {kind.hint[0].upper()}{kind.hint[1:]}." for kind in every_kind()}
    bare = next((message.removesuffix(step) for step in steps if message.endswith(step)), message)
    return any(re.fullmatch(text, bare) for text in all_texts())


@EACH_KIND
def test_every_message_that_a_page_quotes_is_made_by_the_code(plural: str) -> None:
    quoted = re.findall(r"^ +Message: +(.+)$", spec_pages.page(plural).read_text(), flags=re.MULTILINE)
    assert quoted
    assert [message for message in quoted if not is_made_by_code(message)] == []


@pytest.mark.parametrize("message", ["blob 7 of 34 does not hash to its signed digest", "segment 12 of blob 3 is bad"])
def test_a_message_that_no_code_makes_is_found(message: str) -> None:
    assert not is_made_by_code(message)
