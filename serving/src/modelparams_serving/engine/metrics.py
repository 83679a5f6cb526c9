"""What Prometheus is told. Own registry: several engines can live in one test process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from modelparams.protocol import Resident

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PAUSE_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.01, 0.1)


class Metrics:
    """All metrics are called `modelparams_engine_…`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "modelparams_engine_"
        self.requests = Counter(
            prefix + "requests", "Requests by endpoint, status and version", ("endpoint", "code", "version"),
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            prefix + "request_seconds", "Seconds from a request's arrival to its last byte", ("endpoint",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.running = Gauge(prefix + "requests_running", "Requests under way", registry=self.registry)
        self.tokens = Counter(prefix + "tokens", "Tokens made, by version", ("version",), registry=self.registry)
        self.pause = Histogram(
            prefix + "swap_pause_seconds", "Time in which no request could start", buckets=_PAUSE_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.live = Gauge(
            prefix + "live_info", "1 for the version that new requests begin on", ("model", "version", "digest"),
            registry=self.registry,
        )  # fmt: skip

    def swapped(self, live: Resident, pause_microseconds: int) -> None:
        """A version was made current."""
        self.pause.observe(pause_microseconds / 1e6)
        self.live.clear()
        self.live.labels(str(live.model_name), str(live.version), str(live.manifest_digest)).set(1)

    def keep_only(self, versions: set[str]) -> None:
        """Forget what was counted of others: a scrape of all that were ever served would hold requests up."""
        for counter in (self.requests, self.tokens):
            told = {tuple(sample.labels.values()) for metric in counter.collect() for sample in metric.samples}
            for labels in told:
                if labels[-1] not in {"", *versions}:  # "": what no version answered
                    counter.remove(*labels)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
