"""What the demo measured, as a table for people and JSON for machines; and what it promised."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_TIERS = {2: "played by processes", 4: "on a real node of this machine", 5: "on the cluster of KUBECONFIG"}


@dataclass
class Report:
    """Filled as the story goes; a field that is still None was not reached."""

    pods: int = 0
    tier: int | None = None
    """2: processes play the pods; 4: a real node of this machine; 5: another cluster."""
    sent: int | None = None
    failed: int | None = None
    torn: int | None = None
    answers_of: dict[str, int] = field(default_factory=dict)
    """Per version: the load's answers that name it."""
    worst_ms: float | None = None
    worst_ms_without_swap: float | None = None
    worst_ms_with_swap: float | None = None
    worst_ms_going_back: float | None = None
    p99_ms_without_swap: float | None = None
    p99_ms_with_swap: float | None = None
    """Of the whole rollout, fetching and opening the version too."""
    answers_without_swap: int = 0
    answers_with_swap: int = 0
    """How many each is of: a p99 of ten is the worst of them."""
    pause_ms: dict[str, float] = field(default_factory=dict)
    """Per pod: time in which no request could start during its last swap."""
    bytes_sealed: dict[str, int] = field(default_factory=dict)
    """Per version: sealed bytes of all its blobs."""
    bytes_moved: dict[str, int] = field(default_factory=dict)
    """Per pod: sealed bytes fetched for the second version; the rest was reused from memory."""
    apply_to_live_s: dict[str, float] = field(default_factory=dict)
    """Per version: from `kubectl apply` until all pods serve it."""
    rollback_s: float | None = None
    """From `kubectl delete` until all pods serve the version before."""
    answers: dict[str, str] = field(default_factory=dict)
    """Per version: the answer to one prompt."""
    refused_reason: str | None = None
    restarts: int | None = None
    """Of all containers."""
    same_containers: bool | None = None
    """Whether each container runs since before the load began."""
    seconds: float | None = None

    def broken_promises(self) -> Iterator[str]:
        """Say each thing that should have happened and did not."""
        if not self.sent:
            yield "no request was sent"
        if not self.answers_without_swap:
            yield "no answer without a swap is there to compare with"
        if self.failed != 0:
            yield f"{self.failed} requests failed"
        if self.torn != 0:
            yield f"{self.torn} answers are torn"
        if unmet := [version for version in self.apply_to_live_s if not self.answers_of.get(version)]:
            yield f"no answer of the load names {', '.join(unmet)}"
        if self.restarts != 0:
            yield f"{self.restarts} containers were restarted"
        if not self.same_containers:
            yield "not every container runs since before the load began"
        if len(self.pause_ms) != self.pods or len(self.bytes_moved) != self.pods:
            yield "not every pod reported its swap"
        if len(set(self.answers.values())) != len(self.answers) or len(self.answers) < 2:
            yield "the two versions do not answer differently"
        if not self.refused_reason:
            yield "the tampered version was not refused"
        if len(self.apply_to_live_s) < 2 or self.rollback_s is None:
            yield "a rollout or the way back did not finish"

    def as_json(self) -> dict[str, Any]:
        """All fields, and whether the promises were kept."""
        return asdict(self) | {"ok": not list(self.broken_promises())}

    def write(self, path: Path) -> None:
        """Save as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="What the demo measured", title_justify="left", show_header=False)
        for name, value in self._rows():
            table.add_row(name, value)
        console.print(table)

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "pods", f"{self.pods}, {_TIERS.get(self.tier or 0, '-')}"
        yield "requests sent / failed / torn", f"{self.sent} / {self.failed} / {self.torn}"
        yield "answers by version", ", ".join(f"{version} {n}" for version, n in sorted(self.answers_of.items()))
        worst = (self.worst_ms_without_swap, self.worst_ms_with_swap, self.worst_ms_going_back)
        told = " / ".join(_ms(one) for one in worst)
        yield "worst request before / during the rollout / going back", f"{told}; of all {_ms(self.worst_ms)}"
        yield "p99 before / during the rollout", self._p99()
        yield "pause per pod", ", ".join(f"{pod} {pause:.3f} ms" for pod, pause in sorted(self.pause_ms.items()))
        for version, seconds in self.apply_to_live_s.items():
            yield f"apply {version} → all {self.pods} pods live", f"{seconds:.1f} s"
        yield "delete → all pods back", "-" if self.rollback_s is None else f"{self.rollback_s:.1f} s"
        for version, size in self.bytes_sealed.items():
            yield f"sealed bytes of {version}", _mb(size)
        yield "bytes moved per pod for the second", ", ".join(_mb(size) for size in self.bytes_moved.values())
        yield "container restarts", f"{self.restarts}; all run since before the load: {_yes(self.same_containers)}"
        yield "tampered version", f"refused: {self.refused_reason}"
        yield "the whole demo", "-" if self.seconds is None else f"{self.seconds:.0f} s"

    def _p99(self) -> str:
        both = f"{_ms(self.p99_ms_without_swap)} / {_ms(self.p99_ms_with_swap)}"
        counts = f"of {self.answers_without_swap} and {self.answers_with_swap} answers"
        return f"{both}, {counts}; all parts share {os.cpu_count()} cores, make bench measures the swap's own part"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
