"""The helper by which other tests judge objects as Flux and Helm do: each of kstatus's rules."""

from __future__ import annotations

from typing import Any

import pytest

from builders.kstatus import KStatus, contradictions, kstatus

RECONCILING, STALLED = ("Reconciling", "True"), ("Stalled", "True")


def subject(*told: tuple[str, str], generation: int = 2, observed: int | None = 2, **metadata: str) -> dict[str, Any]:
    conditions = [{"type": kind, "status": status} for kind, status in told]
    status = {"conditions": conditions} | ({} if observed is None else {"observedGeneration": observed})
    return {"metadata": {"generation": generation, **metadata}, "status": status}


@pytest.mark.parametrize(
    ("judged", "verdict"),
    [
        (subject(STALLED, deletionTimestamp="2026-11-24T12:00:00Z"), KStatus.TERMINATING),
        (subject(("Ready", "True"), observed=1), KStatus.IN_PROGRESS),
        (subject(observed=-1), KStatus.IN_PROGRESS),
        (subject(STALLED, observed=1), KStatus.IN_PROGRESS),
        (subject(RECONCILING), KStatus.IN_PROGRESS),
        (subject(STALLED), KStatus.FAILED),
        (subject(RECONCILING, STALLED), KStatus.IN_PROGRESS),
        (subject(STALLED, RECONCILING), KStatus.FAILED),
        (subject(("Reconciling", "False"), ("Stalled", "False")), KStatus.CURRENT),
        (subject(("Ready", "False")), KStatus.IN_PROGRESS),
        (subject(("Ready", "Unknown")), KStatus.IN_PROGRESS),
        (subject(("Ready", "True")), KStatus.CURRENT),
        (subject(observed=None), KStatus.CURRENT),
        ({"metadata": {}}, KStatus.CURRENT),
    ],
)
def test_the_first_rule_that_applies_decides(judged: dict[str, Any], verdict: KStatus) -> None:
    assert kstatus(judged) is verdict


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ([("Ready", "True")], 0),
        ([("Ready", "Unknown"), RECONCILING], 0),
        ([("Ready", "False"), STALLED], 0),
        ([RECONCILING, STALLED], 1),
        ([("Ready", "True"), STALLED], 1),
        ([("Ready", "False")], 0),
        ([("Ready", "True"), RECONCILING], 1),
    ],
)
def test_an_object_that_tools_would_read_differently_is_found(told: list[tuple[str, str]], count: int) -> None:
    assert len(contradictions(subject(*told))) == count
