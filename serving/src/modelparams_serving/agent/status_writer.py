"""Brings the newest status to the API server, beside the loop: a slow or absent server delays no swap."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from modelparams import errors
from modelparams.api.assignment import AssignmentStatus
from modelparams_serving.agent import metrics
from modelparams_serving.agent.kube import Backoff

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class StatusSink(Protocol):
    """Where a status is written to."""

    async def report(self, uid: str, status: AssignmentStatus) -> None:
        """Write it on the assignment of that UID; raises an APIError."""


class StatusWriter:
    """Writes only what changed, and only the newest."""

    def __init__(self, sink: StatusSink, backoff: Backoff | None = None) -> None:
        self._sink, self._backoff = sink, backoff or Backoff()
        self._wanted: tuple[str, AssignmentStatus] | None = None
        self._written: tuple[str, AssignmentStatus] | None = None
        self._known: AssignmentStatus | None = None
        self._changed = asyncio.Event()

    def offer(self, uid: str, status: AssignmentStatus, *, known: AssignmentStatus) -> None:
        """Ask for `status` on the assignment `uid`, which was last read with the status `known`."""
        if self._written is None or self._written[0] != uid or self._is_undone(known):
            self._written = (uid, known)
        self._known = known
        self._wanted = (uid, status)
        if self._wanted != self._written:
            self._changed.set()

    def _is_undone(self, known: AssignmentStatus) -> bool:
        """Whether it was read anew and is not what we wrote: somebody restored an older one.

        It may be our last but one, told late; then ours is written twice, which changes nothing.
        """
        return known is not self._known and self._written is not None and known.wire() != self._written[1].wire()

    async def run(self) -> None:
        """Write for ever."""
        failures = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = self._wanted
            if wanted is None or wanted == self._written:
                continue
            try:
                await self._sink.report(*wanted)
            except errors.APIError as error:
                metrics.API_FAILURES.labels(error.reason).inc()
                logger.warning("Status not written", reason=error.reason, problem=str(error))
                await asyncio.sleep(self._backoff.pause(failures))
                failures += 1
                self._changed.set()
            else:
                self._written, failures = wanted, 0
