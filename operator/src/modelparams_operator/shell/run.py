"""From settings to a running operator and back to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from modelparams import errors
from modelparams.api import MODEL_LABEL
from modelparams_operator import handlers
from modelparams_operator.core.fleet import ANSWERED_TERM_MAX
from modelparams_operator.settings import Settings
from modelparams_operator.shell import metrics, views
from modelparams_operator.shell.backoff import Backoff
from modelparams_operator.shell.check import Checker
from modelparams_operator.shell.events import EventRecorder
from modelparams_operator.shell.health import Health
from modelparams_operator.shell.kube import Kube, require_kind
from modelparams_operator.shell.lease import Lease, LeaseLost, Timing
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.loops import Loops
from modelparams_operator.shell.ports import (
    ASSIGNMENTS,
    JSON,
    PODS,
    ROLLOUTS,
    VERSIONS,
    KubernetesAPI,
    ModelKey,
    ObjectKey,
    pages,
)
from modelparams_operator.shell.reconcile import Reconciler
from modelparams_operator.shell.record import Recorder
from modelparams_operator.shell.trusted import TrustFile
from modelparams_operator.shell.verifier import Verifier
from modelparams_operator.shell.views import Assignment, Pod
from modelparams_operator.shell.watch import Mirror, Mirrors

T = TypeVar("T")
_LOST = 3
"""The exit code when another operator may have taken over."""


async def operate(settings: Settings) -> int:
    """Run until a signal; return the exit code: 0, or 1 when kopf gave up a watch and the process is to begin anew.

    Raises:
        UsageError: the trust policy, the way to the API server or the address for metrics cannot be used.
        APIMissing: the CRDs are not installed.
    """
    trust = TrustFile(settings.trust)
    stop, health = asyncio.Event(), Health()
    _on_signals(stop.set)  # first: whoever reads that probes are served may end it at once
    async with await Kube.connect() as api, _serving(settings, health), _background(health.measure_lag()):
        lease = _lease(api, settings)
        leading = await _unless(stop, _until_leading(api, settings, lease))
        if not leading:
            return 0
        try:
            return await _lead(api, settings, trust, lease, health, stop)
        finally:
            logger.info("Stopping")
            await lease.release()
            metrics.LEADER.set(0)


async def _until_leading(api: Kube, settings: Settings, lease: Lease) -> bool:
    await _require_kinds(api, settings)
    metrics.TERM.set(await lease.acquire())
    metrics.LEADER.set(1)
    return True


async def _lead(
    api: Kube, settings: Settings, trust: TrustFile, lease: Lease, health: Health, stop: asyncio.Event
) -> int:
    """All that only the holder of the lease does."""
    parts = _Parts(api, settings, trust, lease)
    health.watch(parts.mirrors())
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_background(_die_without(lease)))
        await stack.enter_async_context(_background(trust.watch(settings.resync, parts.verifier.judge_anew)))
        for mirror in parts.mirrors():
            await stack.enter_async_context(_background(mirror.run()))
        stack.push_async_callback(parts.stop)
        for mirror in parts.mirrors():
            await _unless(stop, mirror.tried.wait())  # where one cannot be followed, nothing is ordered until it can
        logger.info("Operating", namespaces=settings.watch_namespaces or "all", term=lease.term)
        try:
            await handlers.run(
                handlers.make_registry(parts.loops.wake, parts.stop, stop), settings.watch_namespaces, stop
            )
        except Exception:  # kopf ends for good on some watch errors; the supervisor starts us anew
            logger.exception("Watching ended; exiting to begin anew", reason="APIUnavailable")
            return 1
    return 0


class _Parts:
    """The pieces of a leading operator, wired."""

    def __init__(self, api: Kube, settings: Settings, trust: TrustFile, lease: Lease) -> None:
        self.loops = Loops(self._reconcile, quiet=settings.quiet_period, resync=settings.resync)
        scopes = settings.watch_namespaces or (None,)
        wake = self.loops.wake

        def pod_changed(key: ObjectKey, pod: Pod) -> None:
            wake(ModelKey(key.namespace, pod.model))

        def order_changed(key: ObjectKey, known: Assignment) -> None:
            if known.model:
                wake(ModelKey(key.namespace, known.model))

        self.pods = Mirrors(
            {s: Mirror(api, PODS, s, labels=MODEL_LABEL, parse=views.pod, changed=pod_changed) for s in scopes}
        )
        self.assignments = Mirrors(
            {s: Mirror(api, ASSIGNMENTS, s, parse=views.assignment, changed=order_changed) for s in scopes}
        )
        self.verifier = Verifier(Checker.of(api, lambda: trust.policy, settings), settings.verify_versions, wake)
        events, record = EventRecorder(api, settings.identity), Recorder(api, lease.is_held)
        self._reconciler = Reconciler(api, self.pods, self.assignments, self.verifier, record, events, lease)

    async def _reconcile(self, key: ModelKey, is_quiet: bool) -> float | None:
        return await self._reconciler.reconcile(key, is_quiet)

    def mirrors(self) -> tuple[Mirror[Pod] | Mirror[Assignment], ...]:
        """All of them."""
        return (*self.pods.all(), *self.assignments.all())

    async def stop(self) -> None:
        """End passes and checks within moments. May be called twice."""
        await self.loops.stop()
        await self.verifier.stop()


def _lease(api: Kube, settings: Settings) -> Lease:
    timing = Timing(settings.lease_duration, settings.lease_renew_deadline, settings.lease_retry_period)
    key = ObjectKey(settings.lease_namespace, settings.lease_name)
    term = functools.partial(highest_term, api, settings.watch_namespaces)
    return Lease(api, key, settings.identity, timing=timing, highest_term=term)


async def highest_term(api: KubernetesAPI, namespaces: tuple[str, ...]) -> int:
    """Find the highest term that an order of `namespaces` (none: the whole cluster) has, or a pod obeyed; else 0.

    A namespace that is gone, or whose role is, keeps nobody from leading in the others.

    Raises:
        APIError: orders cannot be read, and not for want of one namespace.
    """
    if not namespaces:
        return await _highest_in(api, None)
    highest = 0
    for namespace in namespaces:
        try:
            highest = max(highest, await _highest_in(api, namespace))
        except (errors.APIDenied, errors.APIMissing) as error:
            logger.warning("Orders not read", namespace=namespace, reason=error.reason, problem=str(error))
    return highest


async def _highest_in(api: KubernetesAPI, namespace: str | None) -> int:
    return max([max(map(_seen_term, page.items), default=0) async for page in pages(api, ASSIGNMENTS, namespace)])


def _seen_term(assignment: JSON) -> int:
    ordered, answered = ((assignment.get(half) or {}).get("term") or 0 for half in ("spec", "status"))
    return max(ordered, answered if answered <= ANSWERED_TERM_MAX else 0)


async def _require_kinds(api: Kube, settings: Settings) -> None:
    """Wait for an API server that answers; one that answers without our kinds ends the start."""
    backoff = Backoff(first=1, last=15)
    while True:
        try:
            for resource in (VERSIONS, ROLLOUTS, ASSIGNMENTS):
                await require_kind(api, resource, next(iter(settings.watch_namespaces), None))
            return
        except (errors.APIUnavailable, errors.APIDenied) as error:
            pause = backoff.next()
            logger.warning("Waiting for the API server", reason=error.reason, problem=str(error), again=round(pause, 2))
            await asyncio.sleep(pause)


async def _die_without(lease: Lease) -> None:
    """End the process the moment the lease is lost: an orderly end could still write."""
    try:
        await lease.keep()
    except LeaseLost as error:
        logger.error("Lease lost; exiting at once", reason="StaleTerm", problem=str(error))
        sys.stderr.flush()
        os._exit(_LOST)


def _on_signals(stop: Callable[[], None]) -> None:
    """For the time before kopf installs its own."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives, or None when `stop` is set first."""
    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the body; it never ends by itself but by a bug, and then all begins anew."""
    task = asyncio.create_task(work)
    task.add_done_callback(_crash)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.error("A part ended; exiting to begin anew", reason="InternalError", exc_info=task.exception())
        sys.stderr.flush()
        os._exit(1)


@contextlib.asynccontextmanager
async def _serving(settings: Settings, health: Health) -> AsyncIterator[None]:
    host, wanted = settings.metrics_host, settings.metrics_port
    try:
        runner, port = await metrics.serve(host, wanted, healthy=health.problem, ready=health.unreadiness)
    except OSError as error:
        why = (error.strerror or str(error)).rpartition(": ")[2]  # asyncio puts the address before it
        raise errors.UsageError(
            f"{host} port {wanted} cannot be listened on ({why})",
            hint="give another MODELPARAMS_METRICS_HOST or MODELPARAMS_METRICS_PORT, or end what listens there",
        ) from error
    logger.info("Serving metrics and probes", port=port)
    try:
        yield
    finally:
        await runner.cleanup()
