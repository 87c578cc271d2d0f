"""One event can be followed: publish -> hops -> row -> prediction -> outcome, each span the child of the one before.

The collector is a small one of our own: it takes OTLP over HTTP and keeps the spans.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from penstock.cli.live import Live
from penstock.event import from_micros
from penstock.examples.flights import project
from penstock.examples.flights.data import events
from penstock.log import Log
from penstock.proof.audit import Record, read_all
from penstock.publish import FOREVER, Publisher, sampled
from penstock.runtime.lane import Lane
from penstock.runtime.telemetry import Tracing
from penstock.services.demo import drive, running
from penstock.services.embedded import Embedded, Event
from penstock.services.feature_store import service as feature_store
from penstock.services.inference import service as inference
from penstock.services.inference.meters import Meters
from penstock.services.monitoring import service as monitoring
from penstock.settings import load
from penstock.topics import Topics

TOPICS = Topics(project, 2)
SCHEDULED = project.models[0].scores
CHAIN = [
    ("penstock-publisher", "send scheduled"),
    *(("penstock-feature_store", f"process {TOPICS.hop(key)}") for key in project.topology.routes[SCHEDULED].path),
    ("penstock-feature_store", f"process {TOPICS.rows(SCHEDULED)}"),
    ("penstock-inference", f"process {TOPICS.predictions('late')}"),
    ("penstock-monitoring", f"process {TOPICS.outcomes('late')}"),
]


class Span(NamedTuple):
    """What a collector is told, ids in hexadecimal; `parent` is empty for the first of a trace."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]


class Collector:
    """Takes POST /v1/traces."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/v1/traces":
                    collector.take(asked)
                said = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, asked: Any) -> None:
        for resource in asked.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for s in scope.spans:
                    links = tuple((link.trace_id.hex(), link.span_id.hex()) for link in s.links)
                    self.spans.append(Span(service, s.name, s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), links))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def chain(self, trace: str) -> list[tuple[str, str]]:
        """(service, name) from the first span of a trace to the last; a span beside the chain is an error."""
        of_it = [span for span in self.spans if span.trace == trace]
        children: dict[str, list[Span]] = {}
        for span in of_it:
            children.setdefault(span.parent, []).append(span)
        found, parent = [], ""
        while parent in children:
            (span,) = children.pop(parent)
            found.append((span.service, span.name))
            parent = span.id
        assert len(found) == len(of_it), f"these spans hang from nothing that was seen: {children}"
        return found

    @property
    def steps(self) -> list[Span]:
        return [span for span in self.spans if span.name.startswith("step ")]

    @property
    def traces(self) -> set[str]:
        """The traces of events."""
        return {span.trace for span in self.spans} - {span.trace for span in self.steps}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


# -- in memory -------------------------------------------------------------------------------------------------------------


class Traced:
    """The whole loop in memory, each service with a tracing of its own."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.machine = Embedded(project, folder, partitions=TOPICS.partitions)
        names = ("publisher", "feature_store", "inference", "monitoring")
        self.tracings = {name: Tracing(name, endpoint) for name in names}
        self.machine.lanes = self._lanes()

    def _lanes(self) -> list[Lane]:
        m, tracings, meters = self.machine, self.tracings, Meters()
        return [
            *feature_store.lanes(m.topics, m.log, m.store, None, tracings["feature_store"]),
            *inference.lanes(m.topics, m.log, m.store, m.sessions, meters, None, tracings["inference"]),
            *monitoring.lanes(project, m.topics, m.log, m.store, math.inf, tracings["monitoring"]),
        ]

    async def restart(self) -> None:
        for lane in self.machine.lanes:
            await lane.close()
        self.machine.lanes = self._lanes()

    async def run(self, stream: list[Event], trace: Callable[[str], str | None], restart_at: int) -> None:
        """Publish all; every service is started anew when the time `restart_at` (microseconds) has been dealt with."""
        await self.machine.start()
        publisher = Publisher(self.machine.log, self.machine.topics, trace=trace, tracing=self.tracings["publisher"])
        for part, before in (
            ([e for e in stream if e[3] < restart_at], restart_at),
            ([e for e in stream if e[3] >= restart_at], FOREVER),
        ):
            for event in project.events:
                await publisher.send(event.topic, [(key, value, t) for topic, key, value, t in part if topic == event.topic])
            await publisher.close(before)
            await self.machine.settle()
            await self.restart()
        await self.machine.close()
        for tracing in self.tracings.values():
            tracing.close()


