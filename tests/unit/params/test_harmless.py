"""What strangers wrote is shown on a terminal, never obeyed."""

from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelparams.cli.harmless import HarmlessConsole, harmless
from modelparams.cli.output import Notes

HOSTILE = "a\x1b[2Jb\x07\x7f\x9bc\u202ed\u2066\u2028"


def printed(what: object) -> str:
    file = io.StringIO()
    HarmlessConsole(file=file, force_terminal=True, width=200, highlight=False, color_system=None).print(what)
    return file.getvalue()


def steers(text: str) -> bool:
    return any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 or letter in "\u202e\u2066\u2028" for letter in text)


def table(*cells: object) -> Table:
    made = Table(title=HOSTILE, box=None)
    for _ in cells:
        made.add_column(HOSTILE)
    made.add_row(*cells)
    return made


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(HOSTILE, id="a string"),
        pytest.param(Text(HOSTILE, style="bold"), id="a text"),
        pytest.param(Text.assemble(("x", "red"), HOSTILE), id="a text in parts"),
        pytest.param(Group(Padding(Text(HOSTILE), 1), HOSTILE), id="nested"),
        pytest.param(table(HOSTILE, Text(HOSTILE)), id="a table"),
    ],
)
def test_no_word_steers_the_terminal_wherever_it_stands(what: object) -> None:
    shown = printed(what)
    assert r"a\u001b[2Jb" in shown
    assert not any(steers(line) for line in shown.split("\n"))


def test_a_word_is_no_markup() -> None:
    assert printed("[/b][red]x") == "[/b][red]x\n"
    assert "[/b]" in printed(table("[/b]"))


def test_lines_tabs_and_other_scripts_stay() -> None:
    assert harmless("a\tb\nc → ü 参数 مرحبا") == "a\tb\nc → ü 参数 مرحبا"


def test_in_json_it_is_the_same_value() -> None:
    assert json.loads(harmless(json.dumps(HOSTILE, ensure_ascii=False))) == HOSTILE


def test_what_libraries_log_is_shown_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s is passed over", (HOSTILE,), None)
    Notes().handle(record)
    assert not steers(capsys.readouterr().err.rstrip("\n"))
