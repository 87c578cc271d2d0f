"""How far readers are behind, by what they have committed to a real broker."""

from __future__ import annotations

import asyncio

import penstock as ps
from penstock.log.kafka import KafkaLog
from penstock.publish import FOREVER, Publisher
from penstock.runtime.lag import Lag
from penstock.services.feature_store.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("lag-trips")
class Trip:
    trip_id: ps.Id[str]
    car: ps.Key[str]
    at: ps.EventTime


@ps.features(by=Trip.car)
class Car:
    trips = ps.count(Trip, over="1h")


TOPICS = Topics(ps.Project("lagging", rows={Trip: [Car]}), partitions=2)


async def known(lag: Lag) -> dict[str, int]:
    """A broker that has just started cannot say at first where groups are."""
    async with asyncio.timeout(30):
        while (found := await lag.records()) is None:
            await asyncio.sleep(0.1)
    return found


def test_what_no_reader_has_done_yet_is_counted_until_it_is_done(kafka_bootstrap: str) -> None:
    async def scenario() -> None:
        log = KafkaLog(kafka_bootstrap)
        await log.create(TOPICS.all())
        publisher, lag = Publisher(log, TOPICS), Lag(kafka_bootstrap, log, TOPICS)
        value = b'{"trip_id": "t%d", "car": "c%d", "at": "1970-01-01T00:00:00Z"}'
        await publisher.send("lag-trips", [(b"c%d" % n, value % (n, n), 0) for n in range(10)])
        [lane] = lanes(TOPICS, log, MemoryStore(), None)
        try:
            assert await known(lag) == {TOPICS.group("feature_store"): 10}
            for _ in range(20):
                await lane.turn()
            assert await known(lag) == {TOPICS.group("feature_store"): 10}, "read, but not done before its time is closed"
            await publisher.close(FOREVER)
            while await known(lag) != {TOPICS.group("feature_store"): 0}:
                await lane.turn()
            assert sum((await log.ends([TOPICS.rows(TOPICS.project.events[0])])).values()) == 10
        finally:
            await lane.close()
            await lag.close()
            await log.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_broker_that_is_away_is_not_taken_for_rest() -> None:
    lag = Lag("127.0.0.1:9", KafkaLog("127.0.0.1:9"), TOPICS)

    async def scenario() -> None:
        assert await lag.records() is None
        await lag.close()

    asyncio.run(scenario())
