"""The same flights give the same rows, byte for byte: in memory or on Kafka, on 1, 4 or 8 partitions, live or caught up
after all services were killed for half of the input.

Only the cursor may differ, which says where each row came from. Each run has topics of its own: the example's project file
with other topic names.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from penstock.duration import HOUR
from penstock.examples import flights
from penstock.examples.flights.data import events
from penstock.log import Log, Reader
from penstock.log.kafka import KafkaLog
from penstock.picture import Picture
from penstock.project import Project, load
from penstock.proof.audit import Audit, audit
from penstock.publish import FOREVER, Publisher
from penstock.services.demo import at_rest, connected, publish, services, until
from penstock.services.embedded import Event
from penstock.services.feature_store.service import lanes
from penstock.services.simulate import simulate
from penstock.settings import load as load_settings
from penstock.store.redis import RedisStore
from penstock.topics import Topics

Rows = dict[str, bytes]
DEADLINE = 120.0
MOST_BEHIND = 1_000
"""Rows that a live run may be behind its publisher."""


def file_of(folder: Path, name: str, model: bool = False) -> Path:
    """The flights project under another name with topics of its own; without its model it asks of the feature store alone."""
    source = Path(flights.__file__).read_text(encoding="utf-8").replace('@ps.event("', f'@ps.event("{name}-')
    source = source.replace('ps.Project("flights"', f'ps.Project("{name}"')
    if not model:
        rows = "rows={Scheduled: [Origin, Carrier, Destination, Aircraft, Path]}"
        source = f'{source.partition("@ps.model(")[0]}\nproject = ps.Project("{name}", {rows})\n'
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(source, encoding="utf-8")
    return file


def copy(folder: Path, name: str) -> Project:
    return load(str(file_of(folder, name)))


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
    """A run on a real broker and a real Redis, of which this process is the publisher."""

    def __init__(self, log: KafkaLog, topics: Topics) -> None:
        self.topics, self.publisher = topics, Publisher(log, topics)
        self.collected = Collected(log, topics)
        self.asked = 0

    async def publish(self, flown: Sequence[Event], end: int, wait: bool = True) -> None:
        """In pieces of one hour to one day, each closed as it is out, never far ahead of the rows."""
        fate, first = random.Random(self.topics.prefix), 0
        scored = next(iter(self.topics.project.topology.reads)).topic
        while first < len(flown):
            until, last = flown[first][3] + fate.randint(1, 24) * HOUR, first
            while last < len(flown) and flown[last][3] < until:
                last += 1
            await publish(self.publisher, flown[first:last], flown[last][3] if last < len(flown) else end)
            self.asked += sum(event[0] == scored for event in flown[first:last])
            first = last
            if wait:
                await self.until_behind(MOST_BEHIND)

    async def until_behind(self, most: int) -> None:
        deadline = time.monotonic() + DEADLINE
        while (behind := self.asked - await self.collected.count()) > most:
            if time.monotonic() > deadline:
                pytest.fail(f"{behind} of {self.asked} rows did not come within {DEADLINE:.0f} s; what does the merge wait for?")
            await asyncio.sleep(0.02)


@asynccontextmanager
async def feature_stores(bootstrap: str, redis_url: str, topics: Topics, members: int) -> AsyncIterator[None]:
    """Feature stores in this process that share the partitions, ended in the middle of whatever they do."""
    logs = [KafkaLog(bootstrap, f"{topics.prefix}-{n}") for n in range(members)]
    stores = [RedisStore(redis_url, topics.prefix) for _ in logs]
    found = [lane for log, store in zip(logs, stores, strict=True) for lane in lanes(topics, log, store)]
    tasks = [asyncio.create_task(lane.run()) for lane in found]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in (*found, *logs, *stores):
            await one.close()


def with_feature_stores(
    bootstrap: str, redis_url: str, topics: Topics, flown: Sequence[Event], members: int, stopped: bool
) -> Rows:
    """The rows of feature stores; with `stopped` nobody reads during the second half, and others catch up."""

    async def go() -> Rows:
        async with AsyncExitStack() as stack:
            log, half = KafkaLog(bootstrap), len(flown) // 2
            stack.push_async_callback(log.close)
            await log.create(topics.all())
            run = OnKafka(log, topics)
            async with feature_stores(bootstrap, redis_url, topics, members):
                await run.publish(flown[:half], flown[half][3])
                if not stopped:
                    await run.publish(flown[half:], FOREVER)
                    await run.until_behind(0)
            if stopped:
                await run.publish(flown[half:], FOREVER, wait=False)
                assert run.asked - await run.collected.count() > len(flown) // 10, "nothing was left to catch up with"
                async with feature_stores(bootstrap, redis_url, topics, members):
                    await run.until_behind(0)
            return run.collected.rows

    return asyncio.run(go())


def with_all_services(bootstrap: str, redis_url: str, file: Path, partitions: int, flown: Sequence[Event]) -> tuple[Rows, Audit]:
    """The rows of all services, one process each, of which none ran while the middle half of the input was published."""
    settings = load_settings(project=str(file), trace_sample=0.0)
    topics, folder, quarter = Topics(load(str(file)), partitions), file.parent, len(flown) // 4

    async def go() -> tuple[Rows, Audit]:
        async with connected(settings, topics, bootstrap, folder) as platform:
            log, run = platform.publisher.log, OnKafka(platform.publisher.log, topics)
            first = services(settings, folder, bootstrap, redis_url, grace=0.0)
            await first.up()
            try:
                await run.publish(flown[:quarter], flown[quarter][3])
            finally:
                await first.down()  # without grace: killed in the middle of whatever they do
            await run.publish(flown[quarter : 3 * quarter], flown[3 * quarter][3], wait=False)
            waiting = await platform.lag.records()
            assert waiting is not None
            assert waiting[topics.group("feature_store")] > len(flown) // 3, "nothing was left to catch up with"
            second = services(settings, folder, bootstrap, redis_url)
            await second.up()
            try:
                await run.publish(flown[3 * quarter :], FOREVER)
                await until(at_rest, platform, Picture(topics), flown[-1][3])
                await run.until_behind(0)
                return run.collected.rows, await audit(log, topics)
            finally:
                await second.down()

    return asyncio.run(go())


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
    topics = Topics(copy(tmp_path, name), partitions)
    assert_same(with_feature_stores(kafka_bootstrap, redis_url, topics, stream(name, 5), members, stopped), five_days)


# -- thirty days -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thirty_days(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """From `penstock simulate`: a week at a time."""
    rows = in_memory(copy(tmp_path_factory.mktemp("thirty"), "thirty"), stream("thirty", 30), 1)
    assert len(rows) > 25_000
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [1, 4, 8])
def test_thirty_days_embedded_give_the_rows_of_a_simulation(thirty_days: Rows, partitions: int) -> None:
    """Embedded runs the whole loop, models and all, in pieces of six hours."""

    async def go() -> Rows:
        done = await simulate(flights.project, list(events(30)), partitions=partitions)
        return await everything(done.machine.log, done.machine.topics)

    assert_same(asyncio.run(go()), thirty_days)


@pytest.mark.slow
@pytest.mark.parametrize(("partitions", "members"), [(1, 1), (4, 1), (8, 2)])
def test_thirty_days_live_on_kafka_give_the_rows_of_a_simulation(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, thirty_days: Rows, partitions: int, members: int
) -> None:
    topics = Topics(copy(tmp_path, name := f"thirty-{partitions}-live"), partitions)
    flown = stream(name, 30)
    assert_same(with_feature_stores(kafka_bootstrap, redis_url, topics, flown, members, stopped=False), thirty_days)


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [1, 4, 8])
def test_thirty_days_give_the_rows_of_a_simulation_when_all_services_were_killed_for_half_of_them(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, thirty_days: Rows, partitions: int
) -> None:
    file = file_of(tmp_path, name := f"thirty-{partitions}-stopped", model=True)
    rows, found = with_all_services(kafka_bootstrap, redis_url, file, partitions, stream(name, 30))
    assert_same(rows, thirty_days)
    assert (found.lost, found.counted_twice) == (0, 0), found.complaints
    assert found.predictions == found.rows
    assert found.outcomes > 25_000
