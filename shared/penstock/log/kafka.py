"""The log on Kafka, through aiokafka 0.14.

No call waits for ever: after 30 seconds (`DEADLINE`) without an answer it raises LogError, and callers that want to
wait longer call again. Nothing connects before it is needed, and a client that failed is replaced by a new one.

Delivery: `send` returns when all replicas in sync have everything. After a LogError some of it may have been written,
so what callers send again arrives twice (sequence numbers in the records tell readers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from . import LogError, Numbered, Partition, Send, Topic
from ._kafka_read import KafkaMember, KafkaReader
from ._kafka_send import LARGEST, Sender, deal
from ._kafka_topics import MetadataRequest, ids_of
from ._kafka_wait import DEADLINE, failed, quietly, within
from .security import PLAIN, Security

__all__ = ["KafkaLog"]

_MEMBERS: Final = 5
"""Where the members are in the description of a group, in every version of the answer."""

_PAUSE: Final = 0.1
"""Seconds between two tries while a broker starts or elects."""

_FETCH_WAIT_MS: Final = 100
"""How long a broker may sit on an empty fetch. aiokafka asks it for new, sought or resumed partitions only after the
answer, so this bounds how late they begin; the price is 10 empty answers a second."""

_POLL_MS: Final = 300_000
"""A member that does not read for so long gives its partitions away."""

_USUAL_LIMIT: Final = 1_048_588
"""Kafka's own `message.max.bytes`, for topics whose settings we may not read."""


class _Closes(Protocol):
    async def close(self) -> None: ...


