"""`penstock demo` and `penstock simulate`: real flights, or your own files, through the whole loop, and then the audit."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from penstock.artefact import Artefacts
from penstock.cli import screen
from penstock.cli.live import Live
from penstock.cli.options import project_of
from penstock.cli.publish import inspected
from penstock.cli.supervising import processes
from penstock.duration import DAY, HOUR
from penstock.errors import DefinitionError, PenstockError
from penstock.event import from_micros, to_micros
from penstock.files import Inspection, in_folder, refusals
from penstock.local import kafka as local_kafka
from penstock.local import port, state
from penstock.local import redis as local_redis
from penstock.local.process import LocalError
from penstock.local.server import LocalServer
from penstock.local.supervisor import Supervisor
from penstock.log.kafka import KafkaLog
from penstock.log.security import PLAIN
from penstock.offline import Location, Tables
from penstock.picture import Picture
from penstock.policy import Labels
from penstock.project import Project
from penstock.proof import audit as check
from penstock.proof.audit import Audit
from penstock.publish import Publisher, sampled
from penstock.runtime.lag import Lag
from penstock.runtime.telemetry import Tracing
from penstock.settings import SERVICES, Settings
from penstock.topics import Topics

from .embedded import Event, scoring, slices
from .simulate import in_order, slice_of, summary, worse
from .simulate import simulate as run_simulation

__all__ = ["Platform", "at_rest", "connected", "demo", "drive", "publish", "running", "services", "simulate", "until"]

PLACES = ("embedded: one process, nothing is kept", "Kafka and Redis on this machine, one process per service")
MOST_LAG = 6_000
"""Scored events published and not yet answered; the publisher waits above it."""
Waiting = Mapping[str, int]
LOOK = 0.1
"""Seconds between two looks at a loop that comes to rest."""
STUCK_SECONDS = 120.0
"""Without any movement for so long, the loop will not come to rest; the audit says what is missing. A fit of the demo moves
nothing for a few seconds."""


def demo(settings: Settings, days: int, embedded: bool | None, partitions: int, json: bool, tables: str | None = None) -> int:
    """Replay flights; exit code 0 only if every part of the loop really happened."""
    from penstock.examples.flights.data import events

    project, kept = project_of(settings), _empty(tables)
    kafka, why = _where(embedded)
    text = f"{PLACES[kafka]} ({why})"
    screen.answer({"type": "runs_on", "text": text}, text)
    stream = list(events(days))

    async def work(live: Live) -> Audit:
        if not kafka:
            return await _embedded(project, stream, live, settings.seed, kept.location if kept else None)
        folder = (settings.data / "demo").absolute()
        if state.supervisor_of(folder) is not None:
            raise LocalError(f"another demo runs in {folder}", "wait for its end, or choose another folder:  PENSTOCK_DATA=...")
        shutil.rmtree(folder, ignore_errors=True)
        ports = {service: port.free() for service in SERVICES}
        async with running(settings, project, folder, partitions, ports, live.tell) as platform:
            live.title += f"   http://127.0.0.1:{ports['dashboard']}"
            live.tell(f"dashboard: http://127.0.0.1:{ports['dashboard']}")
            return await drive(platform, stream, live)

    code = _shown(f"penstock demo: {days} days of flights", stream, work, json, demanding=True)
    if kept is not None:
        screen.note(f"-> PENSTOCK_TABLES={kept.location} penstock report --html report.html")
    return code


def _empty(tables: str | None) -> Tables | None:
    """Where a run keeps its tables, which nothing may be in yet."""
    kept = Tables(tables) if tables is not None else None
    if kept is not None and kept.names():
        fix = "name another folder, or remove this one: a run begins with empty tables"
        raise PenstockError(f"there are tables in {kept.location} already", fix)
    return kept


def simulate(settings: Settings, folder: Path, days: int | None, utc: bool, json: bool, tables: str | None = None) -> int:
    """The whole loop in one process from a folder of files, one per event; exit code 1 where rows were left out."""
    project, kept = project_of(settings), _empty(tables)
    found = inspected(in_folder(folder, project.events, utc))
    stream = in_order(project, found, days)
    if not stream:
        raise DefinitionError(f"{folder} holds no event that can be read", "compare its files with the fields:  penstock check")
    title = f"penstock simulate: {project.name}"
    where = kept.location if kept is not None else None
    code = _shown(title, stream, lambda live: _embedded(project, stream, live, settings.seed, where), json, False, found)
    if kept is not None:
        screen.note(f"-> PENSTOCK_TABLES={kept.location} penstock tables list   (penstock report MODEL --html report.html)")
    return code


def _shown(
    title: str,
    stream: Sequence[Event],
    work: Callable[[Live], Awaitable[Audit]],
    json: bool,
    demanding: bool,
    files: Sequence[Inspection] = (),
) -> int:
    """Run it while people watch, and say what the audit found; the exit code."""
    gc.set_threshold(100_000, 50, 100)  # as in `__main__`
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # the screen tells the story
    screen.hush()  # clients that lose their broker when all ends say so at length
    began = time.perf_counter()

    async def run() -> Audit:
        start, end = from_micros(stream[0][3]), from_micros(stream[-1][3])
        with Live(f"{title}, {len(stream):,} events", start, end, len(stream), json) as live:
            return await work(live)

    found = asyncio.run(run())
    seconds = time.perf_counter() - began
    wrong = missing_parts(found) if demanding else list(found.complaints)
    bad = sum(len(each.bad) for each in files)
    lines = [*check.lines(found), *([] if demanding else (f"NOTE: {what}" for what in worse(found)))]
    lines += [f"WRONG: {complaint}" for complaint in wrong]
    if bad:
        lines.append(f"LEFT OUT: {screen.count(bad, 'row')} of the files could not be read; the first ones are named above")
    screen.answer(
        {**summary(found, seconds), "refused": bad, "refusals": refusals(files), "complaints": wrong},
        f"\nchecked from the topics alone, after {seconds:.1f} s:",
        (f"  {line}" for line in lines),
    )
    return 1 if wrong or bad else 0


def _where(embedded: bool | None) -> tuple[bool, str]:
    """Whether to use Kafka, and the reason in words."""
    missing = local_kafka.available() or local_redis.available()
    if embedded is not None and not (missing and not embedded):
        return not embedded, "asked for"
    if not missing:
        return True, "Java 17+, Maven and redis-server are here"
    if embedded is None:
        return False, missing.partition(" -> ")[0]
    raise LocalError.of(missing)


async def _embedded(project: Project, stream: Sequence[Event], live: Live, seed: int, tables: Location | None = None) -> Audit:
    def watch(picture: Picture, published: int, micros: int) -> None:
        live.update(picture, published, from_micros(micros))

    done = await run_simulation(project, stream, tables=tables, watch=watch, seed=seed)
    live.update(done.picture, len(stream), from_micros(stream[-1][3]), final=True)
    return done.audit


@dataclass(frozen=True)
class Platform:
    """A project on Kafka, as whoever publishes to it has it."""

    publisher: Publisher
    lag: Lag
    artefacts: Artefacts


@asynccontextmanager
async def connected(settings: Settings, topics: Topics, kafka: str, folder: Path) -> AsyncIterator[Platform]:
    """The platform of services that keep their artefacts in `folder`, on a broker that is there; its topics are created."""
    log, tracing = KafkaLog(kafka, "penstock-demo"), Tracing("publisher", settings.otel_exporter_otlp_endpoint)
    lag = Lag(kafka, log, topics)
    try:
        await log.create(topics.all())
        publisher = Publisher(log, topics, trace=sampled(settings.trace_sample), tracing=tracing)
        yield Platform(publisher, lag, Artefacts(folder / "models"))
    finally:
        await lag.close()
        await log.close()
        tracing.close()


def services(
    settings: Settings,
    folder: Path,
    kafka: str,
    redis: str,
    servers: Sequence[LocalServer] = (),
    grace: float = 8.0,
    ports: Mapping[str, int] | None = None,
) -> Supervisor:
    """One process for each service, with all that they keep in `folder`; without `ports` on any that are free."""
    ports = ports or {service: port.free() for service in SERVICES}
    plain = {"kafka_security_protocol": PLAIN.protocol}
    here = settings.model_copy(
        update={"data": folder, **plain, **{f"{service}_port": number for service, number in ports.items()}}
    )
    told = {f"PENSTOCK_{service.upper()}_PORT": str(number) for service, number in ports.items()}
    told["PENSTOCK_SEED"] = str(settings.seed)
    named = [
        replace(process, env={**process.env, **told, "PENSTOCK_INSTANCE": process.name})
        for process in processes(here, list(SERVICES), kafka, redis)
    ]
    return Supervisor(folder, named, servers, ready_seconds=120.0, grace=grace)


@asynccontextmanager
async def running(
    settings: Settings,
    project: Project,
    folder: Path,
    partitions: int,
    ports: Mapping[str, int] | None = None,
    say: Callable[[str], None] = screen.note,
) -> AsyncIterator[Platform]:
    """Broker, Redis and one process per service, all in `folder`. Nothing is left when it ends, and nobody is still connected
    to a broker that ends: clients complain at length of one."""
    kafka, redis = local_kafka.LocalKafka(folder / "kafka"), local_redis.LocalRedis(folder / "redis")
    topics = Topics(project, partitions)
    try:
        say("starting Kafka and Redis")
        servers = asyncio.gather(asyncio.to_thread(kafka.start), asyncio.to_thread(redis.start))
        await screen.patiently(servers, "starting Kafka and Redis", say)
        async with connected(settings, topics, kafka.bootstrap, folder):
            pass  # the topics are there now, which services ask for
        supervisor = services(settings, folder, kafka.bootstrap, redis.url, [kafka, redis], ports=ports)
        say(f"starting {len(SERVICES)} services")
        await screen.patiently(supervisor.up(), f"starting {len(SERVICES)} services", say)
        try:
            async with connected(settings, topics, kafka.bootstrap, folder) as platform:
                yield platform
        finally:
            await supervisor.down()
    finally:
        for server in (kafka, redis):
            await asyncio.to_thread(server.stop)


async def drive(platform: Platform, stream: Sequence[Event], live: Live) -> Audit:
    """Publish at the pace of the loop, wait until it is at rest, and audit."""
    publisher, topics = platform.publisher, platform.publisher.topics
    picture, published, at = Picture(topics), 0, stream[0][3]
    picture.now = from_micros(at)  # whatever came before is closed
    closed = at

    def show() -> None:
        live.update(picture, published, from_micros(at))

    for part, before in slices(stream, max(slice_of(topics.project), HOUR)):
        await until(keeps_up, platform, picture, closed, show)
        await publish(publisher, part, before)
        published, at, closed = published + len(part), part[-1][3], before
    await until(at_rest, platform, picture, at, show)
    live.update(picture, published, from_micros(at), final=True)
    return await check.audit(publisher.log, topics, scoring(platform.artefacts, topics.project))


async def until(
    holds: Callable[[Picture, Waiting, int], bool],
    platform: Platform,
    picture: Picture,
    at: int,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Look until it holds of a time (microseconds), or nothing has moved for STUCK_SECONDS."""
    moved, last = time.monotonic(), None
    while time.monotonic() - moved < STUCK_SECONDS:
        await picture.watch(platform.publisher.log)
        show()
        waiting = await platform.lag.records()
        if waiting is not None and holds(picture, waiting, at):
            break
        if (waiting, picture.counts, picture.read) != last:
            moved, last = time.monotonic(), (waiting, dict(picture.counts), picture.read)
        await asyncio.sleep(LOOK)


