"""Every metric's name in one place, and the server that shows them beside the probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

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


def show_rollout(namespace: str, name: str, step: int, pods: object) -> None:
    """Set a rollout's gauges; `pods` has an attribute for each state."""
    ROLLOUT_STEP.labels(namespace, name).set(step)
    for state in _POD_STATES:
        ROLLOUT_PODS.labels(namespace, name, state).set(getattr(pods, state))


def forget_rollout(namespace: str, name: str) -> None:
    """Drop the gauges of a rollout that is gone; a stale series would look alive."""
    ROLLOUT_STEP.remove_by_labels({"namespace": namespace, "rollout": name})
    ROLLOUT_PODS.remove_by_labels({"namespace": namespace, "rollout": name})


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