class KafkaLog:
    """Topics of a Kafka cluster.

    `client` is the name that the brokers' logs and quotas show. `session` is how many seconds a silent member keeps
    its partitions. `instance` makes memberships static: a process that returns under the same name within `session`
    gets its partitions back without a rebalance. `security` is how to talk to brokers that want TLS or SASL.
    """

    def __init__(
        self,
        bootstrap: str,
        client: str = "penstock",
        *,
        session: float = 10.0,
        instance: str | None = None,
        security: Security = PLAIN,
    ) -> None:
        self._bootstrap, self._session, self._instance = bootstrap, session, instance
        self._settings: dict[str, Any] = {"client_id": client, **security.client()}
        self._admin: Any = None
        self._lookup: Any = None
        self._starting = asyncio.Lock()
        self._sender = Sender(bootstrap, self._settings)
        self._counts: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._readers: list[_Closes] = []

    async def create(self, topics: Sequence[Topic]) -> list[str]:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + DEADLINE
        made: list[str] = []
        while True:
            known = await self._described()
            for topic in topics:
                if topic.name in known and known[topic.name][0] != topic.partitions:
                    raise LogError(
                        f"topic {topic.name} has {known[topic.name][0]} partitions, the project declares "
                        f"{topic.partitions}: partition counts are fixed at creation; use the old count or another "
                        "project name"
                    )
            missing = [topic for topic in topics if topic.name not in known]
            if not missing and all(known[topic.name][1] for topic in topics):
                return [topic.name for topic in topics if topic.name in made]
            waiting_for = await self._try_create(missing, made) if missing else "leaders for the new partitions"
            if clock.time() > deadline:
                raise LogError(
                    f"creating topics: Kafka at {self._bootstrap} waits for {waiting_for} since {DEADLINE:.0f} s; "
                    "look with: penstock doctor"
                )
            await asyncio.sleep(_PAUSE)

    async def _try_create(self, missing: Sequence[Topic], made: list[str]) -> str:
        """Ask once. What may succeed later (NOT_CONTROLLER, an election) is returned in words; the rest raises."""
        admin = await self._asking()
        news = [_new_topic(topic) for topic in missing]
        try:
            async with asyncio.timeout(DEADLINE):
                answer = await admin.create_topics(news, timeout_ms=int(DEADLINE * 1000))
        except (KafkaError, OSError, TimeoutError) as error:
            await self._forget()
            if isinstance(error, KafkaError) and not error.retriable:
                raise failed("creating topics", self._bootstrap, error) from error
            return str(error) or type(error).__name__
        trouble = "the new topics"
        for name, code, *rest in answer.topic_errors:
            kind = for_code(code)
            if code == 0:
                made.append(name)
            elif kind.retriable:
                trouble = kind.__name__
            elif kind is not TopicAlreadyExistsError:  # another process was faster: its topic is compared next
                why = next((text for text in rest if text), kind.__name__)
                raise LogError(f"topic {name} cannot be created: {why}; look with: penstock topics plan")
        return trouble

    async def delete(self, topics: Sequence[str]) -> None:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + DEADLINE
        while there := sorted(set(topics) & (await self._described()).keys()):
            admin = await self._asking()
            try:
                await within(admin.delete_topics(there), "deleting topics", self._bootstrap)
            except LogError:
                await self._forget()
                raise
            if clock.time() > deadline:
                raise LogError(f"topic {there[0]} is still there {DEADLINE:.0f} s after its deletion; look with: penstock doctor")
            await asyncio.sleep(_PAUSE)

    async def members(self, group: str) -> int:
        deadline = asyncio.get_running_loop().time() + DEADLINE
        while True:
            admin = await self._asking()
            try:
                answers = await within(admin.describe_consumer_groups([group]), f"asking for group {group}", self._bootstrap)
                return sum(len(found[_MEMBERS]) for answer in answers for found in answer.groups)
            except LogError as error:
                await self._forget()
                # a broker makes the topic of groups when it is first asked for one
                waits = isinstance(error.__cause__, KafkaError) and error.__cause__.retriable
                if not waits or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_PAUSE)

    async def describe(self) -> dict[str, int]:
        return {name: count for name, (count, _) in (await self._described()).items()}

    async def _described(self) -> dict[str, tuple[int, bool]]:
        """Partition count of every topic, and whether all its partitions have leaders."""
        admin = await self._asking()
        try:
            topics = await within(admin.describe_topics(), "listing topics", self._bootstrap)
        except LogError:
            await self._forget()
            raise
        found = {
            t["topic"]: (len(t["partitions"]), all(p["leader"] >= 0 and p["error_code"] == 0 for p in t["partitions"]))
            for t in topics
            if not t["is_internal"] and t["partitions"]
        }
        self._counts = {name: count for name, (count, _) in found.items()}
        return found

    async def identities(self, topics: Sequence[str]) -> dict[str, str]:
        admin = await self._asking()
        try:
            answer = await within(admin._send_request(MetadataRequest(topics)), "asking for topic ids", self._bootstrap)
        except LogError:
            await self._forget()
            raise
        return ids_of(answer)

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        return await self._bounds(topics, "end_offsets")

    async def begins(self, topics: Sequence[str]) -> dict[Partition, int]:
        return await self._bounds(topics, "beginning_offsets")

    async def _bounds(self, topics: Sequence[str], which: str) -> dict[Partition, int]:
        counts = await self._count(topics)
        places = [TopicPartition(name, number) for name in topics for number in range(counts[name])]
        if not places:
            return {}
        async with self._starting:
            if self._lookup is None:
                self._lookup = await self._consumer()
        try:
            found = await within(getattr(self._lookup, which)(places), "looking up positions", self._bootstrap)
        except LogError:
            await self._forget()
            raise
        return {Partition(place.topic, place.partition): offset for place, offset in found.items()}

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        if not records:
            return {}
        topics = {record.topic for record in (records.plain if isinstance(records, Numbered) else records)}
        counts = await self._count(topics)
        if not topics <= self._limits.keys():
            await self._learn_limits(topics - self._limits.keys())
        lanes = deal(records, counts, self._limits)
        try:
            ends = await self._sender.send(lanes, self._limits)
        except LogError:
            self._counts, self._limits = {}, {}  # a topic may have been made anew with other numbers
            raise
        unsaid = {partition.topic for partition, end in ends.items() if end < 0}
        return {**ends, **_only(await self.ends(sorted(unsaid)), ends)} if unsaid else ends

    async def join(self, group: str, shared: Sequence[str], follows: Sequence[str] = ()) -> KafkaMember:
        counts = await self._count([*shared, *follows])
        equal = {name: counts[name] for name in shared}
        if len(set(equal.values())) > 1:
            raise LogError(f"topics read together need equal partition counts, got {equal}")
        whole = await self.reader(await self.begins(follows)) if follows else None
        consumer = None
        try:
            if shared:
                consumer = self._new_consumer(
                    group_id=group,
                    group_instance_id=f"{group}-{self._instance}" if self._instance else None,
                    partition_assignment_strategy=(RangePartitionAssignor,),
                    session_timeout_ms=int(self._session * 1000),
                    heartbeat_interval_ms=int(self._session * 1000 / 3),
                    max_poll_interval_ms=_POLL_MS,
                )
            member = KafkaMember(consumer, whole, self._bootstrap)
            if consumer is not None:
                consumer.subscribe(list(shared), listener=member)
                await self._start(consumer, f"joining the group {group}")
        except BaseException:
            if whole is not None:
                await whole.close()
            raise
        self._readers.append(member)
        member.ready()
        return member

    async def reader(self, positions: Mapping[Partition, int]) -> KafkaReader:
        counts = await self._count({partition.topic for partition in positions})
        for partition in positions:
            if not 0 <= partition.number < counts[partition.topic]:
                raise LogError(f"there is no partition {partition}; look with: penstock topics list")
        reader = KafkaReader(await self._consumer(), self._bootstrap, positions)
        self._readers.append(reader)
        return reader

    async def close(self) -> None:
        readers, self._readers = self._readers, []
        await asyncio.gather(*(reader.close() for reader in readers))
        await self._sender.close()
        await self._forget()

    async def _count(self, topics: Iterable[str]) -> dict[str, int]:
        """Partition counts. Asked once per topic: they are fixed at creation."""
        names = set(topics)
        if not names <= self._counts.keys():
            await self._described()
        for name in sorted(names - self._counts.keys()):
            raise LogError(f"topic {name} does not exist; create it with: penstock topics apply")
        return self._counts

    async def _learn_limits(self, topics: set[str]) -> None:
        admin = await self._asking()
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": ""}) for name in sorted(topics)]
        try:
            answers = await within(admin.describe_configs(wanted), "reading topic settings", self._bootstrap)
        except LogError:
            await self._forget()
            raise
        for answer in answers:
            for _, _, _, name, entries in answer.resources:  # no entries: forbidden, so the broker's refusal must do
                limit = next((int(entry[1]) for entry in entries if entry[0] == "max.message.bytes"), _USUAL_LIMIT)
                self._limits[name] = min(limit, LARGEST)

    async def _asking(self) -> Any:
        async with self._starting:
            if self._admin is None:
                admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, **self._settings)
                try:
                    await within(admin.start(), "connecting", self._bootstrap)
                except BaseException:
                    await quietly(admin.close(), "closing a client that did not start")
                    raise
                self._admin = admin
        return self._admin

    async def _consumer(self) -> Any:
        consumer = self._new_consumer(group_id=None)
        await self._start(consumer, "connecting")
        return consumer

    def _new_consumer(self, **settings: Any) -> Any:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a gap must be heard of
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            **settings,
            **self._settings,
        )

    async def _start(self, consumer: Any, doing: str) -> None:
        try:
            await within(consumer.start(), doing, self._bootstrap)
        except BaseException:
            await quietly(consumer.stop(), "closing a reader that did not start")
            raise

    async def _forget(self) -> None:
        """Drop the clients that ask questions; the next question makes new ones."""
        admin, lookup, self._admin, self._lookup = self._admin, self._lookup, None, None
        if admin is not None:
            await quietly(admin.close(), "closing the admin client")
        if lookup is not None:
            await quietly(lookup.stop(), "closing the client for positions")


def _new_topic(topic: Topic) -> NewTopic:
    settings = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "max.message.bytes": str(topic.max_bytes),
        "retention.ms": str(topic.retention_ms),
    }
    # -1 with an empty (not absent) placement: the cluster's own default replication
    return NewTopic(topic.name, topic.partitions, -1, replica_assignments={}, topic_configs=settings)


def _only(found: Mapping[Partition, int], asked: Mapping[Partition, int]) -> dict[Partition, int]:
    return {partition: end for partition, end in found.items() if asked.get(partition, 0) < 0}
