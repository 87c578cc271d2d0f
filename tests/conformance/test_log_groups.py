"""What every log must give the members of a group, in memory and on Kafka alike."""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.logs import STORY_SECONDS, Given, by_partition, numbered, read_until, settled, values

from penstock.log import (
    Log,
    LogError,
    Partition,
    Send,
    Topic,
)
from penstock.log.kafka import KafkaLog


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
        many = 30_000  # so many that a broker has answered about both topics before one is at its end
        await log.send(numbered(payments, range(many)) + numbered(models, range(many)))
        member = await log.join("readers" + given.suffix, [payments.name], [models.name])
        served: list[str] = []
        while len(set(served)) < 2 and len(served) < many // 10 - 10:
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
