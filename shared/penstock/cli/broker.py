"""Where the log is, for commands that use it: the broker that is set, else the one that `penstock up` runs; for those that only
read what is counted, decided and said, else the offline tables."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from ..errors import PenstockError, Unreachable
from ..log import Batch, Headers, Log, LogError, Partition, Readable
from ..log.security import PLAIN, Security
from . import screen

if TYPE_CHECKING:
    from datetime import datetime

    from ..settings import Settings
    from ..topics import Topics

__all__ = [
    "Found",
    "as_json",
    "connected",
    "dealt",
    "flat",
    "held",
    "known",
    "latest",
    "read",
    "records",
    "refusal",
    "security_of",
    "servers",
    "use",
]

T = TypeVar("T")

AT_ONCE: Final = 500
"""Records in one read."""
NEWEST: Final = 100
"""Records that are asked for the time of the stream: the last ones may close all time, at its end."""


class Found(NamedTuple):
    """One record with its place."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def use(settings: Settings, work: Callable[[Log], Awaitable[T]], doing: str) -> T:
    """Do something with the log. `doing` is said when it takes long."""

    async def inside() -> T:
        async with connected(settings) as log:
            return await screen.patiently(work(log), doing) if doing else await work(log)

    return asyncio.run(inside())


def read(settings: Settings, topics: Topics, work: Callable[[Readable], Awaitable[T]], doing: str) -> T:
    """Do something with what is counted, decided and said: with the log, or where no broker is set and none runs here (or with
    --tables) with what the offline tables keep of it, which is said."""
    from ..offline import Tables
    from ..offline.kept import KeptLog
    from .options import chosen

    if not chosen.tables and servers(settings)[0]:
        try:
            return use(settings, work, doing)
        except Unreachable as error:
            raise Unreachable(str(error), f"{error.fix}   or from the tables:  --tables") from None
    kept = KeptLog(Tables(settings.offline), topics)
    if not kept.there and not chosen.tables:
        try:
            return use(settings, work, doing)
        except Unreachable as error:
            fix = "or make tables of your files:  penstock simulate --input DIR --tables OUT, then PENSTOCK_TABLES=OUT"
            raise Unreachable(str(error), f"{error.fix}   {fix}") from None
    chosen.tables = True

    async def inside() -> T:
        found = await screen.patiently(work(kept), doing)
        until = await latest(kept, topics)
        said = "from the tables" + (f", up to {until:%Y-%m-%d %H:%M}" if until else f" in {settings.offline}")
        if said != chosen.told:  # a command may read twice
            screen.note(said)
        chosen.told = said
        return found

    return asyncio.run(inside())


async def latest(log: Readable, topics: Topics) -> datetime | None:
    """The stream time of the newest window, day or alarm that a log tells of; None where it tells of none."""
    import msgspec

    from ..records import Alarm, DataQuality, Statistic
    from ..report.records import FOREVER

    there = await log.describe()
    found: list[datetime] = []
    kinds: dict[str, Any] = {topics.statistics(model.name): Statistic for model in topics.project.models}
    for topic, kind in (kinds | {topics.quality: DataQuality, topics.alarms: Alarm}).items():
        if topic in there:
            ends = await log.ends([topic])
            begins = await log.begins([topic])
            newest = {place: max(end - NEWEST, begins[place]) for place, end in ends.items()}
            said = [msgspec.json.decode(each.value or b"", type=kind) async for each in records(log, newest, ends)]
            found += [each.at if isinstance(each, Alarm) else each.end for each in said]
    return max((at for at in found if at.year < FOREVER), default=None)


def refusal(error: LogError) -> PenstockError:
    """A LogError as an error of the command line: its last clause is what to type."""
    what, _, fix = str(error).rpartition("; ")
    kind = Unreachable if "Kafka at " in str(error) else PenstockError
    return kind(what, fix.rpartition(": ")[2]) if what else kind(str(error), "penstock doctor")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Log]:
    """The log on Kafka; Unreachable within two seconds where no broker answers."""
    screen.hush()
    bootstrap, _ = servers(settings)
    if not bootstrap:
        raise Unreachable(
            f"no broker: KAFKA_BOOTSTRAP_SERVERS is not set, and none runs in {settings.data}",
            "penstock up --detach   or   export KAFKA_BOOTSTRAP_SERVERS=host:port",
        )
    security = security_of(settings)
    await asyncio.to_thread(_ask, bootstrap, security)
    from ..log.kafka import KafkaLog

    log = KafkaLog(bootstrap, "penstock-cli", security=security)
    try:
        yield log
    finally:
        await log.close()


