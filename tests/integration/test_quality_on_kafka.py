"""On Kafka and Redis, with processes that end and come back, days are told as they are in memory."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import msgspec

from penstock.event import to_micros
from penstock.log import Send
from penstock.log.kafka import KafkaLog
from penstock.records import Clock, DataQuality
from penstock.services.feature_store import quality
from penstock.store.redis import RedisStore
from penstock.topics import Topics

from ..services.test_quality import START, history, project, whole

PARTITIONS = 2
DEADLINE = 90.0


def test_days_on_kafka_are_those_in_memory_though_the_process_is_ended_again_and_again(
    kafka_bootstrap: str, redis_url: str
) -> None:
    rides, rng = history(), random.Random(1)
    truth, _ = whole(rides, PARTITIONS)

    async def work() -> list[DataQuality]:
        topics, log = Topics(project, PARTITIONS), KafkaLog(kafka_bootstrap, "test-quality")
        await log.create(topics.all())
        for first in range(0, len(rides), 100):
            part = rides[first : first + 100]
            await log.send([Send("rides", ride["cab"].encode(), msgspec.json.encode(ride)) for ride in part])
            await lives(topics, rng.uniform(0.2, 1.5))
        ends = {"rides": {place.number: end for place, end in (await log.ends(["rides"])).items()}}
        clock = Clock(publisher="test", before=to_micros(START + timedelta(days=9)), ends=ends)
        await log.send([Send(topics.clock, b"test", msgspec.json.encode(clock))])
        running = asyncio.create_task(lives(topics, DEADLINE))
        found: dict[str, DataQuality] = {}
        reader = await log.reader(await log.begins([topics.quality]))
        async with asyncio.timeout(DEADLINE):
            while len(found) < len(truth):
                for batch in await reader.read(100, 0.5):
                    for value in batch.values:
                        said = msgspec.json.decode(value or b"", type=DataQuality)
                        assert found.setdefault(said.id, said) == said
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await reader.close()
        await log.close()
        return sorted(found.values(), key=lambda day: day.id)

    async def lives(topics: Topics, seconds: float) -> None:
        """A process for so long."""
        log, store = KafkaLog(kafka_bootstrap, "penstock-feature_store"), RedisStore(redis_url, project.name)
        lanes = quality.lanes(topics, log, store, every=0.2)
        tasks = [asyncio.create_task(lane.run()) for lane in lanes]
        try:
            await asyncio.sleep(seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for lane in lanes:
                await lane.close()
            await store.close()
            await log.close()

    assert asyncio.run(work()) == truth
