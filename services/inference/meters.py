"""What this service counts for Prometheus. Touched once a batch or a request, never once a row."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Meters"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)


class Meters:
    """All meters of one process, on a registry of their own (several services may share a process)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.predictions = Counter(
            "penstock_predictions_total", "Answers given.", ["model", "version", "variant"], registry=self.registry
        )
        self.refused = Counter(
            "penstock_rows_refused_total", "Rows sent to the dead-letter topic.", ["reason"], registry=self.registry
        )
        self.failed = Counter(
            "penstock_scores_failed_total", "Scores that a version could not give.", ["model", "version"],
            registry=self.registry,
        )  # fmt: skip
        self.artefacts = Counter(
            "penstock_artefacts_refused_total", "Versions that could not be loaded.", ["model", "cause"],
            registry=self.registry,
        )  # fmt: skip
        self.decisions = Counter(
            "penstock_decisions_refused_total", "Records of the models topic that are none.", registry=self.registry
        )
        self.serving = Gauge(
            "penstock_serving", "1 for each version on duty.", ["model", "duty", "version"], registry=self.registry
        )
        self.requests = Counter("penstock_http_requests_total", "HTTP requests.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "penstock_http_seconds", "Seconds to answer a request.", ["route"], buckets=_SECONDS, registry=self.registry
        )
