"""kstatus, by which Flux, Helm and `kubectl wait`-like tools judge any object: its rules for custom resources.

As in kubernetes-sigs/cli-utils, pkg/kstatus/status (generic.go, status.go). tests/integration/test_verdicts.py holds it
to that code itself, on every state that the planner writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class KStatus(StrEnum):
    """What a tool concludes."""

    TERMINATING = "Terminating"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"


_BY_CONDITION = {"Reconciling": KStatus.IN_PROGRESS, "Stalled": KStatus.FAILED}


def kstatus(subject: Mapping[str, Any]) -> KStatus:
    """Judge an object as JSON gives it.

    1. It is being deleted: Terminating.
    2. `status.observedGeneration` is there and not `metadata.generation`: InProgress.
    3. `Reconciling` is True: InProgress.
    4. `Stalled` is True: Failed. Of the two, the one that stands first in the list counts.
    5. `Ready` is there and not True: InProgress; never Failed.
    6. Otherwise: Current.
    """
    metadata, status = subject.get("metadata", {}), subject.get("status", {})
    if metadata.get("deletionTimestamp"):
        return KStatus.TERMINATING
    observed = status.get("observedGeneration")
    if observed is not None and "generation" in metadata and observed != metadata["generation"]:
        return KStatus.IN_PROGRESS
    for condition in status.get("conditions", ()):
        if condition["status"] == "True" and condition["type"] in _BY_CONDITION:
            return _BY_CONDITION[condition["type"]]
    told = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
    return KStatus.CURRENT if told.get("Ready", "True") == "True" else KStatus.IN_PROGRESS


def contradictions(subject: Mapping[str, Any]) -> list[str]:
    """What an object says twice and differently; empty for one that every tool reads the same."""
    told = {c["type"]: c["status"] for c in subject.get("status", {}).get("conditions", ())}
    verdict = kstatus(subject)
    found = []
    if told.get("Reconciling") == "True" and told.get("Stalled") == "True":
        found.append("Reconciling and Stalled at once")
    if told.get("Ready") == "True" and verdict is KStatus.FAILED:
        found.append("Ready and Stalled at once")
    if told.get("Ready") == "True" and told.get("Reconciling") == "True":
        found.append("Ready and Reconciling at once")
    return found
