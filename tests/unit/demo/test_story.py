"""What the demo's last chapter makes of the load's answers."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.console import Console

from builders.arenas import SAMPLES
from demo.report import Report
from demo.story import Story
from traffic.openloop import Answer

pytestmark = pytest.mark.model
VERSIONS = {version: SAMPLES / f"v{version}" for version in ("1.0.0", "1.1.0")}
NO_SCENE = cast("Any", None)
"""To judge, nothing is asked of it."""


def answer(version: str = "", error: str = "", due: float = 0.0, seconds: float = 1.0) -> Answer:
    named = frozenset({version} if version else ())
    return Answer(due=due, ended=due + seconds, pod="a", version=version, versions_named=named, error=error)


def judged(*answers: Answer) -> Report:
    report = Report(pods=1, apply_to_live_s=dict.fromkeys(VERSIONS, 1.0))
    story = Story(NO_SCENE, Console(file=io.StringIO()), report, VERSIONS)
    story._judge(list(answers), (0.0, 1.0), (2.0, 3.0), (4.0, 5.0))
    return report


def test_it_counts_the_answers_of_each_version_and_no_failed_ones() -> None:
    report = judged(answer("1.0.0"), answer("1.0.0"), answer("1.1.0"), answer("1.1.0", error="cut"))
    assert report.answers_of == {"1.0.0": 2, "1.1.0": 1}
    assert (report.sent, report.failed) == (4, 1)


def test_an_answer_counts_where_it_was_due_before_the_rollout_during_it_or_going_back() -> None:
    report = judged(answer(seconds=1.0), answer(due=2.5, seconds=2.0), answer(due=4.5, seconds=3.0), answer(due=3.5))
    assert (report.worst_ms_without_swap, report.worst_ms_with_swap, report.worst_ms_going_back) == (1000, 2000, 3000)
    assert (report.answers_without_swap, report.answers_with_swap) == (1, 1)


def test_a_load_that_met_one_version_only_fails_the_run() -> None:
    assert "no answer of the load names 1.1.0" in list(judged(answer("1.0.0")).broken_promises())


def test_answers_without_tokens_are_counted_as_torn() -> None:
    assert judged(answer("1.0.0"), answer("1.1.0")).torn == 2