def keeps_up(picture: Picture, waiting: Waiting, closed: int) -> bool:
    """Whether everything before `closed` is nearly answered, its windows closed, and what follows from them decided.

    So on a slow machine, too, an event is answered by the version that was in charge by then.
    """
    project = picture.topics.project
    if not project.models:
        return picture.counts["scored"] - picture.counts["rows"] < MOST_LAG
    monitors = [monitor for model in project.models for monitor in model.monitors if not isinstance(monitor, Labels)]
    window = max((monitor.every for monitor in monitors), default=DAY)
    if picture.now is None or to_micros(picture.now) < closed // window * window:
        return False
    decided = not any(waiting[f"{picture.topics.prefix}.{name}"] for name in ("trainer", "registry"))
    return decided and picture.counts["scored"] - picture.counts["predictions"] < MOST_LAG


def at_rest(picture: Picture, waiting: Waiting, at: int) -> bool:
    """Whether all records are done, and so is time: every shard has agreed to close the windows of the newest event."""
    if picture.topics.project.models and (picture.now is None or picture.now <= from_micros(at)):
        return False
    return not any(waiting.values())


async def publish(publisher: Publisher, part: Sequence[Event], before: int) -> None:
    """Publish events, kind by kind, and close the time before `before`."""
    by_topic: dict[str, list[tuple[bytes, bytes, int]]] = defaultdict(list)
    for topic, key, value, moment in part:
        by_topic[topic].append((key, value, moment))
    for topic, records in by_topic.items():
        await publisher.send(topic, records)
    await publisher.close(before)


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
