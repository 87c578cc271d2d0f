"""What every log must give a reader, in memory and on Kafka alike."""

from __future__ import annotations

import asyncio
import random

from tests.conformance.logs import Given, by_partition, numbered, read_to_gap, read_until, values

from penstock.log import (
    Batch,
    Log,
    Partition,
    Send,
)


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
