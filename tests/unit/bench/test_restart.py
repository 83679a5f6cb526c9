"""What the bench makes of its rounds on a node, and of a machine where none can run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import bench.__main__ as program
import bench.planner
from bench.report import Figure, LeftOut
from bench.restart import Change, failures, judged


def test_the_ratio_is_the_median_of_the_rounds_own() -> None:
    rounds = [
        (Change(4.0, 4, 0), Change(80.0, 80, 0)),
        (Change(5.0, 5, 0), Change(60.0, 60, 0)),
        (Change(10.0, 10, 0, fetched=18_000_000), Change(50.0, 50, 0)),
    ]
    faster = judged("a fine-tune", rounds)
    assert (faster.value, faster.ok) == (12.0, True)
    assert "18 MB fetched by each pod" in faster.how


def test_requests_that_fail_beside_our_rollout_miss_the_reach_and_those_beside_the_restart_are_told() -> None:
    failed = failures([(Change(5.0, 10, 1), Change(50.0, 100, 7))])
    assert (failed.value, failed.ok) == (1, False)
    assert "of 10" in failed.how
    assert "7 of 100 during the restarts" in failed.how


def test_a_part_that_cannot_be_measured_here_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(folder: Path) -> Iterator[Figure]:
        raise LeftOut("it needs Linux")
        yield

    monkeypatch.setattr(bench.planner, "figures", impossible)
    said = io.StringIO()
    assert list(program._figures(["planner"], Console(file=said))) == []
    assert "left out: planner: it needs Linux" in said.getvalue()