def security_of(settings: Settings) -> Security:
    """How to talk to the broker; the one that runs here is for this machine only."""
    return settings.security if settings.kafka_bootstrap_servers else PLAIN


def servers(settings: Settings) -> tuple[str, str]:
    """Where Kafka and Redis are: where the settings say, else those that `penstock up` runs here; empty where none is."""
    from ..local import status

    running = {entry.name: entry.url for entry in status(settings.data) if entry.running}
    kafka = settings.kafka_bootstrap_servers or running.get("kafka", "").removeprefix("kafka://")
    return kafka, settings.redis_url.get_secret_value() or running.get("redis", "")


def _ask(bootstrap: str, security: Security) -> None:
    """See whether one of the brokers answers, because a client library takes much longer to find out."""
    from ..local.doctor import called, endpoint, reason

    said = ""
    for place in bootstrap.split(","):
        try:
            if called(*endpoint(place), security):
                return
            said = "no broker is in service yet"
        except (OSError, ValueError) as error:
            said = reason(error)
    raise Unreachable(f"Kafka at {bootstrap}: {said}", "penstock doctor   (start one: penstock up --detach)")


def known(topic: str, counts: dict[str, int]) -> str:
    """The topic, if it exists; else an error that names the nearest."""
    from .options import chosen

    if topic in counts:
        return topic
    if chosen.tables:
        fix = "penstock tables list   or of your files:  penstock simulate --input DIR --tables OUT, then PENSTOCK_TABLES=OUT"
        raise PenstockError(f"no table keeps {topic}", fix)
    near = get_close_matches(topic, counts, n=1, cutoff=0.5)
    raise PenstockError(f"topic {topic} does not exist", f"did you mean {near[0]}?" if near else "penstock topics list")


async def held(log: Readable, topic: str) -> AsyncIterator[Found]:
    """Every record that a topic holds now."""
    async for found in records(log, await log.begins([topic]), await log.ends([topic])):
        yield found


async def records(log: Readable, starts: dict[Partition, int], until: dict[Partition, int]) -> AsyncIterator[Found]:
    """Records from `starts` up to `until`. Order holds within a partition."""
    left = {p for p, start in starts.items() if start < until[p]}
    if not left:
        return
    reader = await log.reader({p: starts[p] for p in left})
    try:
        while left:
            batches = await reader.read(AT_ONCE, 0.5)
            for found in flat(batches):
                if found.offset < until[found.partition]:
                    yield found
            left -= {batch.partition for batch in batches if batch.next >= until[batch.partition]}
    finally:
        await reader.close()


def flat(batches: Sequence[Batch]) -> Iterator[Found]:
    """Records one by one."""
    for batch in batches:
        headers = batch.headers or ((),) * len(batch)
        for row in zip(batch.offsets, batch.keys, batch.values, headers, strict=True):
            yield Found(batch.partition, *row)


def dealt(begins: dict[Partition, int], ends: dict[Partition, int], number: int) -> dict[Partition, int]:
    """Start positions so that `number` records follow in all, or all there are: as fairly over the partitions as they hold
    any (nobody knows which is the newest of two partitions). Pure.

    >>> a, b = Partition("t", 0), Partition("t", 1)
    >>> list(dealt({a: 0, b: 0}, {a: 9, b: 1}, 4).values())
    [6, 0]
    """
    starts = dict(ends)
    for left, partition in zip(range(len(ends), 0, -1), sorted(ends, key=lambda p: ends[p] - begins[p]), strict=True):
        share = min(ends[partition] - begins[partition], -(-number // left))
        starts[partition] -= share
        number -= share
    return starts


def as_json(found: Found) -> dict[str, Any]:
    """A record for programs: JSON values as JSON, other text as text, other bytes in base64."""
    import msgspec

    def text(value: bytes | None) -> Any:
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value or b"").decode()}

    try:
        value = msgspec.json.decode(found.value or b"")
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        value = text(found.value)
    return {
        "topic": found.partition.topic,
        "partition": found.partition.number,
        "offset": found.offset,
        "key": text(found.key),
        "value": value,
        "headers": {name: text(content) for name, content in found.headers},
    }
