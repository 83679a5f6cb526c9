"""The spec pages beside the CRDs say all that a user can meet."""

from __future__ import annotations

import re

import pytest

from builders import crds, spec_pages
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
