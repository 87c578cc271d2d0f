"""Whoever was told that a record is safe finds it in the log, once and in order, whatever the log and the disk did meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.log import LogError, Partition, Send, TooLarge, Topic
from penstock.log.memory import MemoryLog
from penstock.services.inference.gateway import recorder as module
from penstock.services.inference.gateway.recorder import Full, Recorder, Written
from penstock.services.inference.gateway.spill import Spill
from penstock.services.inference.meters import Meters

SOURCE = b"/air/gateway"
TOPICS = ["answers", "others"]


class Flaky(MemoryLog):
    """A log that goes away. What it was sent then is written or not, by `chance`; nobody is told."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.away = False
        self.slow = 0
        """Turns of the loop that a send takes."""
        self.largest = 0
        self.sizes: list[int] = []

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        for _ in range(self.slow):
            await asyncio.sleep(0)
        self.sizes.append(len(records))
        if self.away:
            if self.chance.random() < 0.5:
                await super().send(records[: self.chance.randrange(len(records) + 1)])
            raise LogError("the broker is away")
        return await super().send(records)

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        if self.away:
            raise LogError("the broker is away")
        return await super().ends(topics)


def record(n: int) -> Send:
    name = b"%d" % n
    return Send(TOPICS[n % 2], name, b"{}", (("ce_source", SOURCE), ("ce_id", name)), n % 3)


async def made(chance: random.Random | None = None) -> Flaky:
    log = Flaky(chance or random.Random(0))
    await log.create([Topic(name, 3) for name in TOPICS])
    return log


async def found(log: Flaky) -> dict[tuple[str, int], list[int]]:
    """Numbers of the records in each partition, in order."""
    ends = await log.ends(TOPICS)
    reader = await log.reader(dict.fromkeys(ends, 0))
    got: dict[tuple[str, int], list[int]] = {}
    for batch in await reader.read(1_000_000, 0.0):
        got[batch.partition] = [int(key or b"") for key in batch.keys]
    return got


async def settled(recorder: Recorder) -> None:
    while recorder._queue or recorder._replaying is not None:
        await asyncio.sleep(0)


def run(recorder: Recorder) -> asyncio.Task[None]:
    return asyncio.create_task(recorder.run())


