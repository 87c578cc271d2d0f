"""What every log must do, in memory and on Kafka alike."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable

import pytest
from hypothesis import given as random_input
from hypothesis import strategies as st

from penstock.log import (
    Batch,
    Gap,
    Log,
    LogError,
    Member,
    Partition,
    Reader,
    Send,
    TooLarge,
    Topic,
    murmur2,
    partition_of,
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


@pytest.fixture(params=["memory", "kafka"])
def given(request: pytest.FixtureRequest) -> Given:
    return Given(None if request.param == "memory" else request.getfixturevalue("kafka_bootstrap"))


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


# Topics


def test_a_created_topic_is_described_and_not_created_twice(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, labels = given.topic("payments", 3), given.topic("labels", compacted=True)
        assert await log.create([payments, labels]) == [payments.name, labels.name]
        assert await log.create([labels, payments]) == []
        described = await log.describe()
        assert (described[payments.name], described[labels.name]) == (3, 1)

    given.play(story)


def test_another_partition_count_than_the_existing_one_is_refused(given: Given) -> None:
    async def story(log: Log) -> None:
        topic, new = given.topic("payments", 3), given.topic("new")
        await log.create([topic])
        with pytest.raises(LogError, match=r"has 3 partitions, the project declares 4"):
            await log.create([new, given.topic("payments", 4)])
        assert (await log.describe())[topic.name] == 3

    given.play(story)


def test_a_topic_that_nobody_created_is_refused_everywhere(given: Given) -> None:
    async def story(log: Log) -> None:
        known = given.topic("known")
        await log.create([known])
        for attempt in (
            log.send([*numbered(known, [1]), Send("unheard-of", b"k", b"v")]),
            log.ends(["unheard-of"]),
            log.begins(["unheard-of"]),
            log.identities([known.name, "unheard-of"]),
            log.join("g", ["unheard-of"]),
            log.join("g", [known.name], ["unheard-of"]),
            log.reader({Partition("unheard-of", 0): 0}),
        ):
            with pytest.raises(LogError, match=r"unheard-of does not exist.*penstock topics apply"):
                await attempt
        assert await log.ends([known.name]) == {Partition(known.name, 0): 0}, "a refused send wrote its other records"

    given.play(story)


def test_a_partition_that_does_not_exist_is_refused(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 2)
        await log.create([topic])
        for attempt in (log.send(numbered(topic, [1], partition=2)), log.reader({Partition(topic.name, 2): 0})):
            with pytest.raises(LogError, match="no partition"):
                await attempt

    given.play(story)


def test_the_ends_and_beginnings_of_a_topic_are_known(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 2)
        first, second = Partition(topic.name, 0), Partition(topic.name, 1)
        await log.create([topic])
        assert await log.ends([topic.name]) == {first: 0, second: 0}
        await log.send(numbered(topic, range(5)))
        assert await log.ends([topic.name]) == {first: 5, second: 0}
        assert await log.begins([topic.name]) == {first: 0, second: 0}
        await given.forget(log, first, before=3)
        assert await log.begins([topic.name]) == {first: 3, second: 0}

    given.play(story)


# Writing


def test_members_of_a_group_are_counted_from_joining_to_leaving(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, group = given.topic("payments", 2), "g" + uuid.uuid4().hex
        await log.create([payments])
        assert await log.members(group) == 0
        member = await log.join(group, [payments.name])
        while not member.assigned:
            await member.read(1, 0.1)
        assert await log.members(group) == 1
        await member.close()
        assert await log.members(group) == 0

    given.play(story)


def test_a_topic_that_is_made_again_has_another_identity(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, refunds = given.topic("payments", 2), given.topic("refunds")
        await log.create([payments, refunds])
        first = await log.identities([payments.name, refunds.name])
        assert first[payments.name] != first[refunds.name]
        await log.send(numbered(payments, range(3)))
        assert await log.identities([payments.name, refunds.name]) == first, "records do not change it"
        await log.delete([payments.name, "never-was"])
        assert refunds.name in (there := await log.describe()) and payments.name not in there
        with pytest.raises(LogError, match=payments.name):
            await log.identities([payments.name])
        await log.create([payments])
        again = await log.identities([payments.name, refunds.name])
        assert again[payments.name] != first[payments.name] and again[refunds.name] == first[refunds.name]

    given.play(story)


def test_records_keep_their_order_within_a_partition(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 3)
        await log.create([topic])
        sends = [Send(topic.name, None, b"%d" % n, partition=n % 3) for n in range(30_000)]  # several batches each
        ends = await log.send(sends[:20_000])
        assert ends == {Partition(topic.name, p): len(range(p, 20_000, 3)) for p in range(3)}
        await log.send(sends[20_000:])
        reader = await log.reader({Partition(topic.name, p): 0 for p in range(3)})
        found = by_partition(await read_until(reader, 30_000, max_records=7_000))
        assert found == {Partition(topic.name, p): [b"%d" % n for n in range(p, 30_000, 3)] for p in range(3)}

    given.play(story)


def test_a_key_goes_where_a_java_client_would_put_it(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 8)
        await log.create([topic])
        keys = [b"JFK", b"LGA", b"EWR", b"", b"\x00\xff", "Zürich".encode()] + [b"c%d" % n for n in range(50)]
        await log.send([Send(topic.name, key, key) for key in keys])
        reader = await log.reader({Partition(topic.name, p): 0 for p in range(8)})
        for batch in await read_until(reader, len(keys)):
            for key in batch.keys:
                assert key is not None
                assert batch.partition.number == partition_of(key, 8), f"{key!r} lies elsewhere than murmur2 says"

    given.play(story)


@pytest.mark.parametrize(
    ("key", "java"),  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_numbers_of_kafkas_own_test(key: bytes, java: int) -> None:
    assert murmur2(key) == java & 0x7FFFFFFF


@random_input(st.binary(max_size=64))
def test_murmur2_agrees_with_the_one_in_aiokafka(key: bytes) -> None:
    from aiokafka.partitioner import murmur2 as theirs

    assert murmur2(key) == theirs(key) & 0x7FFFFFFF


def test_keys_values_and_headers_come_back_as_they_were_sent(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        await log.create([topic])
        trace = (("ce_id", b"1"), ("traceparent", b"\x00\xff"), ("empty", b""), ("ce_id", b"again"))
        await log.send(
            [
                Send(topic.name, b"k", b"v", trace),
                Send(topic.name, None, "Zürich\x00".encode()),
                Send(topic.name, b"k", None),  # a tombstone
                Send(topic.name, b"", b""),
                Send(topic.name, None, None, (("only", b"headers"),)),
            ]
        )
        batches = await read_until(await log.reader({Partition(topic.name, 0): 0}), 5)
        assert [o for b in batches for o in b.offsets] == [0, 1, 2, 3, 4]
        assert batches[-1].next == 5
        assert [k for b in batches for k in b.keys] == [b"k", None, b"k", b"", None]
        assert values(batches) == [b"v", "Zürich\x00".encode(), None, b"", None]
        headers = [h for b in batches for h in (b.headers or [()] * len(b))]
        assert headers == [trace, (), (), (), (("only", b"headers"),)]

    given.play(story)


def test_batches_whose_records_have_no_headers_carry_none(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        await log.create([topic])
        await log.send(numbered(topic, range(3)))
        for batch in await read_until(await log.reader({Partition(topic.name, 0): 0}), 3):
            assert len(batch.headers) == 0

    given.play(story)


def test_ten_mebibytes_pass_where_the_topic_allows_them(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("artefacts", 2, max_bytes=11 * MIB)
        await log.create([topic])
        large = bytes(range(256)) * (10 * MIB // 256)
        records = [Send(topic.name, None, v, partition=p) for p in (0, 1) for v in (b"before", large, b"after")]
        await log.send(records)
        reader = await log.reader({Partition(topic.name, 0): 0, Partition(topic.name, 1): 0})
        found = by_partition(await read_until(reader, 6))
        assert [[v and len(v) for v in found[Partition(topic.name, p)]] for p in (0, 1)] == [[6, 10 * MIB, 5]] * 2
        assert found[Partition(topic.name, 0)][1] == large

    given.play(story)


def test_a_record_above_its_topics_limit_is_refused_and_nothing_else_is_harmed(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", max_bytes=10_000)
        await log.create([topic])
        await log.send(numbered(topic, range(2)))
        for huge in (Send(topic.name, b"k", b"x" * 20_000), Send(topic.name, b"k", b"", (("h", b"x" * 20_000),))):
            with pytest.raises(TooLarge, match="10,000"):
                await log.send([*numbered(topic, [7]), huge])
        many = [Send(topic.name, None, b"y" * 100, partition=0) for _ in range(1_000)]  # ten times the limit in all
        assert await log.send(many) == {Partition(topic.name, 0): 1_002}, "a refused record left a hole or a copy"

    given.play(story)


def test_sending_nothing_does_nothing(given: Given) -> None:
    async def story(log: Log) -> None:
        assert await log.send([]) == {}

    given.play(story)


# Reading


def test_a_reader_waits_for_what_is_not_there_yet(given: Given) -> None:
    async def story(log: Log) -> None:
        topic, other = given.topic("payments"), given.topic("other")
        await log.create([topic, other])
        reader = await log.reader({Partition(topic.name, 0): 0})
        assert await reader.read(10, 0) == []
        clock = asyncio.get_running_loop()
        begun = clock.time()
        waiting = asyncio.ensure_future(reader.read(10, 0.5))
        await log.send(numbered(other, [1]))
        assert await waiting == []
        assert clock.time() - begun > 0.4, "news of a topic that is not read ended the wait"
        waiting = asyncio.ensure_future(reader.read(10, 30))
        await log.send(numbered(topic, [1]))
        assert values(await waiting) == [b"1"]

    given.play(story)


def test_a_reader_goes_on_from_where_it_was_sought(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        place = Partition(topic.name, 0)
        await log.create([topic])
        await log.send(numbered(topic, range(10)))
        reader = await log.reader({place: 7})
        assert values(await read_until(reader, 3)) == [b"7", b"8", b"9"]
        reader.seek(place, 2)
        assert values(await reader.read(3, 5)) == [b"2", b"3", b"4"]
        reader.seek(place, 4)
        reader.seek(place, 5)
        reader.seek(Partition("not-read-here", 0), 1)
        assert values(await read_until(reader, 5)) == [b"%d" % n for n in range(5, 10)]

    given.play(story)


def test_a_busy_partition_does_not_starve_the_others(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 4)
        await log.create([topic])
        noise = random.Random(0)  # nothing that compression makes small: four fetches
        await log.send([Send(topic.name, None, noise.randbytes(200), partition=0) for _ in range(20_000)])
        reader = await log.reader({Partition(topic.name, p): 0 for p in range(4)})
        busy = sum(map(len, await reader.read(100, 5)))  # it is ahead
        await log.send([send for p in (1, 2, 3) for send in numbered(topic, range(50), partition=p)])
        quiet = 0
        while quiet < 150 and busy < 20_000:
            for batch in await reader.read(100, 5):
                if batch.partition.number:
                    quiet += len(batch)
                else:
                    busy += len(batch)
        assert quiet == 150, f"only {quiet} of 150 came from the quiet partitions before the busy one was empty"

    given.play(story)


def test_every_partition_with_records_has_its_turn(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 4)
        await log.create([topic])
        await log.send([send for p in range(4) for send in numbered(topic, range(1000), partition=p)])
        reader = await log.reader({Partition(topic.name, p): 0 for p in range(4)})
        await reader.read(4, 5)
        served = [batch.partition.number for _ in range(40) for batch in await reader.read(10, 1)]
        assert set(served[-16:]) == {0, 1, 2, 3}, f"served in this order: {served}"

    given.play(story)


def test_records_deleted_unread_are_an_error_until_the_reader_is_sought(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 2)
        gone, fine = Partition(topic.name, 0), Partition(topic.name, 1)
        await log.create([topic])
        await log.send(numbered(topic, range(10)) + numbered(topic, range(3), partition=1))
        await given.forget(log, gone, before=6)
        reader = await log.reader({gone: 2, fine: 0})
        found: list[Batch] = []
        for _ in range(2):  # it does not go away by asking again, and the other partition loses nothing by it
            said, batches = await read_to_gap(reader)
            assert f"{topic.name}/0: records 2 to 5 were deleted unread" in said
            found += batches
        reader.seek(gone, 6)
        found += await read_until(reader, 7 - sum(map(len, found)))
        assert by_partition(found) == {gone: [b"6", b"7", b"8", b"9"], fine: [b"0", b"1", b"2"]}

    given.play(story)


def test_a_position_after_the_end_is_an_error(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        await log.create([topic])
        await log.send(numbered(topic, range(3)))
        reader = await log.reader({Partition(topic.name, 0): 9})
        said, _ = await read_to_gap(reader)
        assert "position 9 is past the end 3" in said

    given.play(story)


# Groups


def test_a_lone_member_holds_everything_and_reads_from_the_beginning(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 3)
        await log.create([topic])
        await log.send(numbered(topic, range(3)))
        member = await log.join("readers" + given.suffix, [topic.name])
        assert member.assigned == {0, 1, 2}
        assert member.generation > 0
        assert values(await read_until(member, 3)) == [b"0", b"1", b"2"]

    given.play(story)


def test_topics_read_together_need_equal_partition_counts(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, labels = given.topic("payments", 2), given.topic("labels", 3)
        await log.create([payments, labels])
        with pytest.raises(LogError, match="equal partition counts"):
            await log.join("readers" + given.suffix, [payments.name, labels.name])

    given.play(story)


def test_members_hold_the_same_numbers_of_every_topic_and_hand_them_over(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, labels = given.topic("payments", 4), given.topic("labels", 4)
        await log.create([payments, labels])
        sends = [Send(t.name, None, b"%d" % p, partition=p) for t in (payments, labels) for p in range(4)]
        await log.send(sends)
        topics, group = [payments.name, labels.name], "readers" + given.suffix
        one = await log.join(group, topics)
        two = await log.join(group, topics)
        await settled(one, two, numbers=4)
        assert len(one.assigned) == len(two.assigned) == 2
        for member in (one, two):
            for topic in topics:
                for number in member.assigned:
                    member.seek(Partition(topic, number), 0)
            found = by_partition(await read_until(member, 4))
            assert found == {Partition(t, n): [b"%d" % n] for t in topics for n in member.assigned}
        before = two.generation
        await one.close()
        await settled(two, numbers=4)
        assert two.generation > before
        assert set(by_partition(await read_until(two, 8))) == {Partition(t, n) for t in topics for n in range(4)}

    given.play(story)


def test_after_a_change_nothing_is_read_before_the_member_could_seek(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 2)
        await log.create([topic])
        await log.send([send for p in (0, 1) for send in numbered(topic, range(100), partition=p)])
        group = "readers" + given.suffix
        one = await log.join(group, [topic.name])
        await read_until(one, 200)
        seen = one.generation
        two = await log.join(group, [topic.name])
        assert await one.read(10, 20) == []  # wherever the change is by now, this read says it first
        assert one.generation > seen
        await settled(one, two, numbers=2)
        mine, theirs = one.assigned, two.assigned
        assert mine.isdisjoint(theirs), f"both hold {mine & theirs}"

        for member, at in ((one, 95), (two, 97)):
            (number,) = member.assigned
            seen = one.generation
            member.seek(Partition(topic.name, number), at)
            batches = await read_until(member, 100 - at)
            assert [o for b in batches for o in b.offsets] == list(range(at, 100))

        await two.close()
        batches = []
        while one.generation == seen:
            batches += await one.read(10, 5)
        assert batches == [], "records came between the change and the chance to seek"
        (number,) = theirs
        one.seek(Partition(topic.name, number), 90)
        found = by_partition(await read_until(one, 10 + 100))
        assert len(found[Partition(topic.name, number)]) == 10
        (number,) = mine
        assert len(found[Partition(topic.name, number)]) == 100, "an unsought partition starts at its beginning"

    given.play(story)


def test_a_change_ends_a_long_wait(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 2)
        await log.create([topic])
        group = "readers" + given.suffix
        one = await log.join(group, [topic.name])
        before = one.generation
        waiting = asyncio.ensure_future(one.read(10, STORY_SECONDS * 2))  # the story would fail first
        await asyncio.wait([waiting], timeout=0.1)  # it is inside now
        joining = asyncio.ensure_future(log.join(group, [topic.name]))
        assert await waiting == []
        assert one.generation > before
        await joining

    given.play(story)


def test_members_never_hold_more_than_there_is_and_never_read_what_they_do_not_hold(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments", 2)
        await log.create([topic])
        await log.send([send for p in (0, 1) for send in numbered(topic, range(2000), partition=p)])
        group = "readers" + given.suffix
        members = [await log.join(group, [topic.name])]
        for _ in range(2):  # the third holds nothing
            members.append(await log.join(group, [topic.name]))
            for _ in range(5):
                for member in members:
                    generation = member.generation
                    batches = await member.read(100, 0.05)
                    if member.generation == generation:
                        assert {b.partition.number for b in batches} <= member.assigned
                    else:
                        assert batches == [], "records of an old generation came after the new one"
        await settled(*members, numbers=2)
        assert sorted(len(m.assigned) for m in members) == [0, 1, 1]

    given.play(story)


def test_followed_topics_are_read_whole_by_every_member(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, models = given.topic("payments", 2), given.topic("models", 3)
        await log.create([payments, models])
        await log.send([Send(models.name, b"m%d" % n, b"%d" % n) for n in range(20)])
        group = "readers" + given.suffix
        members = [await log.join(group, [payments.name], [models.name]) for _ in range(2)]
        for member in members:
            found = values(await read_until(member, 20))
            assert sorted(found, key=lambda v: int(v or 0)) == [b"%d" % n for n in range(20)]
        await log.send([Send(models.name, b"m0", b"news")])
        for member in members:
            assert values(await read_until(member, 1)) == [b"news"]

    given.play(story)


def test_followed_topics_go_on_through_a_change_without_loss_or_repetition(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, models = given.topic("payments", 2), given.topic("models")
        await log.create([payments, models])
        group = "readers" + given.suffix
        one = await log.join(group, [payments.name], [models.name])
        await log.send(numbered(models, range(10)))
        found = values(await one.read(4, 5))
        joining = asyncio.ensure_future(log.join(group, [payments.name], [models.name]))
        while not joining.done():
            found += values(await one.read(2, 0.1))
            await log.send(numbered(models, [10]))
        two = await joining
        end = (await log.ends([models.name]))[Partition(models.name, 0)]
        found += values(await read_until(one, end - len(found)))
        assert found == [b"%d" % min(n, 10) for n in range(end)]
        assert values(await read_until(two, end)) == found

    given.play(story)


def test_shared_and_followed_records_take_turns(given: Given) -> None:
    async def story(log: Log) -> None:
        payments, models = given.topic("payments"), given.topic("models")
        await log.create([payments, models])
        await log.send(numbered(payments, range(5000)) + numbered(models, range(5000)))
        member = await log.join("readers" + given.suffix, [payments.name], [models.name])
        served: list[str] = []
        while len(set(served)) < 2 and len(served) < 500:
            served += [b.partition.topic for b in await member.read(10, 5)]
        turns = [b.partition.topic for _ in range(6) for b in await member.read(10, 5)]
        assert set(turns) == {payments.name, models.name}, f"after {len(served)} turns of one came {turns}"

    given.play(story)


def test_committed_positions_are_never_read_back(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        place = Partition(topic.name, 0)
        await log.create([topic])
        await log.send(numbered(topic, range(5)))
        group = "readers" + given.suffix
        member = await log.join(group, [topic.name])
        await read_until(member, 5)
        await member.commit({place: 5, Partition("not-held", 0): 1})
        await member.close()
        again = await log.join(group, [topic.name])
        assert values(await read_until(again, 5)) == [b"%d" % n for n in range(5)]

    given.play(story)


def test_a_closed_member_reads_nothing(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        await log.create([topic])
        await log.send(numbered(topic, [1]))
        member = await log.join("readers" + given.suffix, [topic.name])
        reader = await log.reader({Partition(topic.name, 0): 0})
        await member.close()
        await reader.close()
        assert await member.read(10, 0) == await reader.read(10, 0) == []

    given.play(story)


def test_a_broker_that_is_not_there_is_said_at_once() -> None:
    async def story() -> None:
        log = KafkaLog("127.0.0.1:1")
        for attempt in (
            log.describe(),
            log.create([Topic("t", 1)]),
            log.send([Send("t", None, b"")]),
            log.ends(["t"]),
            log.identities(["t"]),
        ):
            with pytest.raises(LogError, match=r"127\.0\.0\.1:1 .*penstock doctor"):
                await asyncio.wait_for(attempt, 10)
        await log.close()

    asyncio.run(story())
