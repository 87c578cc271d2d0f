"""The quality of a stream's days: what is told follows from the log, however it was cut up, and whatever was killed meanwhile."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pandas as pd
import pytest

import penstock as ps
from penstock.duration import DAY
from penstock.event import to_micros
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Clock, DataQuality
from penstock.runtime.deadletter import cause_of
from penstock.services.feature_store import quality, service
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

from .shop import Crash, Fragile, FragileLog, FragileStore

START = datetime(2026, 3, 1, tzinfo=UTC)


@ps.event("rides")
class Ride:
    ride_id: ps.Id[str]
    cab: ps.Key[str]
    fare: float
    tip: float | None
    passengers: int
    city: str | None
    ended_at: ps.EventTime


ps.expect(Ride.fare, between=(0, 500), otherwise="dead_letter")
ps.expect(Ride.passengers, between=(1, 8))
ps.expect(Ride.city, among=["Berlin", "Graz"], otherwise="alarm", above=0.3)
ps.expect(Ride.ride_id, unique="1d", otherwise="alarm")
ps.expect(Ride.ended_at, rising=True)


@ps.expect
def tips_are_small(ride: Ride) -> bool:
    return ride.tip <= ride.fare  # type: ignore[operator]


@ps.features(by=Ride.cab)
class Cab:
    rides_1h = ps.count(Ride, over="1h")


project = ps.Project("cabs", rows={Ride: [Cab]})


def ride(i: int, at: datetime, **changes: Any) -> dict[str, Any]:
    said = {"ride_id": f"r{i}", "cab": f"c{i % 7}", "fare": 10.0, "tip": 1.0, "passengers": 1, "city": "Graz", "ended_at": at}
    return said | changes


def history(n: int = 300, seed: int = 4) -> list[dict[str, Any]]:
    """Four days of rides, some of each flaw, the third day bad, some late."""
    rng, made, at = random.Random(seed), list[dict[str, Any]](), START
    for i in range(n):
        at += timedelta(minutes=rng.choice([0, 3, 15, 42]))
        bad = (at - START).days == 2
        made.append(
            ride(
                i,
                at - timedelta(hours=rng.choice([0] * 9 + [1])),
                fare=rng.choice([5.0, 12.5, 80.25, 501.0 if rng.random() < 0.2 else 7.0]),
                tip=rng.choice([None, 0.0, 3.0]),
                passengers=rng.choice([1, 2, 3, 9]),
                city=rng.choice(["Berlin", "Graz", None, "Graz!" if bad else "Graz"]),
                ride_id=f"r{i - 1}" if i and bad and rng.random() < 0.1 else f"r{i}",
            )
        )
    return made


class World:
    """The lanes of data quality on the log in memory."""

    def __init__(self, partitions: int = 1, log: MemoryLog | None = None, store: MemoryStore | None = None) -> None:
        self.topics, self.log, self.store = Topics(project, partitions), log or MemoryLog(), store or MemoryStore()
        self.lanes = quality.lanes(self.topics, self.log, self.store, every=0.0, idle_after=None)

    async def publish(self, rides: Sequence[dict[str, Any] | bytes | None], closed: datetime | None = None) -> None:
        sends = []
        for said in rides:
            value = msgspec.json.encode(said) if isinstance(said, dict) else said
            sends.append(Send("rides", said["cab"].encode() if isinstance(said, dict) else b"c0", value))
        await self.log.send(sends)
        if closed is not None:
            ends = {"rides": {p.number: end for p, end in (await self.log.ends(["rides"])).items()}}
            said_clock = Clock(publisher="test", before=to_micros(closed), ends=ends)
            await self.log.send([Send(self.topics.clock, b"test", msgspec.json.encode(said_clock))])

    async def settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for lane in self.lanes:
                while await lane.turn(0.0):
                    moved = True

    async def said(self, topic: str, kind: type[Any]) -> list[Any]:
        reader = await self.log.reader(await self.log.begins([topic]))
        batches = await reader.read(1_000_000, 0.0)
        return [msgspec.json.decode(value, type=kind) for batch in batches for value in batch.values if value]

    async def told(self) -> tuple[list[DataQuality], list[Alarm]]:
        """Days and alarms, each once: who comes back publishes its outbox again. A repeat says the same."""
        days, alarms = await self.days(), await self.said(self.topics.alarms, Alarm)
        once = {d.id: d for d in days}, {a.id: a for a in alarms}
        assert all(once[0][d.id] == d for d in days) and all(once[1][a.id] == a for a in alarms)
        return list(once[0].values()), list(once[1].values())

    async def days(self) -> list[DataQuality]:
        return sorted(await self.said(self.topics.quality, DataQuality), key=lambda d: d.id)


def whole(rides: Sequence[Any], partitions: int = 1, batch: int = 10_000) -> tuple[list[DataQuality], list[Alarm]]:
    async def work() -> tuple[list[DataQuality], list[Alarm]]:
        world = World(partitions)
        await world.log.create(world.topics.all())
        for first in range(0, len(rides), batch):
            await world.publish(rides[first : first + batch])
            await world.settle()
        await world.publish([], START + timedelta(days=9))
        await world.settle()
        return await world.days(), await world.said(world.topics.alarms, Alarm)

    return asyncio.run(work())


def test_a_day_is_told_as_pandas_would_tell_it() -> None:
    rides = history()
    days, _ = whole(rides)
    frame = pd.DataFrame(rides)
    frame["effective"] = frame["ended_at"].cummax()
    assert [day.id for day in days] == [f"rides/2026-03-0{n}" for n in range(1, len(days) + 1)] and len(days) >= 3
    for day in days:
        part = frame[frame["effective"].dt.floor("D") == day.start]
        good = part[part["fare"] <= 500]
        assert (day.records, day.refused) == (len(part), {"expectation": len(part) - len(good)})
        assert day.late == int((part["ended_at"] < part["effective"]).sum())
        assert day.timeliness == pytest.approx(1 - day.late / len(part))
        assert day.completeness == pytest.approx(1 - part[["tip", "city"]].isna().sum().sum() / (7 * len(part)))
        rule = part.dropna(subset="tip")
        assert day.consistency == pytest.approx((rule["tip"] <= rule["fare"]).mean())
        passengers = day.expectations["passengers between 1 and 8"]
        assert (passengers.asked, passengers.broken) == (len(part), int((part["passengers"] == 9).sum()))
        assert day.columns["fare"].mean == pytest.approx(good["fare"].mean())
        assert day.columns["tip"].missing == int(good["tip"].isna().sum())
        assert day.columns["ended_at"].rows == len(good)


def test_accuracy_is_the_share_of_records_that_can_be_read_and_meet_everything() -> None:
    at = iter(START + timedelta(minutes=i) for i in range(99))
    rides = [
        ride(1, next(at)), ride(2, next(at), fare=-1.0), ride(3, next(at), passengers=0), b"{", None,
        ride(4, next(at), tip=None, city=None), ride(5, next(at), tip=11.0), ride(1, next(at)),
    ]  # fmt: skip
    (day,), _ = whole(rides)
    assert day.accuracy == 2 / 8
    assert day.refused == {"decode": 2, "expectation": 1}
    assert day.consistency == 3 / 5
    assert day.expectations["tips_are_small"].example == "rides/0 at 1: rule tips_are_small is not met (tip=1.0, fare=-1.0)"
    assert day.expectations["ride_id unique within 1d"].broken == 1
    assert day.expectations["ride_id unique within 1d"].example == "rides/0 at 7: Ride.ride_id is 'r1'; expected unique within 1d"


@pytest.mark.parametrize("batch", [1, 37, 400])
def test_days_and_alarms_do_not_show_how_the_log_was_read(batch: int) -> None:
    rides = history()
    assert whole(rides, batch=batch) == whole(rides)


def bare(day: DataQuality) -> DataQuality:
    """Without which record was the first example, and the most frequent of more than 256 texts, which are an approximation."""
    met = {name: msgspec.structs.replace(m, example="") for name, m in day.expectations.items()}
    ids = msgspec.structs.replace(day.columns["ride_id"], frequent=[], frequent_low_by=0)
    return msgspec.structs.replace(day, expectations=met, columns={**day.columns, "ride_id": ids})


def test_what_is_counted_does_not_depend_on_the_number_of_partitions() -> None:
    """Rising, unique and late are meant per partition; everything else is of the records alone."""
    rides = [r | {"ended_at": START + timedelta(minutes=3 * i), "ride_id": f"r{i}"} for i, r in enumerate(history(700))]
    one, alarms = whole(rides)
    assert len(one) > 1
    for partitions in (2, 5):
        days, same = whole(rides, partitions)
        assert list(map(bare, days)) == list(map(bare, one))
        assert [(a.id, a.state) for a in same] == [(a.id, a.state) for a in alarms]


def test_an_alarm_is_raised_while_the_share_of_a_day_is_above_its_bound_and_cleared_after_two_good_days() -> None:
    def of_day(day: int, bad: int) -> list[dict[str, Any]]:
        return [ride(day * 10 + i, START + timedelta(days=day, hours=i), city="Rome" if i < bad else "Graz") for i in range(10)]

    _, alarms = whole([r for day, bad in enumerate([3, 4, 0, 5, 0, 0, 0]) for r in of_day(day, bad)])
    signal = "quality/rides/city among Berlin, Graz"
    assert [(a.state, a.at.day - 1) for a in alarms] == [("raised", 2), ("held", 3), ("held", 4), ("held", 5), ("cleared", 6)]
    first = alarms[0]
    assert (first.model, first.signal, first.id) == ("", signal, f"/{signal}/2026-03-03T00:00:00+00:00/raised")
    assert first.evidence["share"] == 0.4 and first.evidence["above"] == 0.3
    assert first.evidence["example"] == "rides/0 at 10: Ride.city is 'Rome'; expected among Berlin, Graz"


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment_it_tells_the_same(seed: int) -> None:
    rides, rng = history(), random.Random(seed)
    truth = whole(rides, 2)

    async def work() -> tuple[list[DataQuality], list[Alarm]]:
        fragile = Fragile({rng.randrange(4, 60) for _ in range(5)})
        log, store = FragileLog(), FragileStore()
        log.fragile = store.fragile = fragile
        world = World(2, log, store)
        await log.create(world.topics.all())
        for first in [*range(0, 300, 60), 300]:
            closed = None if first < 300 else START + timedelta(days=9)
            sure, fragile.at = fragile.at, ()
            await world.publish(rides[first : first + 60], closed)
            fragile.at = sure
            quiet = 0
            while quiet < 2:  # the first round of a new process only joins
                try:
                    await world.settle()
                    quiet += 1
                except Crash:
                    log._groups.clear()
                    world, quiet = World(2, log, store), 0
        assert fragile.passed > 60
        fragile.at = ()
        return await world.told()

    assert asyncio.run(work()) == truth


@pytest.mark.parametrize("partitions", [1, 3])
def test_restarted_after_every_few_records_it_tells_the_same(partitions: int) -> None:
    rides = history()

    async def work() -> tuple[list[DataQuality], list[Alarm]]:
        world = World(partitions)
        await world.log.create(world.topics.all())
        for first in [*range(0, 300, 7), 300]:
            await world.publish(rides[first : first + 7], None if first < 300 else START + timedelta(days=9))
            for _ in range(2):
                await world.settle()
            world.log._groups.clear()
            world = World(partitions, world.log, world.store)
        return await world.told()

    assert asyncio.run(work()) == whole(rides, partitions)


def test_records_are_gathered_until_a_day_is_closed_and_tell_the_same() -> None:
    rides = history()

    async def work() -> tuple[list[DataQuality], list[Alarm]]:
        world = World()
        world.lanes = quality.lanes(world.topics, world.log, world.store, every=math.inf, idle_after=None)
        await world.log.create(world.topics.all())
        for first in range(0, 300, 10):
            await world.publish(rides[first : first + 10], rides[min(first + 10, 299)]["ended_at"] - timedelta(hours=1))
            await world.settle()
        steps = world.store._shards[f"{world.lanes[0].name}.0"].version
        await world.publish([], START + timedelta(days=9))
        await world.settle()
        assert steps <= 10
        return await world.days(), await world.said(world.topics.alarms, Alarm)

    assert asyncio.run(work()) == whole(rides)


def test_a_resting_lane_ends_when_it_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "rest", lambda own, others: 1e9)

    async def work() -> None:
        world, stop = World(), asyncio.Event()
        await world.log.create(world.topics.all())
        await world.publish(history())
        running = asyncio.create_task(world.lanes[0].run(stop))
        while not world.store._shards:
            await asyncio.sleep(0)
        stop.set()
        await running

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_partition_without_events_and_without_a_clock_is_passed_after_a_while() -> None:
    async def work() -> list[DataQuality]:
        world = World(2)
        world.lanes = quality.lanes(world.topics, world.log, world.store, every=0.0, idle_after=0.0)
        await world.log.create(world.topics.all())
        await world.publish([ride(7 * i, START + timedelta(hours=6 * i)) for i in range(9)])
        await world.settle()
        return await world.days()

    days = asyncio.run(work())
    assert [(day.id, day.records) for day in days] == [("rides/2026-03-01", 4), ("rides/2026-03-02", 4)]


def test_what_comes_after_its_day_was_told_is_told_as_a_further_part() -> None:
    async def work() -> list[DataQuality]:
        world = World(1)
        await world.log.create(world.topics.all())
        await world.publish([ride(1, START)])
        await world.settle()
        await world.publish([], START + timedelta(days=5))
        await world.settle()
        world.log._groups.clear()
        world = World(1, world.log, world.store)
        await world.publish([ride(2, START + timedelta(hours=1)), ride(3, START + timedelta(days=6))])
        await world.settle()
        await world.settle()
        return (await world.told())[0]

    days = asyncio.run(work())
    assert [(day.id, day.part, day.records) for day in days] == [("rides/2026-03-01", 0, 1), ("rides/2026-03-01/1", 1, 1)]


def test_a_stream_of_nothing_readable_waits_for_a_time() -> None:
    rides: list[Any] = [b"", b"{", None]
    assert whole(rides) == ([], [])
    (day,), _ = whole([*rides, ride(1, START)])
    assert (day.records, day.accuracy, day.refused) == (4, 0.25, {"decode": 3})


def test_a_record_that_does_not_meet_its_expectation_is_a_dead_letter_and_changes_no_window() -> None:
    async def work() -> tuple[list[Any], list[Any]]:
        topics, log, store = Topics(project), MemoryLog(), MemoryStore()
        await log.create(topics.all())
        rides = [ride(1, START), ride(2, START, fare=501.0), ride(3, START + timedelta(minutes=1), cab="c1")]
        rides[1]["cab"] = rides[0]["cab"] = "c1"
        values = [msgspec.json.encode(said) for said in rides]
        await log.send([Send("rides", b"c1", value) for value in values])
        ends = {"rides": {0: 3}}
        clock = Clock(publisher="test", before=to_micros(START) + DAY, ends=ends)
        await log.send([Send(topics.clock, b"test", msgspec.json.encode(clock))])
        for lane in service.lanes(topics, log, store, None):
            while await lane.turn(0.0):
                pass
        found = []
        for topic in (topics.dead_letters("rides"), topics.rows(project.events[0])):
            reader = await log.reader({Partition(topic, 0): 0})
            found.append(await reader.read(100, 0.0))
        (letters,), (rows,) = found
        assert letters.values[0] == values[1]
        return [cause_of(head) for head in letters.headers], [msgspec.json.decode(value or b"") for value in rows.values]

    causes, rows = asyncio.run(work())
    assert [(c["dlq.reason"], c["dlq.error"]) for c in causes] == [
        ("expectation", "Ride.fare is 501.0; expected between 0 and 500")
    ]
    assert [(row["id"], row["features"]["Cab.rides_1h"]) for row in rows] == [("r1", 0), ("r3", 1)]
