"""What this service counts for Prometheus. Touched once a batch, never once a row.

No label is a version, of which a loop makes ever more, but that of `penstock_serving`, which goes when the version is relieved.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["Meters"]


class Meters:
    """All meters of one process, on a registry of their own (several services may share a process)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.predictions = Counter("penstock_predictions_total", "Answers given.", ["model", "variant"], registry=self.registry)
        self.refused = Counter(
            "penstock_rows_refused_total", "Rows sent to the dead-letter topic.", ["reason"], registry=self.registry
        )
        self.failed = Counter(
            "penstock_scores_failed_total", "Scores that a version could not give.", ["model"], registry=self.registry
        )
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
        self.spilled = Counter(
            "penstock_records_spilled_total", "Answers written to the spill while Kafka was away.", registry=self.registry
        )
        self.replayed = Counter(
            "penstock_records_replayed_total", "Answers that came from the spill into Kafka.", registry=self.registry
        )
        self.spill = Gauge("penstock_spill_bytes", "Bytes of the spill; 0 while Kafka takes answers.", registry=self.registry)
        self.unread = Counter(
            "penstock_features_unread_total", "Events answered without features: the online store was away.",
            registry=self.registry,
        )  # fmt: skip

    def known(self, model: str) -> None:
        """A model that is served here: its counts begin at 0, for a count that begins at 1 has not risen to those who watch."""
        self.failed.labels(model)
        for cause in ("unreachable", "refused"):
            self.artefacts.labels(model, cause)
