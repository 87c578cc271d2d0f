"""What every log must do with topics, in memory and on Kafka alike."""

from __future__ import annotations

import pytest
from tests.conformance.logs import Given, numbered

from penstock.log import (
    Log,
    LogError,
    Partition,
    Send,
)


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
