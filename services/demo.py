"""`penstock demo` and `penstock simulate`: real flights, or your own files, through the whole loop, and then the audit."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import structlog

from penstock import audit as check
from penstock.artefact import Artefacts
from penstock.audit import Audit
from penstock.cli.live import Live
from penstock.cli.options import project_of
from penstock.cli.publish import inspected
from penstock.cli.screen import count, hush
from penstock.cli.supervising import processes
from penstock.duration import HOUR
from penstock.errors import DefinitionError, Unreachable
from penstock.event import from_micros
from penstock.files import Inspection, in_folder, refusals
from penstock.local import kafka as local_kafka
from penstock.local import redis as local_redis
from penstock.local.supervisor import Supervisor
from penstock.log.kafka import KafkaLog
from penstock.picture import Picture
from penstock.project import Project
from penstock.publish import Publisher, sampled
from penstock.settings import SERVICES, Settings
from penstock.telemetry import Tracing
from penstock.topics import Topics

from .embedded import Event, scoring, slices
from .simulate import in_order, slice_of, summary, worse
from .simulate import simulate as run_simulation

__all__ = ["demo", "simulate"]

MOST_LAG = 6_000
"""Scored events published and not yet answered; the publisher waits above it, so that stream time does not run away from
the decisions that should act on it."""
SETTLED_SECONDS = 5.0
"""Nothing new for this long after the last window closed: the loop is at rest."""
FINISH_SECONDS = 120.0


def demo(settings: Settings, days: int, embedded: bool | None, partitions: int, json: bool) -> int:
    """Replay flights; exit code 0 only if every part of the loop really happened."""
    from penstock.examples.flights.data import events

    project = project_of(settings)
    kafka, why = _where(embedded)
    where = "Kafka and Redis on this machine, one process per service" if kafka else "embedded: one process, nothing is kept"
    _say(json, f"{where} ({why})")
    stream = list(events(days))
    _prepare()
    began = time.perf_counter()
    title = f"penstock demo: {days} days of flights, {len(stream):,} events"
    with Live(title, from_micros(stream[0][3]), from_micros(stream[-1][3]), len(stream), json) as live:
        if kafka:
            found = asyncio.run(_on_kafka(settings, project, stream, partitions, live))
        else:
            found = asyncio.run(_embedded(project, stream, live, settings.seed))
    return _finish(found, time.perf_counter() - began, json, demanding=True)


def simulate(settings: Settings, folder: Path, days: int | None, utc: bool, json: bool) -> int:
    """The whole loop in one process from a folder of files, one per event; exit code 1 where rows were left out."""
    project = project_of(settings)
    found = inspected(in_folder(folder, project.events, utc))
    stream = in_order(project, found, days)
    if not stream:
        raise DefinitionError(f"{folder} holds no event that can be read", "compare its files with the fields:  penstock check")
    _prepare()
    began = time.perf_counter()
    title = f"penstock simulate: {project.name}, {len(stream):,} events"
    with Live(title, from_micros(stream[0][3]), from_micros(stream[-1][3]), len(stream), json) as live:
        audited = asyncio.run(_embedded(project, stream, live, settings.seed))
    return _finish(audited, time.perf_counter() - began, json, demanding=False, files=found)


def _prepare() -> None:
    """The screen tells the story, so services say only what is wrong; and garbage is collected as `__main__` does it."""
    import gc
    import logging

    hush()
    gc.set_threshold(100_000, 50, 100)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _where(embedded: bool | None) -> tuple[bool, str]:
    """Whether to use Kafka, and the reason in words."""
    if embedded:
        return False, "asked for"
    missing = [reason for reason in (local_kafka.available(), local_redis.available()) if reason]
    if embedded is None:
        return (False, missing[0].partition(" -> ")[0]) if missing else (True, "Java 17+, Maven and redis-server are here")
    if missing:
        what, _, fix = missing[0].partition(" -> ")
        raise Unreachable(what, fix)
    return True, "asked for"


async def _embedded(project: Project, stream: Sequence[Event], live: Live, seed: int) -> Audit:
    def watch(picture: Picture, published: int, micros: int) -> None:
        live.update(picture, published, from_micros(micros))

    done = await run_simulation(project, stream, watch=watch, seed=seed)
    live.update(done.picture, len(stream), from_micros(stream[-1][3]), final=True)
    return done.audit


async def _on_kafka(settings: Settings, project: Project, stream: Sequence[Event], partitions: int, live: Live) -> Audit:
    folder = (settings.data / "demo").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    async with running(settings, project, folder, partitions) as publisher:
        return await drive(publisher, stream, live, Artefacts(folder / "models"))


@asynccontextmanager
async def running(settings: Settings, project: Project, folder: Path, partitions: int) -> AsyncIterator[Publisher]:
    """Broker, Redis and one process per service, all in `folder`; a publisher for them. Nothing is left when it ends."""
    folder.mkdir(parents=True)
    topics = Topics(project, partitions)
    kafka, redis = local_kafka.LocalKafka(folder / "kafka"), local_redis.LocalRedis(folder / "redis")
    tracing = Tracing("publisher", settings.otel_exporter_otlp_endpoint)
    log = supervisor = None
    try:
        await asyncio.gather(asyncio.to_thread(kafka.start), asyncio.to_thread(redis.start))
        log = KafkaLog(kafka.bootstrap, "penstock-demo")
        await log.create(topics.all())
        here = settings.model_copy(update={"data": folder, "partitions": partitions, **_free_ports()})
        own = {f"PENSTOCK_{s.upper()}_PORT": str(here.port_of(s)) for s in SERVICES} | {"PENSTOCK_SEED": str(here.seed)}
        named = [
            replace(process, env={**process.env, **own, "PENSTOCK_INSTANCE": process.name})
            for process in processes(here, list(SERVICES), kafka.bootstrap, redis.url)
        ]
        supervisor = Supervisor(folder, named, [kafka, redis], ready_seconds=120.0)
        await supervisor.up()
        yield Publisher(log, topics, trace=sampled(settings.trace_sample), tracing=tracing)
    finally:
        if log is not None:
            await log.close()
        if supervisor is not None:
            await supervisor.down()
        for server in (kafka, redis):
            await asyncio.to_thread(server.stop)
        tracing.close()


def _free_ports() -> dict[str, int]:
    from penstock.local import port

    return {f"{service}_port": port.free() for service in SERVICES}


async def drive(publisher: Publisher, stream: Sequence[Event], live: Live, artefacts: Artefacts) -> Audit:
    """Publish at the pace of the loop, wait until it is at rest, and audit."""
    log, topics, project = publisher.log, publisher.topics, publisher.topics.project
    picture = Picture(topics)
    published = 0
    for part, before in slices(stream, max(slice_of(project), HOUR)):
        by_topic: dict[str, list[tuple[bytes, bytes, int]]] = {}
        for topic, key, value, moment in part:
            by_topic.setdefault(topic, []).append((key, value, moment))
        for topic, records in by_topic.items():
            await publisher.send(topic, records)
        await publisher.close(before)
        published += len(part)
        while True:
            await picture.watch(log)
            live.update(picture, published, from_micros(part[-1][3]))
            if picture.counts["scored"] - picture.counts["predictions"] < MOST_LAG:
                break
            await asyncio.sleep(0.05)
    deadline, still = time.monotonic() + FINISH_SECONDS, time.monotonic()
    before_that: Any = None
    end = from_micros(stream[-1][3])
    while time.monotonic() < deadline:
        await picture.watch(log)
        live.update(picture, published, end)
        state = (dict(picture.counts), picture.heard, {m: len(s) for m, s in picture.statistics.items()})
        if state != before_that:
            before_that, still = state, time.monotonic()
        closed = picture.now is not None and picture.now >= end
        if closed and time.monotonic() - still > SETTLED_SECONDS:
            break
        await asyncio.sleep(0.1)
    live.update(picture, published, end, final=True)
    return await check.audit(log, topics, scoring(artefacts, project))


def missing_parts(found: Audit) -> list[str]:
    """Which parts of the loop did not happen, in words."""
    said = list(found.complaints)
    for n, what in (
        (found.rows, "rows"),
        (found.predictions, "predictions"),
        (found.outcomes, "outcomes"),
        (found.statistics, "drift and quality windows"),
        (found.retrains_by_alarm, "retrains because of an alarm"),
        (found.promotions, "promotions of a challenger"),
    ):
        if not n:
            said.append(f"no {what}")
    return said + worse(found, demanding=True)


def _finish(found: Audit, seconds: float, json: bool, demanding: bool, files: Sequence[Inspection] = ()) -> int:
    """Say how it went; returns the exit code."""
    wrong = missing_parts(found) if demanding else list(found.complaints)
    bad = sum(len(each.bad) for each in files)
    if json:
        said = {**summary(found, seconds), "refused": bad, "refusals": refusals(files), "complaints": wrong}
        print(msgspec.json.encode(said).decode(), flush=True)
    else:
        print(f"\nchecked from the topics alone, after {seconds:.1f} s:")
        lines = [*check.lines(found), *([] if demanding else (f"WORSE: {what}" for what in worse(found)))]
        lines += [f"WRONG: {complaint}" for complaint in wrong]
        if bad:
            lines.append(f"LEFT OUT: {count(bad, 'row')} of the files could not be read; the first ones are named above")
        for line in lines:
            print(f"  {line}")
    return 1 if wrong or bad else 0


def _say(json: bool, text: str) -> None:
    if json:
        print(msgspec.json.encode({"type": "runs_on", "text": text}).decode(), flush=True)
    else:
        print(text, flush=True)
