"""What every log must do with what is sent, in memory and on Kafka alike."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given as random_input
from hypothesis import strategies as st
from tests.conformance.logs import MIB, Given, by_partition, numbered, read_until, values

from penstock.log import (
    Log,
    LogError,
    Partition,
    Send,
    TooLarge,
    murmur2,
    partition_of,
)


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


def test_records_tell_when_they_were_written(given: Given) -> None:
    async def story(log: Log) -> None:
        topic = given.topic("payments")
        await log.create([topic])
        before = time.time()
        await log.send(numbered(topic, range(2)))
        await log.send(numbered(topic, [2]))
        batches = await read_until(await log.reader({Partition(topic.name, 0): 0}), 3)
        stamps = [stamp for batch in batches for stamp in batch.stamps]
        assert len(stamps) == 3
        assert int(before * 1000) <= stamps[0] == stamps[1] <= stamps[2] <= time.time() * 1000

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
