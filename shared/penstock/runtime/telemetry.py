"""Traces over OTLP/HTTP, metrics for Prometheus, and logs. Traces are off until OTEL_EXPORTER_OTLP_ENDPOINT names a collector;
nothing here happens per event.

A publisher starts a trace for a small share of its events and says so in the record's W3C `traceparent`. Whoever handles such
a record adds one span to its trace and passes the new context on, so one event can be followed from publish through hops, row
and prediction to its outcome. Every step is one more span, which links the traced records it handled. Names follow
OpenTelemetry's messaging conventions (v1.44, still in development: they are all in this module).
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import structlog

from ..log import Headers, Partition
from .behind import Behind

__all__ = ["W3C", "ControlMeters", "Meters", "Tracing", "logs", "priced", "trace_of"]

W3C = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""A traceparent of version 00."""
MOST_LINKS = 128
"""What the SDK keeps per span."""
ENDED = 1 << 52
"""Stream times from here on (the year 2112) say that a stream has come to its end."""


def trace_of(headers: Headers) -> str:
    """The traceparent of a record that is sampled; empty when there is none (or it is malformed: then we do not trace)."""
    text = next((value for name, value in headers if name == "traceparent" and value), b"").decode("ascii", "replace")
    match = W3C.fullmatch(text)
    return text if match and int(match[3], 16) & 1 else ""


def _context(trace: str) -> Any:
    """The span context that a traceparent names; None when it is malformed."""
    from opentelemetry import trace as api

    match = W3C.fullmatch(trace)
    return match and api.SpanContext(int(match[1], 16), int(match[2], 16), True, api.TraceFlags(1))


class Tracing:
    """Spans of one service. Without an endpoint every call passes the context on unchanged."""

    def __init__(self, service: str, endpoint: str = "") -> None:
        self._provider: Any = None
        if endpoint:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            self._ids = _ids()
            resource = Resource.create({"service.name": f"penstock-{service}", "service.version": version("penstock")})
            self._provider = TracerProvider(resource=resource, id_generator=self._ids)
            exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=5)
            self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
            self._tracer = self._provider.get_tracer("penstock")

    @property
    def on(self) -> bool:
        return self._provider is not None

    def start(self, trace: str, operation: str, topic: str) -> None:
        """The first span of a trace, with the very ids that the record's `traceparent` says."""
        context = _context(trace) if self.on else None
        if context is None:
            return
        from opentelemetry.context import Context

        self._ids.given = context.trace_id, context.span_id
        self._span(operation, topic, Context(), {})
        self._ids.given = None

    def record(self, trace: str, operation: str, topic: str, **attributes: str | int) -> str:
        """One span for one traced record, as a child of its context; the context to pass on."""
        context = _context(trace) if self.on else None
        if context is None:
            return trace
        from opentelemetry import trace as api

        parent = api.set_span_in_context(api.NonRecordingSpan(context))
        made = self._span(operation, topic, parent, attributes)
        return f"00-{made.trace_id:032x}-{made.span_id:016x}-01"

    def _span(self, operation: str, topic: str, parent: Any, attributes: Mapping[str, str | int]) -> Any:
        from opentelemetry.trace import SpanKind

        said = {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.destination.name": topic,
            **{f"penstock.{name}": value for name, value in attributes.items()},
        }
        kind = SpanKind.PRODUCER if operation == "send" else SpanKind.CONSUMER
        span = self._tracer.start_span(f"{operation} {topic}", parent, kind, attributes=said)
        span.end()
        return span.get_span_context()

    def step(self, name: str, traces: Sequence[str], began: float, **attributes: int) -> None:
        """One span for a whole step that began at wall-clock second `began`, linking its traced records."""
        if not self.on or not traces:
            return
        from opentelemetry.trace import Link

        links = [Link(context) for trace in traces[:MOST_LINKS] if (context := _context(trace))]
        span = self._tracer.start_span(name, links=links, start_time=int(began * 1e9), attributes=dict(attributes))
        span.end(int(time.time() * 1e9))

    def close(self) -> None:
        """Send what is still here (at most 5 s)."""
        if self._provider is not None:
            self._provider.force_flush(5_000)
            self._provider.shutdown()


