"""The same flights give the same rows, byte for byte: in memory or on Kafka, on 1, 4 or 8 partitions, live or caught up.

Only the cursor may differ, which says where each row came from. Each run has topics of its own: the example's project file
with other topic names.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec
import pytest

from penstock.duration import HOUR
from penstock.examples import flights
from penstock.examples.flights.data import events
from penstock.log import Log, Reader
from penstock.log.kafka import KafkaLog
from penstock.project import Project, load
from penstock.publish import FOREVER, Publisher
from penstock.services.embedded import Event
from penstock.services.feature_store.service import lanes
from penstock.services.simulate import simulate
from penstock.store.redis import RedisStore
from penstock.topics import Topics

Rows = dict[str, bytes]
DEADLINE = 120.0
MOST_BEHIND = 1_000
"""Rows that a live run may be behind its publisher."""


def copy(folder: Path, name: str) -> Project:
    """The flights project under another name with topics of its own, without its model: what it asks of the feature store."""
    source = Path(flights.__file__).read_text(encoding="utf-8")
    source, _, _ = source.replace('@ps.event("', f'@ps.event("{name}-').partition("@ps.model(")
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(
        f'{source}\nproject = ps.Project("{name}", rows={{Scheduled: [Origin, Carrier, Destination, Aircraft, Path]}})\n',
        encoding="utf-8",
    )
    return load(str(file))


def stream(name: str, days: int) -> list[Event]:
    """Flights for the copy of that name."""
    return [(f"{name}-{topic}", key, value, micros) for topic, key, value, micros in events(days)]


class Collected:
    """Rows by id, the cursor aside, as far as they have come. A row that was published again must say the same."""

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log, self._names = log, [topics.rows(event) for event in topics.project.topology.reads]
        self._reader: Reader | None = None
        self.rows: Rows = {}

    async def count(self) -> int:
        """How many there are by now."""
        if self._reader is None:
            self._reader = await self._log.reader(await self._log.begins(self._names))
        while batches := await self._reader.read(20_000, 0.0):
            for value in (value for batch in batches for value in batch.values):
                assert value is not None
                body, mark, _ = value.rpartition(b',"cursor":')
                assert mark, f"a row without a cursor: {value[:200]!r}"
                name = _id(value).id
                assert self.rows.setdefault(name, body) == body, f"the row of {name} was published with two values"
        return len(self.rows)


class _Id(msgspec.Struct):
    id: str


_id = msgspec.json.Decoder(_Id).decode


async def everything(log: Log, topics: Topics) -> Rows:
    collected = Collected(log, topics)
    await collected.count()
    return collected.rows


def in_memory(project: Project, flown: Sequence[Event], partitions: int) -> Rows:
    async def go() -> Rows:
        done = await simulate(project, flown, partitions=partitions)
        assert done.audit.complaints == []
        return await everything(done.machine.log, done.machine.topics)

    return asyncio.run(go())


class OnKafka:
    """A run on a real broker and a real Redis: feature stores in this process, a publisher beside them."""

    def __init__(self, bootstrap: str, redis_url: str, folder: Path, name: str, partitions: int) -> None:
        self.bootstrap, self.redis_url = bootstrap, redis_url
        self.topics = Topics(copy(folder, name), partitions)
        self.asked = 0
        self.collected: Collected

    async def rows(self, flown: Sequence[Event], members: int, stopped: bool) -> Rows:
        """Publish all of it and wait for its rows; with `stopped` nobody reads during the second half, and others catch up."""
        async with AsyncExitStack() as stack:
            log = KafkaLog(self.bootstrap)
            stack.push_async_callback(log.close)
            await log.create(self.topics.all())
            self.collected = Collected(log, self.topics)
            publisher, half = Publisher(log, self.topics), len(flown) // 2
            async with _FeatureStores(self, members):
                await self._publish(publisher, flown[:half], flown[half][3])
                if not stopped:
                    await self._publish(publisher, flown[half:], FOREVER)
                    await self._until_behind(0)
            if stopped:
                await self._publish(publisher, flown[half:], FOREVER, wait=False)
                assert self.asked - await self.collected.count() > len(flown) // 10, "nothing was left to catch up with"
                async with _FeatureStores(self, members):
                    await self._until_behind(0)
            return self.collected.rows

    async def _publish(self, publisher: Publisher, flown: Sequence[Event], end: int, wait: bool = True) -> None:
        """In pieces of one hour to one day, each closed as it is out, never far ahead of the rows."""
        fate, first = random.Random(self.topics.prefix), 0
        while first < len(flown):
            until, last = flown[first][3] + fate.randint(1, 24) * HOUR, first
            by_topic: dict[str, list[tuple[bytes, bytes, int]]] = {}
            while last < len(flown) and flown[last][3] < until:
                topic, *record = flown[last]
                by_topic.setdefault(topic, []).append((record[0], record[1], record[2]))
                last += 1
            for topic, records in by_topic.items():
                await publisher.send(topic, records)
            await publisher.close(flown[last][3] if last < len(flown) else end)
            self.asked += len(by_topic.get(next(iter(self.topics.project.topology.reads)).topic, ()))
            first = last
            if wait:
                await self._until_behind(MOST_BEHIND)

    async def _until_behind(self, most: int) -> None:
        deadline = time.monotonic() + DEADLINE
        while self.asked - await self.collected.count() > most:
            if time.monotonic() > deadline:
                behind = self.asked - await self.collected.count()
                pytest.fail(f"{behind} of {self.asked} rows did not come within {DEADLINE:.0f} s; what does the merge wait for?")
            await asyncio.sleep(0.02)


class _FeatureStores:
    """Feature stores that share the partitions; leaving the context ends them in the middle of whatever they do."""

    def __init__(self, run: OnKafka, members: int) -> None:
        self._logs = [KafkaLog(run.bootstrap, f"{run.topics.prefix}-{n}") for n in range(members)]
        self._stores = [RedisStore(run.redis_url, run.topics.prefix) for _ in self._logs]
        self._lanes = [
            lane for log, store in zip(self._logs, self._stores, strict=True) for lane in lanes(run.topics, log, store)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(lane.run()) for lane in self._lanes]

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        for one in (*self._lanes, *self._logs, *self._stores):
            await one.close()


def on_kafka(run: OnKafka, flown: Iterable[Event], members: int = 1, stopped: bool = False) -> Rows:
    return asyncio.run(run.rows(list(flown), members, stopped))


def assert_same(rows: Rows, reference: Rows) -> None:
    assert len(rows) == len(reference), f"{len(rows)} rows instead of {len(reference)}"
    different = [name for name in reference if rows.get(name) != reference[name]]
    assert not different, (
        f"{len(different)} of {len(reference)} rows differ, such as {different[0]}:\n"
        f"{rows.get(different[0])!r}\ninstead of\n{reference[different[0]]!r}"
    )


# -- five days, in every run of the tests ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def five_days(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    rows = in_memory(copy(tmp_path_factory.mktemp("five"), "five"), stream("five", 5), 1)
    assert len(rows) > 4_000
    return rows


@pytest.mark.parametrize(("partitions", "members", "stopped"), [(1, 1, False), (4, 1, False), (4, 1, True)])
def test_five_days_on_kafka_give_the_rows_of_a_simulation(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, five_days: Rows, partitions: int, members: int, stopped: bool
) -> None:
    name = f"five-{partitions}-{'stopped' if stopped else 'live'}"
    run = OnKafka(kafka_bootstrap, redis_url, tmp_path, name, partitions)
    assert_same(on_kafka(run, stream(name, 5), members, stopped), five_days)


# -- thirty days -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thirty_days(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """From `penstock simulate`: a week at a time."""
    rows = in_memory(copy(tmp_path_factory.mktemp("thirty"), "thirty"), stream("thirty", 30), 1)
    assert len(rows) > 25_000
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [1, 4, 8])
def test_thirty_days_embedded_give_the_rows_of_a_simulation(tmp_path: Path, thirty_days: Rows, partitions: int) -> None:
    """Embedded runs the whole loop, models and all, in pieces of six hours."""

    async def go() -> Rows:
        done = await simulate(flights.project, list(events(30)), partitions=partitions)
        return await everything(done.machine.log, done.machine.topics)

    assert_same(asyncio.run(go()), thirty_days)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("partitions", "members", "stopped"),
    [(1, 1, False), (4, 1, False), (8, 2, False), (1, 1, True), (4, 2, True), (8, 1, True)],
)
def test_thirty_days_on_kafka_give_the_rows_of_a_simulation(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, thirty_days: Rows, partitions: int, members: int, stopped: bool
) -> None:
    name = f"thirty-{partitions}-{'stopped' if stopped else 'live'}"
    run = OnKafka(kafka_bootstrap, redis_url, tmp_path, name, partitions)
    assert_same(on_kafka(run, stream(name, 30), members, stopped), thirty_days)
