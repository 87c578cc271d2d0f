"""A tally: how often a model was asked, how it went, and where the time went; as statistics of the protocol and for
Prometheus.

The form is that of Triton's statistics extension (extension_statistics.md), which `tritonclient` reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["Tallies", "Tally"]


class Tally:
    """Counts of one model; times in seconds, summed up over requests (`infer`: over executions)."""

    __slots__ = ("decode", "done", "encode", "executions", "failed", "infer", "last", "lost", "queue", "refused", "rows", "taken")

    def __init__(self) -> None:
        self.done = self.failed = self.refused = self.rows = self.executions = self.last = 0
        """Requests answered, not answered, and not let in; rows and runs of the answered; last answer in ms since 1970."""
        self.taken = self.lost = self.decode = self.queue = self.infer = self.encode = 0.0
        """From request to answer of the answered and of the others, and the parts of the answered."""

    def answered(self, began: float, decoding: float, encoding: float) -> None:
        """Count an answer that is about to be given: when its request began and its encoding (`time.perf_counter`), and the
        seconds that decoding took."""
        now = time.perf_counter()
        self.done += 1
        self.last = int(time.time() * 1e3)
        self.decode += decoding
        self.encode += now - encoding
        self.taken += now - began

    def shown(self, model: str, version: str) -> dict[str, Any]:
        """The statistics of the protocol; times in nanoseconds."""

        def duration(count: int, seconds: float) -> dict[str, int]:
            return {"count": count, "ns": round(seconds * 1e9)}

        return {
            "name": model,
            "version": version,
            "last_inference": self.last,
            "inference_count": self.rows,
            "execution_count": self.executions,
            "inference_stats": {
                "success": duration(self.done, self.taken),
                "fail": duration(self.failed + self.refused, self.lost),
                "queue": duration(self.done, self.queue),
                "compute_input": duration(self.done, self.decode),
                "compute_infer": duration(self.executions, self.infer),
                "compute_output": duration(self.done, self.encode),
                "cache_hit": duration(0, 0.0),
                "cache_miss": duration(0, 0.0),
            },
            "batch_stats": [],
        }


class Tallies(Collector):
    """Tallies by model for Prometheus, read when they are asked for: counting costs requests nothing more."""

    def __init__(self, of: Callable[[], Mapping[str, Tally]]) -> None:
        self._of = of

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("penstock_infer_requests", "Infer requests by their end.", labels=["model", "end"])
        rows = CounterMetricFamily("penstock_infer_rows", "Rows answered.", labels=["model"])
        runs = CounterMetricFamily("penstock_infer_runs", "Runs of the model; rows per run tell of batches.", labels=["model"])
        seconds = CounterMetricFamily("penstock_infer_seconds", "Seconds of requests by part.", labels=["model", "part"])
        for model, tally in self._of().items():
            for end, count in (("answered", tally.done), ("failed", tally.failed), ("shed", tally.refused)):
                requests.add_metric([model, end], count)
            rows.add_metric([model], tally.rows)
            runs.add_metric([model], tally.executions)
            parts = {"decode": tally.decode, "queue": tally.queue, "infer": tally.infer, "encode": tally.encode}
            for part, value in parts.items():
                seconds.add_metric([model, part], value)
        yield from (requests, rows, runs, seconds)
