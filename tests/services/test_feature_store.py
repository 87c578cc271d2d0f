"""The feature store on the log in memory: the same rows for any partitions, any arrival, any crash."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

import penstock as ps
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Clock
from penstock.runtime.lane import Lane
from penstock.runtime.merge import TRUSTED_SECONDS, Merge
from penstock.services.feature_store.service import lanes
from penstock.store import Change
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("rides")
class Ride:
    ride_id: ps.Id[str]
    zone: ps.Key[str]
    driver: str | None
    fare: float
    at: ps.EventTime


@ps.event("ratings")
class Rating:
    ride_id: ps.Key[ps.Id[str]]
    zone: str
    driver: str | None
    stars: float | None
    at: ps.EventTime


@ps.features(by=[Ride.zone, Rating.zone])
class Zone:
    rides_1h = ps.count(Ride, over="1h")
    fares_24h = ps.sum(Ride.fare, over="24h")
    stars_7d = ps.mean(Rating.stars, over="7d")


@ps.features(by=[Ride.driver, Rating.driver])
class Driver:
    rides_3h = ps.count(Ride, over="3h")
    stars_24h = ps.mean(Rating.stars, over="24h")
    idle = ps.since_last(Ride)

    @ps.derived
    def hurry(self, now: Ride) -> float:
        return now.fare / (self.rides_3h + 1.0)


project = ps.Project("cabs", rows={Ride: [Zone, Driver]})
START = datetime(2026, 2, 1, tzinfo=UTC)
FOREVER = 1 << 60


def stream(n: int, seed: int = 0) -> list[tuple[str, bytes, bytes, int]]:
    """(topic, key, value, time) in order of time, with ties within a minute, missing drivers and missing stars."""
    rng = np.random.default_rng(seed)
    found = []
    minute = 0
    for i in range(n):
        minute += int(rng.choice([0, 1, 7, 60], p=[0.4, 0.4, 0.15, 0.05]))
        at = START + timedelta(minutes=minute)
        zone, driver = f"z{rng.integers(5)}", None if rng.random() < 0.1 else f"d{rng.integers(9)}"
        ride = f"r{int(rng.integers(10**9))}-{i}"
        if rng.random() < 0.6:
            event = {
                "ride_id": ride,
                "zone": zone,
                "driver": driver,
                "fare": round(float(rng.normal(20, 5)), 2),
                "at": at,
            }
            found.append(("rides", zone.encode(), msgspec.json.encode(event), minute))
        else:
            stars = None if rng.random() < 0.2 else float(rng.integers(1, 6))
            event = {"ride_id": ride, "zone": zone, "driver": driver, "stars": stars, "at": at}
            found.append(("ratings", ride.encode(), msgspec.json.encode(event), minute))
    return found


async def closing(log: MemoryLog, topics: Topics, before: int) -> None:
    ends: dict[str, dict[int, int]] = {}
    for partition, end in (await log.ends([e.topic for e in project.events])).items():
        ends.setdefault(partition.topic, {})[partition.number] = end
    said = Clock(publisher="test", before=before, ends=ends)
    await log.send([Send(topics.clock, b"test", msgspec.json.encode(said))])


def micros(minute: int) -> int:
    return int((START + timedelta(minutes=minute)).timestamp()) * 1_000_000


class Crash(Exception):
    """Kills the process of a test at a chosen point."""


class CrashingLog(MemoryLog):
    """A log whose sends may kill the sender, before or after the records are in."""

    def __init__(self) -> None:
        super().__init__()
        self.fate: random.Random | None = None

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        if self.fate and self.fate.random() < 0.1:
            if self.fate.random() < 0.5:
                await super().send(records[: self.fate.randrange(len(records) + 1)])
            raise Crash
        return await super().send(records)


class CrashingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.fate: random.Random | None = None

    async def write(self, shard: str, seen: int, change: Change) -> int:
        if self.fate and self.fate.random() < 0.1:
            if self.fate.random() < 0.5:
                await super().write(shard, seen, change)
            raise Crash
        return await super().write(shard, seen, change)


async def published(log: MemoryLog, topics: Topics) -> list[dict[str, Any]]:
    """All rows, in the order of events."""
    found = []
    for partition in await log.ends([topics.rows(e) for e in project.topology.reads]):
        found += [msgspec.json.decode(value or b"") for value in log._stores[partition].values]
    return sorted(found, key=lambda row: (row["time"], row["id"], row["event"]["zone"]))


async def rows_of(log: MemoryLog, topics: Topics) -> dict[str, bytes]:
    """Rows by id, the cursor aside; a repeat must have the same bytes."""
    found: dict[str, bytes] = {}
    for partition in await log.ends([topics.rows(e) for e in project.topology.reads]):
        for value in log._stores[partition].values:
            assert value is not None
            body = value[: value.index(b',"cursor"')]
            name = msgspec.json.decode(value)["id"]
            assert found.setdefault(name, body) == body, f"row {name} was published with two values"
    return found


def run(
    events: list[tuple[str, bytes, bytes, int]],
    partitions: int,
    chunk: int,
    max_records: int = 4096,
    fate: int | None = None,
    late_start: bool = False,
) -> dict[str, bytes]:
    """All rows of a stream published in chunks; with `fate` processes are killed at random and started again."""

    async def go() -> dict[str, bytes]:
        topics = Topics(project, partitions)
        log, store = CrashingLog(), CrashingStore()
        await log.create(topics.all())

        def start() -> Any:
            lane = lanes(topics, log, store, None)[0]
            lane.max_records = max_records
            return lane

        lane = start()

        async def settle() -> None:
            nonlocal lane
            while True:
                try:
                    if not await lane.turn(0):
                        return
                except Crash:
                    log._groups.clear()
                    lane = start()

        for first in range(0, len(events), chunk):
            log.fate = store.fate = None
            batch = events[first : first + chunk]
            await log.send([Send(topic, key, value) for topic, key, value, _ in batch])
            rest = events[first + chunk :]
            await closing(log, topics, micros(rest[0][3]) if rest else FOREVER)
            log.fate = store.fate = random.Random(f"{fate}-{first}") if fate is not None else None
            if not late_start:
                await settle()
        await settle()
        return await rows_of(log, topics)

    return asyncio.run(go())


EVENTS = stream(800)
WHOLE = run(EVENTS, 1, 800)


def test_every_scored_event_becomes_one_row() -> None:
    asked = {msgspec.json.decode(v)["ride_id"] for topic, _, v, _ in EVENTS if topic == "rides"}
    assert set(WHOLE) == asked


@pytest.mark.parametrize("partitions", [1, 2, 8])
@pytest.mark.parametrize("chunk", [5, 97])
def test_rows_are_byte_identical_for_any_partitions_and_chunks(partitions: int, chunk: int) -> None:
    assert run(EVENTS, partitions, chunk) == WHOLE


@pytest.mark.parametrize("partitions", [1, 4])
def test_rows_are_byte_identical_when_everything_is_caught_up_later(partitions: int) -> None:
    assert run(EVENTS, partitions, 50, max_records=64, late_start=True) == WHOLE


@pytest.mark.parametrize("fate", range(12))
def test_a_crash_at_any_point_loses_nothing_and_counts_nothing_twice(fate: int) -> None:
    assert run(EVENTS, 1 + fate % 3, 40, max_records=30 + 10 * fate, fate=fate) == WHOLE


def test_rows_equal_the_naive_replay() -> None:
    decoded = [_event(topic, value) for topic, _, value, _ in EVENTS]
    rank = {Ride: 0, Rating: 1}
    ordered = sorted(decoded, key=lambda e: (e.at, rank[type(e)], e.ride_id))
    for view in (Zone, Driver):
        named = [e for e in ordered if view is Zone or e.driver is not None]
        for event, row in zip(named, ps.replay(view, named), strict=True):
            if isinstance(event, Ride):
                said = msgspec.json.decode(WHOLE[event.ride_id] + b"}")["features"]
                for name, value in row.__dict__.items():
                    got = said[f"{view.__name__}.{name}"]
                    assert (got is None and value != value) or got == pytest.approx(value, rel=1e-9), f"{event.ride_id} {name}"


def _event(topic: str, value: bytes) -> Any:
    said = msgspec.json.decode(value)
    said["at"] = datetime.fromisoformat(said["at"])
    return (Ride if topic == "rides" else Rating)(**said)


@pytest.mark.parametrize("partitions", [1, 2, 3, 8])
def test_an_id_under_two_keys_is_two_events_and_under_one_key_a_repeat_for_any_partitions(partitions: int) -> None:
    said = [("z1", 0), ("z2", 1), ("z1", 2), ("z3", 3), ("z2", 4)]

    async def go() -> tuple[list[tuple[str, float, float]], list[bytes]]:
        topics, log = Topics(project, partitions), MemoryLog()
        await log.create(topics.all())
        lane = lanes(topics, log, MemoryStore(), None)[0]
        for zone, minute in said:
            ride = {"ride_id": "r", "zone": zone, "driver": "d", "fare": 1.0, "at": START + timedelta(minutes=minute)}
            await log.send([Send("rides", zone.encode(), msgspec.json.encode(ride))])
            await closing(log, topics, micros(minute + 1))
            while await lane.turn(0):
                pass
        dead = [headers for p, stored in log._stores.items() if p.topic == "rides.dlq" for headers in stored.headers]
        rows = await published(log, topics)
        counts = [(row["event"]["zone"], row["features"]["Zone.rides_1h"], row["features"]["Driver.rides_3h"]) for row in rows]
        return counts, [dict(headers)["dlq.error"] for headers in dead]

    rows, errors = asyncio.run(go())
    assert rows == [("z1", 0.0, 0.0), ("z2", 0.0, 1.0), ("z3", 0.0, 2.0)]
    assert errors == [b"Ride.ride_id 'r' was published before, with the same key"] * 2


def _released(merge: Merge) -> list[str]:
    return [name for column in merge.release().columns for name in column.tolist()]


def test_a_quiet_start_passes_no_source_and_a_silent_one_is_passed_after_its_wait() -> None:
    merge = Merge(["rides", "ratings"])
    merge.silent("ratings", heard=0.0, now=60.0, after=5.0)
    merge.push("rides", np.array([10, 20]), np.array([0, 0]), ["x", "y"], [0, 1], ["first", "second"])
    released = []
    for now in (61.0, 65.0, 67.0):
        merge.silent("ratings", heard=0.0, now=now, after=5.0)
        released.append(_released(merge))
    assert released == [[], [], ["first"]], "silence counts from when there was something to wait with"


def test_a_publisher_that_closes_times_may_pause() -> None:
    merge = Merge(["rides", "ratings"])
    merge.close("ratings", 5, told=0.0)
    merge.push("rides", np.array([10, 20]), np.array([0, 0]), ["x", "y"], [0, 1], ["first", "second"])
    for now, due in ((1.0, []), (2.0, []), (60.0, []), (61.0, ["first"])):
        merge.silent("ratings", heard=0.0, now=now, after=5.0)
        assert _released(merge) == due, f"after {now} s"


def test_what_has_piled_up_is_released_in_parts_and_in_the_same_order() -> None:
    def released(most: int) -> tuple[list[str], list[int]]:
        merge, names, sizes = Merge(["rides", "ratings"]), list[str](), list[int]()
        for source in ("rides", "ratings"):
            times = np.sort(np.random.default_rng(len(source)).integers(0, 300, 500))
            ids = [f"{source}-{i}" for i in range(500)]
            for cut in np.split(np.arange(500), [7, 250, 251]):
                merge.push(source, times[cut], 0, [ids[i] for i in cut], cut, [ids[i] for i in cut])
            merge.close(source, 1_000)
        while some := [name for column in merge.release(most).columns for name in column.tolist()]:
            names += some
            sizes.append(len(some))
        assert merge.released == 1_000
        return names, sizes

    whole, one = released(1_000)
    assert one == [1_000] and whole
    for most in (1, 10, 333, 999):
        names, sizes = released(most)
        assert names == whole
        assert max(sizes) <= max(most, 12), "those of one instant stay together"


@pytest.mark.parametrize(("away", "trusted"), [(3600.0, False), (2.0, True)])
def test_a_restart_changes_nothing_about_whether_a_publisher_still_closes_times(
    monkeypatch: pytest.MonkeyPatch, away: float, trusted: bool
) -> None:
    """Read again from the clock topic, a closing is as old as it was: who is long gone is not waited for anew."""

    async def go(restarts: bool) -> float:
        clock, log, topics, store = [micros(60) / 1e6], MemoryLog(), Topics(project, 1), MemoryStore()
        monkeypatch.setattr("time.time", lambda: clock[0])
        await log.create(topics.all())

        async def ride(name: str, minute: int) -> None:
            said = {"ride_id": name, "zone": "z", "driver": "d", "fare": 1.0, "at": START + timedelta(minutes=minute)}
            await log.send([Send("rides", b"z", msgspec.json.encode(said))])

        async def opened() -> Lane:
            lane = lanes(topics, log, store, idle_after=5.0)[0]
            while await lane.turn(0):
                pass
            return lane

        await ride("first", 0)
        await closing(log, topics, micros(1))
        lane = await opened()
        clock[0] += away
        if restarts:
            await lane.close()
            lane = await opened()
        began = clock[0]
        await ride("second", 2)
        while len(await published(log, topics)) < 2 and clock[0] < began + 100.0:
            clock[0] += 0.5
            await lane.turn(0)
        return clock[0] - began

    waited = asyncio.run(go(restarts=True))
    assert 0.0 <= waited - asyncio.run(go(restarts=False)) <= 5.0, "it may have to listen for as long as it takes to be silent"
    assert (waited > TRUSTED_SECONDS - 10.0) == trusted


@pytest.mark.parametrize("closed", [False, True])
def test_the_newest_event_of_a_quiet_stream_is_released_after_the_wait(closed: bool) -> None:
    """Also where somebody closed times once (a history was published) and is long gone."""
    merge = Merge(["rides"])
    if closed:
        merge.close("rides", 5, told=0.0)
    merge.push("rides", [10, 20], 0, ["x", "y"], [0, 1], ["first", "second"])
    for now, due in ((100.0, ["first"]), (104.0, []), (105.1, []), (109.0, []), (110.2, ["second"])):
        merge.silent("rides", heard=100.0, now=now, after=5.0)
        assert _released(merge) == due, f"at {now} s"
