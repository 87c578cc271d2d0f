"""Logs to play a story on, in memory and on Kafka, and what the stories read with."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable

from penstock.log import (
    Batch,
    Gap,
    Log,
    Member,
    Partition,
    Reader,
    Send,
    Topic,
)
from penstock.log.kafka import KafkaLog
from penstock.log.memory import MemoryLog

STORY_SECONDS = 60.0  # above the slowest story (three rebalances of at most 6 s each)
SHORTEST_SESSION = 6.0  # the least that a broker allows by default
MIB = 1 << 20


class Given:
    """A log to play a story on, with topic names that no other test uses."""

    def __init__(self, bootstrap: str | None) -> None:
        self.bootstrap = bootstrap
        self.suffix = uuid.uuid4().hex[:12]

    def topic(self, name: str, partitions: int = 1, *, max_bytes: int = MIB, compacted: bool = False) -> Topic:
        return Topic(f"{name}-{self.suffix}", partitions, compacted, max_bytes)

    def play(self, story: Callable[[Log], Awaitable[None]]) -> None:
        async def staged() -> None:
            log: Log = MemoryLog() if self.bootstrap is None else KafkaLog(self.bootstrap, session=SHORTEST_SESSION)
            try:
                await asyncio.wait_for(story(log), STORY_SECONDS)
            finally:
                await log.close()

        asyncio.run(staged())

    async def forget(self, log: Log, partition: Partition, before: int) -> None:
        """Delete old records, as retention does."""
        if isinstance(log, MemoryLog):
            log.trim(partition, before)
            return
        from aiokafka import TopicPartition
        from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(*partition): RecordsToDelete(before)})
        finally:
            await admin.close()


async def read_until(reader: Reader, count: int, max_records: int = 1000) -> list[Batch]:
    """Read until `count` records came; what is missing shows in the assertion of whoever asked."""
    batches: list[Batch] = []
    for _ in range(200):
        batches += await reader.read(max_records, 0.1)
        if sum(map(len, batches)) >= count:
            return batches
    return batches


async def read_to_gap(reader: Reader) -> tuple[str, list[Batch]]:
    """What a gap said, and what came before it."""
    batches: list[Batch] = []
    for _ in range(20):
        try:
            batches += await reader.read(10, 0.5)
        except Gap as error:
            return str(error), batches
    raise AssertionError("twenty reads met no gap")


async def settled(*members: Member, numbers: int) -> None:
    """Read and drop until the members hold all partition numbers between them, each once."""
    while sorted(n for m in members for n in m.assigned) != list(range(numbers)):
        await asyncio.gather(*(m.read(1000, 0.2) for m in members))


def values(batches: Iterable[Batch]) -> list[bytes | None]:
    return [value for batch in batches for value in batch.values]


def by_partition(batches: Iterable[Batch]) -> dict[Partition, list[bytes | None]]:
    found: dict[Partition, list[bytes | None]] = {}
    for batch in batches:
        found.setdefault(batch.partition, []).extend(batch.values)
    return found


def numbered(topic: Topic, numbers: Iterable[int], partition: int = 0) -> list[Send]:
    return [Send(topic.name, None, b"%d" % n, partition=partition) for n in numbers]
