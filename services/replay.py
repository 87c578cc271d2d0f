"""`penstock replay`: the whole loop over a past range, once for each policy, in this process.

Each policy lives through the same events from the first one on, in an embedded platform of its own (see embedded.py): features,
fits, rollouts and alarms are those that it would have led to, and the same events give the same decisions, byte for byte. What
is reported is of the range alone.

`as_served` asks less, and takes seconds: what would these monitors have said of the answers that were given? It needs the partial
counts of the windows, which are in the log, and nothing of models, features or labels.
"""

from __future__ import annotations

import asyncio
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import gcd
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from penstock.cli import broker, screen
from penstock.cli.options import project_of
from penstock.cli.publish import inspected
from penstock.codec import EventDecoder
from penstock.duration import DAY, spoken
from penstock.errors import PenstockError
from penstock.event import Event as Kind
from penstock.event import from_micros, to_micros
from penstock.files import in_folder
from penstock.harness.policies import Tried
from penstock.harness.result import Records, Result, result
from penstock.log import Log, Partition, Readable
from penstock.model import Model
from penstock.offline import Tables
from penstock.policy import Labels, Policy
from penstock.project import Project
from penstock.proof.audit import read_all
from penstock.publish import FOREVER
from penstock.records import Alarm, Decision, Partial, Run, Statistic
from penstock.runtime.lane import Redelivered
from penstock.runtime.telemetry import ENDED
from penstock.settings import Settings
from penstock.statistics.kinds import kind_of
from penstock.topics import Topics

from .embedded import Embedded, Event
from .feature_store.rebuild import EventTables
from .monitoring.case import Case
from .simulate import in_order, run

__all__ = ["archived", "judged", "lived", "replay"]

T = TypeVar("T")

AT_ONCE = 20_000
"""Archived events that are read together."""


def archived(project: Project, tables: Tables, until: int) -> list[Event]:
    """The events of the offline tables up to a time (microseconds), in stream order; without those that the stream refused."""
    rows: list[tuple[int, int, str, Event]] = []
    there, history = set(tables.names()), EventTables(tables)
    for kind in project.events:
        if kind.topic not in there:
            raise PenstockError(f"{tables.location} has no table {kind.topic}", "replay files instead:  --input DIR")
        for number in sorted(tables.table(kind.topic).positions()):
            rows += _of(history, kind, Partition(kind.topic, number), project.topology.rank[kind], until)
    rows.sort(key=lambda row: row[:3])
    return [row[3] for row in rows]


def _of(history: EventTables, kind: Kind, place: Partition, rank: int, until: int) -> Iterable[tuple[int, int, str, Event]]:
    decoder, key, name, first = EventDecoder(kind, expectations=False), kind.key.name, (kind.id or kind.key).name, 0
    while (batch := history.read(place, first, AT_ONCE)) is not None:
        first = batch.next
        events, micros, _ = decoder.decode_all(batch.values, math.inf)
        for event, at, value in zip(events, micros.tolist(), batch.values, strict=True):
            if event is not None and at < until:
                yield at, rank, str(getattr(event, name)), (kind.topic, str(getattr(event, key)).encode(), value or b"", at)


async def lived(
    project: Project, events: Sequence[Event], seed: int = 0, watch: Callable[[int, int], None] | None = None
) -> Records:
    """Run the loop of a project with one model over events in order of time; what it said. `watch`: see `simulate.run`."""
    (model,) = project.models

    async def look(published: int, micros: int) -> None:
        if watch is not None:
            watch(published, micros)

    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        machine = Embedded(project, Path(scratch), seed=seed)
        await run(machine, events, look)
        log, topics = machine.log, machine.topics
        raw = [
            part
            for topic in (topics.alarms, topics.runs, topics.candidates, topics.models)
            for _, _, key, value, _ in await read_all(log, topic)
            for part in (key, value)
        ]
        return Records(
            alarms=[alarm for alarm in await _all(log, topics.alarms, Alarm) if alarm.model == model.name],
            statistics=await _all(log, topics.statistics(model.name), Statistic),
            runs=await _all(log, topics.runs, Run),
            decisions=await _all(log, topics.models, Decision),
            raw=raw,
            seconds=machine.learning,
        )


async def _all(log: Log, topic: str, kind: type[T]) -> list[T]:
    return [msgspec.json.decode(value, type=kind) for _, _, _, value, _ in await read_all(log, topic) if value is not None]


