"""Every metric's name in one place, and the server that shows them beside the probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from modelparams.api.conditions import ConditionType, find
from modelparams.api.rollout import RolloutStatus

REGISTRY = CollectorRegistry()
_PREFIX = "modelparams_operator"


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"{_PREFIX}_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"{_PREFIX}_{name}", text, labels, registry=REGISTRY)


def _seconds(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"{_PREFIX}_{name}", text, labels, buckets=buckets, registry=REGISTRY)


RECONCILE_SECONDS = _seconds(
    "reconcile_seconds", "One pass over a model, by result.", (0.01, 0.03, 0.1, 0.3, 1, 3, 10), "result"
)
VERIFY_SECONDS = _seconds(
    "verification_seconds",
    "The check of one whole version, by reason.",
    (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
    "reason",
)
VERIFIED_BYTES = _counter("verified_bytes", "Sealed bytes read and hashed.")
VERIFYING = _gauge("verifications_running", "Versions that are being checked now.")
API_ERRORS = _counter("api_errors", "Requests that the API server refused, by code ('none': no answer).", "code")
RELISTS = _counter("relists", "Times that a kind was listed from the start.", "kind")
WATCH_RESTARTS = _counter("watch_restarts", "Watch streams that ended or broke.", "kind")
EVENTS_DROPPED = _counter("events_dropped", "Kubernetes Events that could not be written.")
LEADER = _gauge("leader", "1 while this process holds the lease.")
TERM = _gauge("term", "The lease's transitions: the fencing term in our orders.")
LOOP_LAG = _gauge("loop_lag_seconds", "How late the event loop woke up last.")
MODELS = _gauge("models", "Models with a running loop.")
_ROLLOUT = ("namespace", "rollout")
ROLLOUT_STEP = _gauge("rollout_step", "Zero-based index of the step being done.", *_ROLLOUT)
ROLLOUT_PODS = _gauge("rollout_pods", "Pods by state: total, staged, updated, available, failed.", *_ROLLOUT, "state")
_POD_STATES = ("total", "staged", "updated", "available", "failed")
ROLLOUT_STALLED = _gauge("rollout_stalled", "1 while the condition Stalled is True, by reason.", *_ROLLOUT, "reason")


def show_rollout(namespace: str, name: str, status: RolloutStatus) -> None:
    """Set a rollout's gauges."""
    ROLLOUT_STEP.labels(namespace, name).set(status.step_index)
    for state in _POD_STATES:
        ROLLOUT_PODS.labels(namespace, name, state).set(getattr(status.pods, state))
    stalled = find(status.conditions, ConditionType.STALLED)  # it is present only while it is True
    _show_stalled(namespace, name, stalled.reason if stalled is not None else None)


def show_refused(namespace: str, name: str, reason: str) -> None:
    """Say of a rollout that cannot be used that it stalls; of its pods and step nothing is known."""
    forget_rollout(namespace, name)
    _show_stalled(namespace, name, reason)


def _show_stalled(namespace: str, name: str, reason: str | None) -> None:
    """Show this reason alone: the series of the one before would look as if it stood too."""
    ROLLOUT_STALLED.remove_by_labels({"namespace": namespace, "rollout": name})
    if reason is not None:
        ROLLOUT_STALLED.labels(namespace, name, reason).set(1)


def forget_rollout(namespace: str, name: str) -> None:
    """Drop the gauges of a rollout that is gone; a stale series would look alive."""
    for gauge in (ROLLOUT_STEP, ROLLOUT_PODS, ROLLOUT_STALLED):
        gauge.remove_by_labels({"namespace": namespace, "rollout": name})


Probe = Callable[[], str | None]
"""None when all is well, else what is wrong."""


async def serve(host: str, port: int, *, healthy: Probe, ready: Probe) -> tuple[web.AppRunner, int]:
    """Answer /metrics, /healthz and /readyz, and return the runner to clean up and the port.

    On the operator's own event loop, so that a loop that hangs fails its liveness probe.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def show(_: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answering(probe: Probe) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.StreamResponse:
            problem = probe()
            return web.Response(status=503 if problem else 200, text=(problem or "ok") + "\n")

        return answer

    async def close(_: web.Request, response: web.StreamResponse) -> None:
        response.force_close()  # an idle connection's task would hold kopf's shutdown up

    app = web.Application()
    app.on_response_prepare.append(close)
    app.router.add_get("/metrics", show)
    app.router.add_get("/healthz", answering(healthy))
    app.router.add_get("/readyz", answering(ready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, runner.addresses[0][1]
