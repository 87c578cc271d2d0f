"""publish: a file of events into its topic, in event-time order, at any speed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from ..errors import DefinitionError, PenstockError, Unreachable
from ..log import Log, LogError
from . import broker, screen
from .options import InJson, ProjectName, settings_of, topics_of

if TYPE_CHECKING:
    from ..event import Event
    from ..files import EventFile, Inspection
    from ..publish import Publisher
    from ..topics import Topics

__all__ = ["Chunk", "chunks", "publish"]

AT_ONCE: Final = 2_000
"""Events in one acknowledged call: enough to be fast, little enough that a lost one is soon sent again."""

SLOT: Final = 0.1
"""Seconds of events that are sent together when the speed is bounded."""

SHOWN: Final = 10
"""Refused rows that are shown; --json has the first thousand."""


class Chunk(NamedTuple):
    """Rows start to stop (exclusive) of the ordered file, due so many seconds after the first."""

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
    event: Annotated[str, typer.Argument(help="The event: its topic, or the name of its class.")],
    file: Annotated[Path, typer.Option("--file", help="A .csv, .parquet or .jsonl file (.gz too) with one event a row.")],
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Events a second; default: as fast as the broker takes them."),
    ] = None,
    accelerate: Annotated[
        float | None, typer.Option("--accelerate", min=0.001, help="Stream time so many times as fast as it happened.")
    ] = None,
    final: Annotated[
        bool,
        typer.Option("--final", help="Say that no event of this kind will ever follow, so that all windows close."),
    ] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Times without a zone are UTC (else such rows are refused).")] = False,
    skip: Annotated[
        int, typer.Option("--skip", min=0, help="Leave out so many of the first events: to go on where a run stopped.")
    ] = 0,
    project: ProjectName = None,
    json: InJson = False,
) -> None:
    """Publish a file of events in the order of their time.

    Every row is checked first; rows that do not fit are reported and left out (exit code 1).

    Services merge all kinds of events by their time. So publish files of several events at the same time, each with the
    same --accelerate: what comes after its time was passed counts as late.
    """
    from ..files import EventFile

    if rate is not None and accelerate is not None:
        raise DefinitionError("--rate and --accelerate exclude each other", "give one of them")
    settings = settings_of(project)
    topics = topics_of(settings)
    kind = _event(topics, event)
    source = EventFile(file, kind, utc)
    found = _inspected(source)
    if not json:
        _told(source, found)
    if not found.times:
        raise PenstockError(f"{file} holds no event that can be sent", f"compare it with the fields of {kind!r}:  penstock check")

    async def work(log: Log) -> tuple[int, float]:
        from ..publish import Publisher, sampled
        from ..telemetry import Tracing

        tracing = Tracing("publisher", settings.otel_exporter_otlp_endpoint)
        broker.known(kind.topic, await log.describe())
        publisher = Publisher(log, topics, f"publish-{kind.topic}", sampled(settings.trace_sample), tracing)
        began = time.monotonic()
        try:
            with _progress(kind.topic, len(found.times)) as progress:
                await _send(
                    publisher,
                    kind.topic,
                    source,
                    found,
                    list(chunks(_ordered(found), rate, accelerate, skip)),
                    final,
                    progress,
                )
        except LogError as error:
            what = broker.refusal(error)
            sent = skip + publisher.sent
            raise Unreachable(
                f"{sent:,} of {len(found.times):,} events were sent, then: {what}",
                f"{what.fix}   then the rest:  penstock publish {event} --file {file} --skip {sent}",
            ) from error
        except asyncio.CancelledError:
            sent = skip + publisher.sent
            screen.note(f"{sent:,} of {len(found.times):,} events were sent; the rest:  --skip {sent}")
            raise
        finally:
            tracing.close()
        return publisher.sent, time.monotonic() - began

    sent, seconds = broker.use(settings, work, "")
    _report(kind, found, sent, seconds, final, json)
    if found.bad:
        raise typer.Exit(1)


def _event(topics: Topics, name: str) -> Event:
    from difflib import get_close_matches

    names = {e.topic: e for e in topics.project.events} | {e.type.__name__: e for e in topics.project.events}
    if name not in names:
        near = get_close_matches(name, names, n=1)
        listed = ", ".join(e.topic for e in topics.project.events)
        raise DefinitionError(
            f"project {topics.prefix} has no event {name}", f"did you mean {near[0]}?" if near else f"one of: {listed}"
        )
    return names[name]


def _inspected(source: EventFile) -> Inspection:
    """Check the file; says how far it is when that takes long."""
    spoken = time.monotonic()

    def told(rows: int) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > screen.SILENCE:
            spoken = time.monotonic()
            screen.note(f"  checking {source.path.name}: {rows:,} rows so far")

    return source.inspect(time.time(), told)


def _told(source: EventFile, found: Inspection) -> None:
    place = "row" if source.kind == "parquet" else "line"
    for number, refusal in found.refused[:SHOWN]:
        left_out = screen.paint("left out", "red", sys.stderr)
        screen.note(f"  {left_out}  {source.path.name} {place} {number}: {refusal.reason}: {refusal}")
    if len(found.bad) > SHOWN:
        screen.note(f"  ... and {len(found.bad) - SHOWN:,} more")
    if found.ignored:
        screen.note(f"  not fields of {source.event!r}, so not sent: {', '.join(found.ignored)}")
    if not found.ordered:
        screen.note(f"  {source.path.name} is not in order of time: sorted by {source.event.time.name} in memory")


def _ordered(found: Inspection) -> Sequence[int]:
    return found.times if found.ordered else sorted(found.times)


async def _send(
    publisher: Publisher,
    topic: str,
    source: EventFile,
    found: Inspection,
    plan: Sequence[Chunk],
    final: bool,
    progress: _Progress,
) -> None:
    """Send chunk by chunk when due, closing time behind each: up to the next row's time, which others may share."""
    from ..publish import FOREVER

    times = _ordered(found)
    rows = source.records(found)
    if plan:
        next(islice(rows, plan[0].start, plan[0].start), None)
    began = time.monotonic()
    beating = asyncio.create_task(progress.beat())
    try:
        for chunk in plan:
            wait = began + chunk.due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await publisher.send(topic, list(islice(rows, chunk.stop - chunk.start)))
            last = chunk.stop == len(times)
            await publisher.close((FOREVER if final else times[-1] + 1) if last else times[chunk.stop], [topic])
            progress.at(chunk.stop, times[chunk.stop - 1])
    finally:
        beating.cancel()


