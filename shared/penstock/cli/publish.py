"""publish: files of events into their topics, in event-time order, at any speed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from ..errors import DefinitionError, PenstockError, Unreachable
from ..log import Log, LogError
from . import broker, screen
from .options import project_settings, topics_of

if TYPE_CHECKING:
    from ..event import Event
    from ..files import EventFile, Inspection
    from ..publish import Publisher, Record
    from ..topics import Topics

__all__ = ["Chunk", "chunks", "inspected", "publish"]

AT_ONCE: Final = 2_000
"""Events in one acknowledged call: enough to be fast, little enough that a lost one is soon sent again."""

SLOT: Final = 0.1
"""Seconds of events that are sent together when the speed is bounded."""


class Chunk(NamedTuple):
    """Rows start to stop (exclusive) of the ordered rows, due so many seconds after the first."""

    start: int
    stop: int
    due: float


def chunks(times: Sequence[int], rate: float | None = None, accelerate: float | None = None, first: int = 0) -> Iterator[Chunk]:
    """How rows of these ascending times (microseconds) are sent: `rate` events a second, or stream time `accelerate`
    times as fast as it was, or at once. Seconds count from row `first`.

    >>> list(chunks([0, 1, 2, 3_000_000], accelerate=10.0))
    [Chunk(start=0, stop=3, due=0.0), Chunk(start=3, stop=4, due=0.3)]
    >>> list(chunks(range(25), rate=100.0))[1]
    Chunk(start=10, stop=20, due=0.1)
    """

    def due(row: int) -> float:
        if accelerate is not None:
            return (times[row] - times[first]) / 1e6 / accelerate
        return 0.0 if rate is None else (row - first) / rate

    start = first
    while start < len(times):
        stop, limit = start + 1, due(start) + SLOT
        while stop < len(times) and stop - start < AT_ONCE and due(stop) < limit - 1e-9:
            stop += 1
        yield Chunk(start, stop, due(start))
        start = stop


def publish(
    event: Annotated[str | None, typer.Argument(help="The event: its topic, or the name of its class.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A .csv, .parquet or .jsonl file (.gz too) with one event a row.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--input", metavar="DIR", help="Instead: a folder with one such file per event, <topic>.csv and so on."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Events a second; default: as fast as the broker takes them."),
    ] = None,
    accelerate: Annotated[
        float | None, typer.Option("--accelerate", min=0.001, help="Stream time so many times as fast as it happened.")
    ] = None,
    final: Annotated[
        bool,
        typer.Option("--final", help="Say that no event of these kinds will ever follow, so that all windows close."),
    ] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Times without a zone are UTC (else such rows are refused).")] = False,
    skip: Annotated[
        int, typer.Option("--skip", min=0, help="Leave out so many of the first events: to go on where a run stopped.")
    ] = 0,
) -> None:
    """Publish files of events in the order of their time.

    One file (EVENT and --file), or all events of the project from a folder (--input), merged by their time: what comes after
    its time was passed counts as late, so files that were published one after the other would be.

    Every row is checked first; rows that do not fit are reported and left out (exit code 1). A row that does not meet an
    expectation (ps.expect) is sent, and dead-lettered by the stream. Files need not be in order: rows are sorted by time.
    """
    from ..files import EventFile, in_folder, merged

    if rate is not None and accelerate is not None:
        raise DefinitionError("--rate and --accelerate exclude each other", "give one of them")
    if (file is None) == (folder is None) or (event is None) != (file is None):
        raise DefinitionError(
            "what to publish is not said, or twice", "penstock publish EVENT --file FILE   or   penstock publish --input DIR"
        )
    settings = project_settings()
    topics = topics_of(settings)
    if file is not None and event is not None:
        files = [EventFile(file, _event(topics, event), utc)]
    else:
        files = in_folder(folder or Path(), topics.project.events, utc)
    found = inspected(files)
    times = sorted(chain.from_iterable(each.times for each in found))
    if not times:
        raise PenstockError(f"{file or folder} holds no event that can be sent", "compare it with the fields:  penstock check")
    plan = list(chunks(times, rate, accelerate, skip))
    names = [each.event.topic for each in files]

    async def work(log: Log) -> tuple[int, float]:
        from ..publish import FOREVER, Publisher, sampled
        from ..runtime.telemetry import Tracing

        tracing = Tracing("publisher", settings.otel_exporter_otlp_endpoint)
        there = await log.describe()
        for name in names:
            broker.known(name, there)
        publisher = Publisher(log, topics, f"publish-{'+'.join(names)}", sampled(settings.trace_sample), tracing)
        began, progress = time.monotonic(), _Progress(len(times))
        try:
            with _bar(progress, " ".join(names)):
                rows = islice(merged(found), skip, None)
                await _send(publisher, names, rows, [*times, FOREVER if final else times[-1] + 1], plan, progress)
        except (LogError, asyncio.CancelledError) as error:
            done = max(skip, progress.done)
            told, rest = f"{done:,} of {len(times):,} events were sent", f"the rest: the same command with --skip {done}"
            if isinstance(error, LogError):
                why = broker.refusal(error)
                raise Unreachable(f"{told}, then: {why}", f"{why.fix}   then {rest}") from error
            screen.note(f"{told}; {rest}")
            raise
        finally:
            tracing.close()
        return publisher.sent, time.monotonic() - began

    sent, seconds = broker.use(settings, work, "")
    _report(found, times, sent, seconds, final)
    if any(each.bad for each in found):
        raise typer.Exit(1)


def _event(topics: Topics, name: str) -> Event:
    names = {e.topic: e for e in topics.project.events} | {e.type.__name__: e for e in topics.project.events}
    if name not in names:
        near = get_close_matches(name, names, n=1)
        listed = ", ".join(e.topic for e in topics.project.events)
        raise DefinitionError(
            f"project {topics.prefix} has no event {name}", f"did you mean {near[0]}?" if near else f"one of: {listed}"
        )
    return names[name]


def inspected(files: Sequence[EventFile]) -> list[Inspection]:
    """Check files, and tell which of their rows are left out; says how far it is when that takes long."""
    spoken, found = time.monotonic(), []

    def told(rows: int) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > screen.SILENCE:
            spoken = time.monotonic()
            screen.note(f"  checking {file.path.name}: {rows:,} rows so far")

    for file in files:
        found.append(file.inspect(time.time(), told))
        for line in found[-1].lines():
            screen.note(f"  {line}")
    return found


async def _send(
    publisher: Publisher,
    names: Sequence[str],
    rows: Iterator[tuple[Event, Record]],
    times: Sequence[int],
    plan: Sequence[Chunk],
    progress: _Progress,
) -> None:
    """Send chunk by chunk when due, closing time behind each: up to the next row's time, which others may share. `times` has
    one more, the time to close at the end."""
    began = time.monotonic()
    beating = asyncio.create_task(progress.beat())
    try:
        for chunk in plan:
            wait = began + chunk.due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            parts: dict[str, list[Record]] = {}
            for event, record in islice(rows, chunk.stop - chunk.start):
                parts.setdefault(event.topic, []).append(record)
            for topic, records in parts.items():
                await publisher.send(topic, records)
            await publisher.close(times[chunk.stop], names)
            progress.at(chunk.stop, times[chunk.stop - 1])
    finally:
        beating.cancel()


def _report(found: Sequence[Inspection], times: Sequence[int], sent: int, seconds: float, final: bool) -> None:
    from ..event import from_micros
    from ..files import refusals

    first, last, bad = from_micros(times[0]), from_micros(times[-1]), sum(len(each.bad) for each in found)
    left_out = f", {screen.count(bad, 'row')} left out" if bad else ""
    speed = f"{sent / max(seconds, 1e-9):,.0f}/s"
    to = ", ".join(each.file.event.topic for each in found)
    closed = "closed for good" if final else "closed up to there"
    screen.answer(
        {
            "type": "summary",
            "events": {each.file.event.topic: len(each.times) for each in found},
            "rows": sum(each.rows for each in found),
            "sent": sent,
            "refused": bad,
            "unexpected": sum(each.unexpected for each in found),
            "refusals": refusals(found),
            "first": first,
            "last": last,
            "final": final,
            "seconds": round(seconds, 3),
        },
        f"{screen.count(sent, 'event')} sent to {to} in {seconds:.1f} s ({speed}){left_out}",
        f"  from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC; {closed}",
    )


class _Progress:
    """Where we are: a bar on a terminal, else a line every two seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.bar: Any = None
        self._time, self._began = 0, time.monotonic()

    def at(self, done: int, micros: int) -> None:
        self.done, self._time = done, micros
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, at=self._stream())

    async def beat(self) -> None:
        while self.bar is None:
            await asyncio.sleep(screen.SILENCE)
            speed = self.done / (time.monotonic() - self._began)
            screen.note(f"  {self.done:,} of {screen.count(self.total, 'event')}  {speed:,.0f}/s  {self._stream()}")

    def _stream(self) -> str:
        from ..event import from_micros

        return f"up to {from_micros(self._time):%Y-%m-%d %H:%M}" if self.done else "waiting for the broker"


@contextmanager
def _bar(progress: _Progress, name: str) -> Iterator[None]:
    if not screen.coloured(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[at]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress.bar:
        progress.bar.add_task(name, total=progress.total, at="waiting for the broker")
        yield