def judged(model: Model, partials: Iterable[Partial]) -> Records:
    """What the monitors of a model say of windows that were counted before."""
    case, statistics, alarms = Case(model), list[Statistic](), list[Alarm]()
    for partial in partials:
        for statistic, raised, _ in case.hear(partial):
            statistics.append(statistic)
            alarms += raised
    return Records(alarms=alarms, statistics=statistics, raw=[msgspec.json.encode(alarm) for alarm in alarms])


def replay(
    settings: Settings,
    name: str,
    tried: Tried,
    since: datetime | None = None,
    until: datetime | None = None,
    within: int = 30 * DAY,
    folder: Path | None = None,
    utc: bool = False,
    as_served: bool = False,
) -> list[Result]:
    """A result for each policy, the declared one first. PenstockError where there is nothing to replay."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # the result tells the story
    project = project_of(settings)
    model = project.model(name)
    models = {policy: model.under(given) for policy, given in tried.policies.items()}
    last = FOREVER if until is None else to_micros(until)
    told: dict[str, Records] = {}
    if as_served:
        partials = _partials(settings, project, model, last)
        first = partials[0].start
        end = max((each.end for each in partials if each.end < ENDED), default=first)  # the last window of all closes all time
        length = gcd(*(partial.end - partial.start for partial in partials))
        for policy, under in models.items():
            _countable(policy, under, length, tried.policies[policy])
            told[policy] = judged(under, partials)
    else:
        events = _events(settings, project, folder, utc, last)
        first, end = events[0][3] // DAY * DAY, events[-1][3]
        for policy, given in tried.policies.items():
            told[policy] = asyncio.run(lived(project.under(model, given), events, settings.seed, _progress(policy, len(events))))
    start, stop = first if since is None else to_micros(since), min(last, end)
    if not start < stop:
        raise PenstockError(f"nothing happened from {from_micros(start)} on", f"what there is ends at {from_micros(end)}: --from")
    kind = kind_of(model.label)
    return [result(policy, records, start, stop, tried.changes, within, model.value, kind) for policy, records in told.items()]


def _events(settings: Settings, project: Project, folder: Path | None, utc: bool, until: int) -> list[Event]:
    if folder is None:
        events = archived(project, Tables(settings.offline), until)
        where = f"the tables in {settings.offline}"
    else:
        events = [event for event in in_order(project, inspected(in_folder(folder, project.events, utc))) if event[3] < until]
        where = str(folder)
    if not events:
        raise PenstockError(f"{where}: no event before {'the end' if until == FOREVER else from_micros(until)}", "see --until")
    return events


def _partials(settings: Settings, project: Project, model: Model, until: int) -> list[Partial]:
    """What was counted of a model, each record once, in the order of the log."""
    topics = Topics(project)
    topic = topics.partials

    async def work(log: Readable) -> list[Partial]:
        broker.known(topic, await log.describe())
        repeats, decode = Redelivered(), msgspec.json.Decoder(Partial).decode
        return [decode(one.value or b"") async for one in broker.held(log, topic) if repeats.new(one.headers)]

    found = [p for p in broker.read(settings, topics, work, f"reading {topic}") if p.model == model.name and p.end <= until]
    if not found:
        raise PenstockError(f"no window of {model.name} was counted", "replay its events instead, without --as-served")
    return found


def _countable(name: str, model: Model, length: int, policy: Policy) -> None:
    """PenstockError where a policy asks more than what the counts of windows can say."""
    if any(given is not None for given in (policy.retrain, policy.gates, policy.rollout)):
        fix = "leave it to the whole loop, without --as-served"
        raise PenstockError(f"policy {name} retrains, and --as-served judges what was answered", fix)
    for monitor in model.monitors:
        if not isinstance(monitor, Labels) and monitor.every % length:
            what = f"policy {name} judges every {spoken(monitor.every)}; what was counted are windows of {spoken(length)}"
            raise PenstockError(what, f"give every= as a multiple of {spoken(length)}, or leave out --as-served")


def _progress(policy: str, total: int) -> Callable[[int, int], None]:
    """Says now and then how far a policy is."""
    spoken_at = time.monotonic()

    def watch(published: int, micros: int) -> None:
        nonlocal spoken_at
        if time.monotonic() - spoken_at > screen.AGAIN:
            spoken_at = time.monotonic()
            screen.note(f"  {policy}: {from_micros(micros):%Y-%m-%d}, {published:,}/{total:,} events")

    return watch