class Meters:
    """What a lane counts: a handful of additions per step."""

    def __init__(self, lane: str) -> None:
        self._lane, self._behind = lane, Behind()
        self.records_in, self.records_out, self.seconds, self.waits, self.fenced, self.newest, self.dead_letters = map(
            self._of, ("records_in", "records_out", "seconds", "waits", "fenced", "newest", "dead_letters")
        )

    def _of(self, family: str) -> Any:
        return _families()[family].labels(self._lane)

    def stands(self, now: float, ends: Mapping[Partition, int], done: Mapping[Partition, int]) -> None:
        """Say how far the lane is behind: where topics end, and where it reads on. For those who know: a lane that never says so
        does not claim to be at the end."""
        records, seconds = self._behind.look(now, ends, done)
        self._of("behind").set(records)
        self._of("lag").set(seconds)

    def closed(self, before: int) -> None:
        """Say up to which stream time, in microseconds, all is out."""
        if before < ENDED:
            self._of("closed").set(before / 1e6)


class ControlMeters(Meters):
    """What a control counts besides; a record is a step there."""

    def __init__(self, lane: str) -> None:
        super().__init__(lane)
        self.decisions = self._of("decisions")


@functools.cache
def priced(hour: float) -> None:
    """Say what an hour of CPU costs, so that rules can price what metrics count; 0: nothing is said."""
    from prometheus_client import Gauge

    if hour:
        Gauge("penstock_cpu_hour_price", "What an hour of one core costs (PENSTOCK_CPU_HOUR_PRICE).").set(hour)


@functools.cache
def _families() -> dict[str, Any]:
    """The metric families, once a process (prometheus_client refuses a name twice). Their one label is the name of a lane."""
    from prometheus_client import Counter, Gauge, Histogram

    lane, buckets = ["lane"], (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
    return {
        "records_in": Counter("penstock_records_in_total", "Records read.", lane),
        "records_out": Counter("penstock_records_out_total", "Records published.", lane),
        "seconds": Histogram(
            "penstock_step_seconds", "Seconds from reading a batch to its effects being published.", lane, buckets=buckets
        ),
        "waits": Counter("penstock_waits_total", "Attempts repeated because the log or the store was away.", lane),
        "fenced": Counter("penstock_fenced_total", "Partitions lost to another process while writing.", lane),
        "newest": Gauge("penstock_last_step_timestamp_seconds", "When the newest step was done.", lane),
        "decisions": Counter("penstock_decisions_total", "Records that something was decided on.", lane),
        "dead_letters": Counter("penstock_dead_letters_total", "Records put aside because they could not be taken.", lane),
        "behind": Gauge("penstock_behind_records", "Records in the log that are not done yet.", lane),
        "lag": Gauge("penstock_lag_seconds", "Seconds for which the oldest of them has been there, within five.", lane),
        "closed": Gauge("penstock_closed_timestamp_seconds", "Stream time before which all is out.", lane),
    }


def _ids() -> Any:
    """Ids for new spans: random, except where a span has ids already."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        given: tuple[int, int] | None = None

        def generate_trace_id(self) -> int:
            return self.given[0] if self.given else super().generate_trace_id()

        def generate_span_id(self) -> int:
            return self.given[1] if self.given else super().generate_span_id()

    return Ids()


def logs(service: str, level: str = "info") -> None:
    """Structured logs on standard error: JSON lines when it is not a terminal, with the service's name in each. Tracebacks have
    no values of variables: among them are keys, tokens and what people sent."""
    import logging

    from structlog.tracebacks import ExceptionDictTransformer

    shown: list[Any]
    if sys.stderr.isatty():
        shown = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        plain = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        shown = [plain, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(service=service)
