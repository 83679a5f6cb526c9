"""The agent's Prometheus metrics, all in one place."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from modelparams.errors import UsageError

FETCHED = Counter("modelparams_agent_fetched_bytes_total", "Sealed bytes read from the object store")
REUSED = Counter("modelparams_agent_reused_bytes_total", "Plaintext bytes copied from the resident version")
STAGING = Histogram(
    "modelparams_agent_staging_seconds",
    "From the order to a verified, opened arena",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)
SWAPS = Counter("modelparams_agent_swaps_total", "Versions made current")
PAUSE = Gauge("modelparams_agent_swap_pause_seconds", "Time in which no request could start in the last swap")
FAILURES = Counter("modelparams_agent_failures_total", "Failures with a release", ["reason"])
API_FAILURES = Counter("modelparams_agent_api_failures_total", "Failed calls of the API server", ["reason"])
ENGINE_UP = Gauge("modelparams_agent_engine_up", "1 while the engine answers on its socket")


def serve(port: int) -> None:
    """Answer on all addresses, in a thread.

    Raises:
        UsageError: the port cannot be listened on.
    """
    try:
        start_http_server(port)
    except OSError as error:
        raise UsageError(
            f"port {port} for metrics cannot be listened on ({error.strerror})",
            hint="set MODELPARAMS_AGENT_METRICS_PORT to one that is free, or to 0 for none",
        ) from error
