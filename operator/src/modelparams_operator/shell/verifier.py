"""Checks of whole versions beside the loops: few at once, each tried again by itself, none twice.

What was found is remembered in the version's status by its digest; here is only what is under way or failed.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.digest import Digest
from modelparams.errors import ModelParamsError
from modelparams.failure import Failure, classify
from modelparams.reasons import Reason
from modelparams_operator.shell import metrics
from modelparams_operator.shell.backoff import Backoff
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.ports import ModelKey

Stopped = Callable[[], bool]
Check = Callable[[str, VersionSpec, Stopped], Awaitable[VerifiedFacts]]
"""(namespace, spec, stopped) → what was found; raises modelparams.errors, is cancelled when `stopped` turned true."""

_RETRY_LAST = 300.0


class Subject(NamedTuple):
    """The bytes that a check is about: the same object with another digest or place is another subject.

    So is one that was made again under its name: that is how people ask for another check.
    """

    model: ModelKey
    name: str
    uid: str
    digest: Digest
    place: str


@dataclass(slots=True)
class _Work:
    task: asyncio.Task[None]
    found: VerifiedFacts | None = None
    failure: Failure | None = None
    stopped: bool = False
    begun: bool = False


@dataclass
class Verifier:
    """Runs the checks that the loops ask for, and keeps their outcome.

    Args:
        check: reads one version; must be quick to stop.
        at_once: versions that are read at the same time, of one namespace one fewer: a store that never ends holds up
            its own namespace alone. Those that wait for a retry do not count; those that were stopped do, until the
            thread that reads has ended: it may take as long as a slow store is given.
        done: told the model whose version has news.
    """

    check: Check
    at_once: int
    done: Callable[[ModelKey], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _work: dict[Subject, _Work] = field(default_factory=dict)
    _checking: set[asyncio.Task[Failure | None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.at_once)
        self._shares = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(max(1, self.at_once - 1)))

    def request(self, namespace: str, name: str, uid: str, spec: VersionSpec) -> None:
        """Begin a check unless one of these very bytes is under way, waits for its retry, or ended."""
        subject = subject_of(namespace, name, uid, spec)
        if subject not in self._work:
            self._work[subject] = _Work(
                asyncio.create_task(self._run(subject, spec), name=f"verify {namespace}/{name}")
            )

    def outcome(
        self, namespace: str, name: str, uid: str, spec: VersionSpec
    ) -> tuple[VerifiedFacts | None, Failure | None]:
        """What the last check of these bytes found, or why it failed; neither before it has ended."""
        work = self._work.get(subject_of(namespace, name, uid, spec))
        return (work.found, work.failure) if work else (None, None)

    def keep_only(self, key: ModelKey, current: set[Subject]) -> None:
        """Stop and forget what is about objects of the model that are gone or were replaced."""
        for subject in [s for s in self._work if s.model == key and s not in current]:
            work = self._work.pop(subject)
            work.stopped = True
            work.task.cancel()

    def judge_anew(self) -> None:
        """Forget what another trust policy may see otherwise: refusals for their signatures, and what has not ended.

        What was verified holds for its digest for ever; whoever takes a signer's key out withdraws its versions too.
        """
        for subject, work in list(self._work.items()):
            if work.found is None and (work.failure is None or _is_open(work.failure)):
                del self._work[subject]
                work.stopped = True
                work.task.cancel()
                self.done(subject.model)

    async def stop(self) -> None:
        """End everything within moments; threads stop at their next piece."""
        for work in self._work.values():
            work.stopped = True
        tasks = [*(work.task for work in self._work.values()), *self._checking]
        for task in tasks:
            task.cancel()
        self._work.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, subject: Subject, spec: VersionSpec) -> None:
        before, backoff = None, Backoff(first=0, last=0)
        while True:
            failure = await self._try(subject, spec)
            if failure is None or failure.retry_after is None:
                return
            if failure.reason is not before:  # another trouble is a new beginning
                before, backoff = failure.reason, Backoff(failure.retry_after.total_seconds(), _RETRY_LAST)
            await self.sleep(backoff.next())

    async def _try(self, subject: Subject, spec: VersionSpec) -> Failure | None:
        """In a task of its own, which outlives the one that asks: a thread cannot be cancelled, only asked to stop."""
        await asyncio.sleep(0)  # lets request() record the task before it can end
        work = self._work[subject]
        checking = asyncio.create_task(self._in_its_place(work, subject, spec))
        self._checking.add(checking)
        checking.add_done_callback(self._checking.discard)
        try:
            return await asyncio.shield(checking)
        except asyncio.CancelledError:
            if not work.begun:
                checking.cancel()
            raise

    async def _in_its_place(self, work: _Work, subject: Subject, spec: VersionSpec) -> Failure | None:
        async with self._shares[subject.model.namespace], self._slots:
            work.begun = True
            started, log = time.monotonic(), logger.bind(namespace=subject.model.namespace, name=subject.name)
            log.info("Verifying", digest=str(subject.digest))
            with metrics.VERIFYING.track_inprogress():
                try:
                    work.found, work.failure = (
                        await self.check(subject.model.namespace, spec, lambda: work.stopped),
                        None,
                    )
                except Exception as error:  # the boundary: whatever it is becomes a condition
                    if not isinstance(error, ModelParamsError):
                        log.exception("Unforeseen error")
                    work.failure = classify(error)
        if not work.stopped:
            _tell(log, work.failure, time.monotonic() - started)
            self.done(subject.model)
        return work.failure


def _is_open(failure: Failure) -> bool:
    of_trust = (Reason.SIGNER_UNKNOWN, Reason.SIGNATURE_INVALID, Reason.TOO_FEW_SIGNATURES)
    return not failure.is_final or failure.reason in of_trust


def _tell(log: structlog.stdlib.BoundLogger, failure: Failure | None, seconds: float) -> None:
    reason = failure.reason if failure else Reason.VERIFIED
    metrics.VERIFY_SECONDS.labels(reason=reason).observe(seconds)
    if failure is None:
        log.info("Verified", reason=reason, seconds=round(seconds, 2))
    else:
        log.warning("Verification failed", reason=reason, problem=failure.message, seconds=round(seconds, 2))


def subject_of(namespace: str, name: str, uid: str, spec: VersionSpec) -> Subject:
    """What makes a check another one: the bytes asked for, and where they are said to be."""
    model = ModelKey(namespace, str(spec.model_name))
    return Subject(model, name, uid, spec.manifest_digest, spec.source.model_dump_json())