def run(folder: Path, endpoint: str, stream: list[Event], trace: Callable[[str], str | None], restart_at: int) -> Log:
    traced = Traced(folder, endpoint)
    asyncio.run(traced.run(stream, trace, restart_at))
    return traced.machine.log


@pytest.fixture(scope="module")
def two_days() -> list[Event]:
    return list(events(2))


def flight_of(event: Event) -> str:
    found: str = msgspec.json.decode(event[2])["flight_id"]
    return found


def pending(stream: list[Event]) -> tuple[str, int]:
    """A flight that has been scored and not yet answered at some time, and that time."""
    answered = {flight_of(event): event[3] for event in stream if event[0] == "arrived"}
    scored = [event for event in stream if event[0] == "scheduled" and flight_of(event) in answered]
    chosen = scored[len(scored) // 2]
    return flight_of(chosen), (chosen[3] + answered[flight_of(chosen)]) // 2


def only(*names: str) -> Callable[[str], str | None]:
    """Traces of these events ("topic#id") alone."""
    every = sampled(1.0)
    return lambda name: every(name) if name.partition("/")[2] in names else None


def trace_id(name: str) -> str:
    found = sampled(1.0)(f"{project.name}/{name}")
    assert found is not None
    return found.split("-")[1]


def test_the_trace_of_a_flight_runs_from_publish_to_outcome_through_a_restart(
    collector: Collector, tmp_path: Path, two_days: list[Event]
) -> None:
    flight, between = pending(two_days)
    run(tmp_path, collector.endpoint, two_days, only(f"scheduled#{flight}"), between)
    assert collector.chain(trace_id(f"scheduled#{flight}")) == CHAIN


def test_events_that_are_not_traced_make_no_spans(collector: Collector, tmp_path: Path, two_days: list[Event]) -> None:
    flight, between = pending(two_days)
    run(tmp_path, collector.endpoint, two_days, only(f"scheduled#{flight}", f"arrived#{flight}"), between)
    wanted = {trace_id(f"scheduled#{flight}"), trace_id(f"arrived#{flight}")}
    assert collector.traces == wanted
    assert collector.steps, "the steps that handled traced records have spans of their own"
    assert {trace for step in collector.steps for trace, _ in step.links} <= wanted


def test_without_a_traced_event_the_collector_hears_nothing(collector: Collector, tmp_path: Path, two_days: list[Event]) -> None:
    run(tmp_path, collector.endpoint, two_days, only(), pending(two_days)[1])
    assert collector.spans == []


def test_tracing_changes_no_record(collector: Collector, tmp_path: Path, two_days: list[Event]) -> None:
    """Except that an answer names its trace."""
    _, between = pending(two_days)

    async def values(log: Log) -> dict[str, list[bytes | None]]:
        names = [TOPICS.rows(SCHEDULED), TOPICS.predictions("late"), TOPICS.outcomes("late"), TOPICS.statistics("late")]
        return {name: [_without_trace(record) for record in await read_all(log, name)] for name in names}

    plain = asyncio.run(values(run(tmp_path / "plain", "", two_days, only(), between)))
    traced = asyncio.run(values(run(tmp_path / "traced", collector.endpoint, two_days, sampled(0.2), between)))
    assert collector.spans
    for topic, found in traced.items():
        assert found == plain[topic], f"{topic} differs"


def _without_trace(record: Record) -> bytes | None:
    value = record[3]
    head, mark, _ = value.rpartition(b',"trace":') if value else (b"", b"", b"")
    return head if mark else value


# -- on Kafka --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("servers_here")
def test_traces_run_through_all_processes_on_kafka(
    collector: Collector, tmp_path: Path, two_days: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    settings, share = load(trace_sample=0.05), sampled(0.05)
    answered = {flight_of(event) for event in two_days if event[0] == "arrived"}
    scored = [flight_of(event) for event in two_days if event[0] == "scheduled"]
    traced = [flight for flight in scored if flight in answered and share(f"{project.name}/scheduled#{flight}")]
    live = Live("traces", from_micros(two_days[0][3]), from_micros(two_days[-1][3]), len(two_days), json=True)

    async def go() -> None:
        async with running(settings, project, tmp_path / "run", TOPICS.partitions) as platform:
            found = await drive(platform, two_days, live)
            assert (found.lost, found.counted_twice) == (0, 0), found.complaints

    asyncio.run(go())
    assert len(traced) > 20
    for flight in traced:
        assert collector.chain(trace_id(f"scheduled#{flight}")) == CHAIN, f"the trace of {flight} breaks off or goes astray"