async def ended(task: asyncio.Task[None]) -> None:
    await asyncio.sleep(0)  # it has begun
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a clock or a thread, so a seed is one course of events."""

    async def here(work: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        work()

    monkeypatch.setattr(asyncio, "to_thread", here)
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.0,))
    monkeypatch.setattr("penstock.runtime.patience.RETRY_SECONDS", (0.0,))


def test_what_is_recorded_in_one_turn_is_one_send() -> None:
    async def scenario() -> None:
        log = await made()
        recorder = Recorder(log, TOPICS, Meters())
        task = run(recorder)
        told = [recorder.record([record(n)]) for n in range(50)]
        await asyncio.gather(*told)
        assert log.sizes == [50]
        await ended(task)

    asyncio.run(scenario())


def test_each_is_told_where_its_records_are() -> None:
    async def scenario() -> None:
        log = await made()
        recorder = Recorder(log, TOPICS, Meters())
        task = run(recorder)
        await recorder.record([record(0)])
        first, second = recorder.record([record(6), record(1)]), recorder.record([record(12), record(3), record(18)])
        one, two = await first, await second
        assert one.written is two.written is not None
        assert one.written.offsets == [1, 0, 2, 0, 3]
        assert (one.first, two.first) == (0, 2)
        await ended(task)

    asyncio.run(scenario())


def test_where_the_broker_does_not_say_where_its_records_are_nobody_makes_it_up() -> None:
    sends = [record(0), record(1), record(6)]
    ends = {Partition(TOPICS[0], 0): 7, Partition(TOPICS[1], 1): -1}
    assert Written(sends, ends).offsets == [5, None, 6]


@pytest.mark.parametrize("seed", range(25))
def test_nothing_told_is_lost_or_there_twice_whatever_goes_away_and_when(tmp_path: Path, seed: int) -> None:
    """Random outages, sends of unknown end and crashes; the oracle is the list of what was told."""

    async def scenario() -> None:
        chance = random.Random(seed)
        log = await made(chance)
        told: list[int] = []
        number = 0

        async def one(recorder: Recorder, n: int) -> None:
            try:
                await recorder.record([record(n)])
            except (LogError, Full):
                return
            told.append(n)

        for _ in range(4):  # lives of the gateway
            recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 1 << 20), SOURCE)
            task, asked = run(recorder), list[asyncio.Task[None]]()
            for _ in range(30):
                log.away, log.slow = chance.random() < 0.4, chance.randrange(3)
                for _ in range(chance.randrange(5)):
                    asked.append(asyncio.create_task(one(recorder, number)))
                    number += 1
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
            for each in asked:  # a kill: those who wait are never told
                each.cancel()
            await asyncio.wait(asked)
            await ended(task)
            with (tmp_path / "records.spill").open("ab") as file:
                file.write(b"torn"[: chance.randrange(5)])
        log.away = False
        recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 1 << 20), SOURCE)
        task = run(recorder)
        await asyncio.wait_for(recorder.record([record(number)]), 10)
        await settled(recorder)
        there = await found(log)
        everything = [n for numbers in there.values() for n in numbers]
        assert len(everything) == len(set(everything))
        assert set(told) <= set(everything)
        assert len(told) > 20
        for numbers in there.values():
            assert numbers == sorted(numbers)
        assert (tmp_path / "records.spill").stat().st_size == 0
        await ended(task)

    asyncio.run(scenario())


def test_a_send_that_takes_too_long_is_spilled_and_not_sent_again_when_it_comes_through(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = await made()
        recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 1 << 20), SOURCE, patience=0.0)
        task = run(recorder)
        log.slow = 200
        await recorder.record([record(0)])
        assert log.sizes == []  # it was told on the strength of the spill
        await recorder.record([record(6)])
        log.slow = 0
        await settled(recorder)
        assert (await found(log))["answers", 0] == [0, 6]
        await ended(task)

    asyncio.run(scenario())


def test_without_a_spill_nothing_is_told_that_the_log_has_not_taken() -> None:
    async def scenario() -> None:
        log = await made()
        recorder = Recorder(log, TOPICS, Meters())
        task = run(recorder)
        log.away = True
        with pytest.raises(LogError, match="the broker is away"):
            await recorder.record([record(0)])
        log.away = False
        await recorder.record([record(1)])
        await ended(task)

    asyncio.run(scenario())


def test_without_a_spill_those_behind_a_send_that_hangs_are_refused_at_once() -> None:
    async def scenario() -> None:
        log = await made()
        recorder = Recorder(log, TOPICS, Meters(), patience=0.0)
        task = run(recorder)
        log.slow = 50
        with pytest.raises(LogError, match="may be sent again"):
            await recorder.record([record(0)])
        with pytest.raises(LogError, match="may be sent again"):
            recorder.record([record(1)])
        log.slow = 0
        while recorder._refusing:
            await asyncio.sleep(0)
        recorder._patience = 1.0
        await recorder.record([record(2)])
        await ended(task)

    asyncio.run(scenario())


def test_a_spill_that_is_full_refuses_and_goes_on_when_it_is_replayed(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = await made()
        recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 600), SOURCE)
        task = run(recorder)
        await recorder.record([record(0)])
        log.away = True
        ends = [
            await asyncio.wait_for(asyncio.gather(recorder.record([record(n)]), return_exceptions=True), 5)
            for n in range(6, 120, 6)
        ]
        told = next(at for at, (end,) in enumerate(ends) if isinstance(end, Full))
        assert told > 2
        assert all("is full" in str(end) for (end,) in ends[told:])
        log.away = False
        await settled(recorder)
        await recorder.record([record(1)])
        there = (await found(log))["answers", 0]
        assert there[: told + 1] == list(range(0, 6 * told + 1, 6))
        await ended(task)

    asyncio.run(scenario())


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(module, "QUEUE", 10)
        recorder = Recorder(await made(), TOPICS, Meters())
        recorder.record([record(n) for n in range(30)])  # alone it is let in, however large
        with pytest.raises(Full):
            recorder.record([record(31)])

    asyncio.run(scenario())


def test_a_record_that_is_too_large_fails_alone() -> None:
    async def scenario() -> None:
        log = MemoryLog()
        await log.create([Topic(name, 3, max_bytes=1000) for name in TOPICS])
        recorder = Recorder(log, TOPICS, Meters())
        task = run(recorder)
        small, large = recorder.record([record(0)]), recorder.record([record(2)._replace(value=b"x" * 2000)])
        await small
        with pytest.raises(TooLarge):
            await large
        await ended(task)

    asyncio.run(scenario())


def test_those_beside_a_record_that_is_too_large_are_spilled_when_the_log_goes_away(tmp_path: Path) -> None:
    class Leaving(Flaky):
        """Refuses a record that is too large, and goes away with the first."""

        left = False

        async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
            if any(len(one.value or b"") > 1000 for one in records):
                self.away, self.left = not self.left, True
                raise TooLarge("too large")
            return await super().send(records)

    async def scenario() -> None:
        log = Leaving(random.Random(0))
        await log.create([Topic(name, 3) for name in TOPICS])
        recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 1 << 20), SOURCE)
        task = run(recorder)
        told = [recorder.record([one]) for one in (record(0), record(2)._replace(value=b"x" * 2000), record(6))]
        safe = await asyncio.wait_for(asyncio.gather(*told, return_exceptions=True), 10)
        assert [type(one).__name__ for one in safe] == ["Safe", "Safe", "Safe"]  # the log may take it: a replay will tell
        log.away = False
        await settled(recorder)
        assert [number for numbers in (await found(log)).values() for number in numbers] == [0, 6]
        await ended(task)

    asyncio.run(scenario())


def test_a_replay_reads_what_others_wrote_of_late_and_not_all_that_they_ever_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH", 0.0)
    read: list[int] = []

    class Watched(Flaky):
        async def reader(self, positions: Mapping[Partition, int]) -> Any:
            ends = await self.ends(TOPICS)
            read.append(sum([ends[place] - at for place, at in positions.items()]))
            return await super().reader(positions)

    async def scenario() -> None:
        log = Watched(random.Random(0))
        await log.create([Topic(name, 3) for name in TOPICS])
        recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 1 << 20), SOURCE)
        task = run(recorder)
        await recorder.record([record(0)])
        for _ in range(100):  # the stream writes to the same topics, whoever asks the gateway
            await MemoryLog.send(log, [Send(TOPICS[0], b"99", b"{}", (), 1)] * 100)
        await recorder.record([record(6)])
        log.away = True
        await recorder.record([record(12)])
        log.away = False
        await settled(recorder)
        assert max(read, default=0) < 10
        await ended(task)

    asyncio.run(scenario())


def test_a_disk_that_refuses_is_said_and_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        log = await made()
        spill = Spill(tmp_path, 1 << 20)
        recorder = Recorder(log, TOPICS, Meters(), spill, SOURCE)
        task = run(recorder)
        await recorder.record([record(0)])
        log.away = True

        def broken() -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(spill, "sync", broken)
        with pytest.raises(Full, match="Input/output error"):
            await recorder.record([record(6)])
        monkeypatch.undo()
        await recorder.record([record(12)])
        log.away = False
        await settled(recorder)
        assert 12 in (await found(log))["answers", 0]
        await ended(task)

    asyncio.run(scenario())


def test_what_a_disk_did_not_confirm_while_it_was_replayed_costs_nothing_that_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay has read further than what is confirmed; then that is taken back, and what comes next lies in its place."""

    async def scenario() -> None:
        log = await made()
        spill = Spill(tmp_path, 1 << 20)
        recorder = Recorder(log, TOPICS, Meters(), spill, SOURCE)
        task = run(recorder)
        await recorder.record([record(0)])
        log.away = True
        await recorder.record([record(6)])
        read, synced = asyncio.Event(), spill.sync

        def refusing() -> None:
            monkeypatch.setattr(spill, "sync", synced)
            raise OSError(5, "Input/output error")

        async def until_read(work: Callable[[], None]) -> None:
            await read.wait()
            work()

        plain = spill.read

        def reading(most: int = 2_000) -> tuple[list[Send], int]:
            found = plain(most)
            if len(found[0]) == 2:
                log.away, log.slow = False, 100  # this send is under way for long
                read.set()
            return found

        monkeypatch.setattr(spill, "read", reading)
        monkeypatch.setattr(spill, "sync", refusing)
        monkeypatch.setattr(asyncio, "to_thread", until_read)
        with pytest.raises(Full, match="Input/output error"):
            await recorder.record([record(12)])
        await recorder.record([record(18)])  # told: it is safe
        await settled(recorder)
        assert 18 in (await found(log))["answers", 0]
        await ended(task)

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["the disk", "the log"])
def test_a_replay_goes_on_whatever_went_wrong_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    async def scenario() -> None:
        log = await made()
        spill = Spill(tmp_path, 1 << 20)
        recorder = Recorder(log, TOPICS, Meters(), spill, SOURCE)
        task = run(recorder)
        await recorder.record([record(0)])
        log.away = True
        await recorder.record([record(6)])
        times = iter(range(3))
        broken: Any = spill if where == "the disk" else log
        name = "read" if where == "the disk" else "send"
        plain: Any = getattr(broken, name)

        def failing(*given: Any) -> Any:
            if next(times, None) is not None:
                raise OSError(5, "Input/output error") if where == "the disk" else RuntimeError("what nobody thought of")
            return plain(*given)

        monkeypatch.setattr(broken, name, failing)
        log.away = False
        await asyncio.wait_for(settled(recorder), 5)
        assert (await found(log))["answers", 0] == [0, 6]
        await ended(task)

    asyncio.run(scenario())


def test_what_its_topic_will_never_take_holds_up_no_replay(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Flaky(random.Random(0))
        await log.create([Topic(name, 3, max_bytes=1000) for name in TOPICS])
        recorder = Recorder(log, TOPICS, Meters(), Spill(tmp_path, 1 << 20), SOURCE)
        task = run(recorder)
        await recorder.record([record(0)])
        log.away = True
        for sends in (record(6), record(12)._replace(value=b"x" * 2000), record(18)):
            await recorder.record([sends])
        log.away = False
        await asyncio.wait_for(settled(recorder), 5)
        assert (await found(log))["answers", 0] == [0, 6, 18]
        await ended(task)

    asyncio.run(scenario())


def test_the_queue_is_bounded_in_bytes_too() -> None:
    async def scenario() -> None:
        recorder = Recorder(await made(), TOPICS, Meters())
        large = record(0)._replace(value=bytes(1 << 20))
        for _ in range(63):
            recorder.record([large])
        with pytest.raises(Full):
            recorder.record([large])
        recorder.record([record(1)])

    asyncio.run(scenario())