def _report(kind: Event, found: Inspection, sent: int, seconds: float, final: bool, json: bool) -> None:
    from ..event import from_micros

    times = _ordered(found)
    first, last = from_micros(times[0]), from_micros(times[-1])
    if json:
        screen.answer(
            {
                "type": "summary",
                "event": kind.topic,
                "rows": found.rows,
                "sent": sent,
                "refused": len(found.bad),
                "refusals": [
                    {"row": number, "reason": refusal.reason, "error": str(refusal)} for number, refusal in found.refused
                ],
                "first": first,
                "last": last,
                "final": final,
                "seconds": round(seconds, 3),
            }
        )
        return
    left_out = f", {screen.count(len(found.bad), 'row')} left out" if found.bad else ""
    speed = f"{sent / max(seconds, 1e-9):,.0f}/s"
    screen.say(f"{screen.count(sent, 'event')} sent to {kind.topic} in {seconds:.1f} s ({speed}){left_out}")
    closed = "closed for good" if final else "closed up to there"
    screen.say(f"  from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC; {closed}")


class _Progress:
    """Where we are: a bar on a terminal, else a line every two seconds."""

    def __init__(self, total: int, bar: Any = None, task: Any = None) -> None:
        self._total, self._bar, self._task = total, bar, task
        self._done, self._time, self._began = 0, 0, time.monotonic()

    def at(self, done: int, micros: int) -> None:
        self._done, self._time = done, micros
        if self._bar is not None:
            self._bar.update(self._task, completed=done, at=self._stream())

    async def beat(self) -> None:
        while self._bar is None:
            await asyncio.sleep(screen.SILENCE)
            speed = self._done / (time.monotonic() - self._began)
            screen.note(f"  {self._done:,} of {screen.count(self._total, 'event')}  {speed:,.0f}/s  {self._stream()}")

    def _stream(self) -> str:
        from ..event import from_micros

        return f"up to {from_micros(self._time):%Y-%m-%d %H:%M}" if self._done else "waiting for the broker"


@contextmanager
def _progress(name: str, total: int) -> Iterator[_Progress]:
    if not screen.coloured(sys.stderr):
        yield _Progress(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Progress(total, bar, bar.add_task(name, total=total, at="waiting for the broker"))
