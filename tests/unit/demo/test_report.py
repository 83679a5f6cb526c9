"""The demo's promises: a run that could not have met what it looks for has kept none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from demo.report import Report

KEPT = Report(
    pods=1,
    sent=10,
    failed=0,
    torn=0,
    answers_of={"1.0.0": 6, "1.1.0": 4},
    answers_without_swap=3,
    pause_ms={"a": 0.1},
    bytes_moved={"a": 1},
    apply_to_live_s={"1.0.0": 1.0, "1.1.0": 2.0},
    rollback_s=1.0,
    answers={"1.0.0": "Paris", "1.1.0": "Arr"},
    refused_reason="SealBroken",
    restarts=0,
    same_containers=True,
)


def test_a_run_that_kept_all_has_broken_none() -> None:
    assert list(KEPT.broken_promises()) == []
    assert KEPT.as_json()["ok"] is True


@pytest.mark.parametrize(
    ("named", "unmet"),
    [({"1.0.0": 10}, "1.1.0"), ({"1.1.0": 10}, "1.0.0"), ({}, "1.0.0, 1.1.0"), ({"1.0.0": 9, "1.1.0": 0}, "1.1.0")],
)
def test_a_load_that_did_not_meet_both_versions_has_shown_nothing_of_a_swap(named: dict[str, int], unmet: str) -> None:
    report = replace(KEPT, answers_of=named)
    assert list(report.broken_promises()) == [f"no answer of the load names {unmet}"]
    assert report.as_json()["ok"] is False


@pytest.mark.parametrize(
    "broken",
    [
        {"sent": 0},
        {"answers_without_swap": 0},
        {"failed": 1},
        {"failed": None},
        {"torn": 1},
        {"torn": None},
        {"restarts": 1},
        {"same_containers": False},
        {"pause_ms": {}},
        {"bytes_moved": {}},
        {"answers": {"1.0.0": "Paris", "1.1.0": "Paris"}},
        {"answers": {"1.0.0": "Paris"}},
        {"refused_reason": None},
        {"rollback_s": None},
        {"apply_to_live_s": {"1.0.0": 1.0}},
    ],
    ids=str,
)
def test_each_other_promise_is_told_when_it_is_broken(broken: dict[str, Any]) -> None:
    assert len(list(replace(KEPT, **broken).broken_promises())) == 1
