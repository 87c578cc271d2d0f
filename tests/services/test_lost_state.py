"""A store that has lost its last writes, or all of them: no row is lost, none is published twice, and all are what they were."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.test_feature_store import (
    EVENTS,
    FOREVER,
    WHOLE,
    Crash,
    CrashingLog,
    CrashingStore,
    closing,
    micros,
    project,
)  # fmt: skip
from tests.services.test_late_events import START as OPENED
from tests.services.test_late_events import order
from tests.services.test_late_events import project as shops

import penstock as ps
from penstock.duration import DAY
from penstock.errors import PenstockError
from penstock.event import to_micros
from penstock.examples.flights import data as flights
from penstock.examples.flights import project as flight_project
from penstock.log import Batch, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.offline import Tables
from penstock.online.reader import OnlineFeatures
from penstock.project import Project
from penstock.proof.audit import Audit, audit
from penstock.records import Clock
from penstock.runtime.lane import Lane
from penstock.services.embedded import Embedded, slices
from penstock.services.feature_store.archive import Archive
from penstock.services.feature_store.rebuild import EventTables
from penstock.services.feature_store.service import lanes
from penstock.store import LIVE, REBUILDING, STATUS
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

PARTITIONS = 3
Event = tuple[str, bytes, bytes, int]


class World:
    """The feature store over a log and a store in memory, which kill it, and of whose states copies can be put back."""

    def __init__(self) -> None:
        self.topics = Topics(project, PARTITIONS)
        self.log, self.store = CrashingLog(), CrashingStore()
        self.copies: list[dict[str, Any]] = [{}]
        self.lane = self.opened()

    def opened(self, past: EventTables | None = None) -> Lane:
        self.log._groups.clear()
        (lane,) = lanes(self.topics, self.log, self.store, None, history=past)
        return lane

    async def publish(self, events: Sequence[Event], before: int) -> None:
        self.log.fate = None
        await self.log.send([Send(topic, key, value) for topic, key, value, _ in events])
        await closing(self.log, self.topics, before)

    async def turn(self, fate: random.Random | None = None) -> bool:
        self.log.fate = self.store.fate = fate
        try:
            return await self.lane.turn(0)
        except Crash:
            self.lane = self.opened()
            return True

    def copy(self) -> None:
        self.copies.append(copy.deepcopy(self.store._shards))

    def lose(self, back: dict[str, Any]) -> None:
        self.store._shards = copy.deepcopy(back)

    async def statuses(self) -> set[bytes]:
        return {(await self.store.read(self.topics.shard(n), [STATUS]))[0][0] for n in range(PARTITIONS)}

    def records(self, topic: str) -> list[bytes]:
        """Every record of a topic, as often as it is there."""
        return [value or b"" for n in range(PARTITIONS) for value in self.log._stores[Partition(topic, n)].values]

    def rows(self) -> list[tuple[str, bytes]]:
        """Id and body of every row record."""
        found = [value for event in project.topology.reads for value in self.records(self.topics.rows(event))]
        return [(msgspec.json.decode(value)["id"], value[: value.index(b',"cursor"')]) for value in found]


def story(events: Sequence[Event], seed: int, emptied: bool, killed: bool) -> World:
    """Publish in pieces of random length, worked on in steps of random length. Four times the store is put back to an earlier
    state (or emptied); `killed`: the process is killed anywhere, too, also while it makes that good."""
    fate = random.Random(seed)

    async def go() -> World:
        world = World()
        await world.log.create(world.topics.all())
        losses = sorted(fate.sample(range(50, len(events)), 4))
        first = 0
        while first < len(events):
            last = min(first + fate.randrange(1, 60), len(events))
            rest = events[last:]
            await world.publish(events[first:last], min((micros(e[3]) for e in rest), default=FOREVER))
            first = last
            world.lane.max_records = fate.choice([7, 40, 4096])
            for _ in range(fate.randrange(12)):
                await world.turn(fate if killed else None)
                if fate.random() < 0.3:
                    world.copy()
            if losses and losses[0] < first:
                losses.pop(0)
                if not emptied:  # one of the last copies; what came after it has never been
                    del world.copies[len(world.copies) - fate.randrange(min(8, len(world.copies))) :]
                world.lose({} if emptied else world.copies[-1])
        while await world.turn():
            pass
        return world

    return asyncio.run(go())


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_in_the_log_and_is_what_it_would_have_been(seed: int, emptied: bool, killed: bool) -> None:
    rows = story(EVENTS, seed, emptied, killed).rows()
    assert dict(rows) == WHOLE
    assert len(rows) == len(WHOLE)


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_events_that_are_late_or_refused_leave_once(seed: int, emptied: bool) -> None:
    fate = random.Random(seed)
    events = [fate.choice(EVENTS[max(0, i - 40) : i + 1]) if fate.random() < 0.2 else e for i, e in enumerate(EVENTS)]
    asked = [value for topic, _, value, _ in events if topic == "rides"]
    world = story(events, seed, emptied, killed=True)
    names = [name for name, _ in world.rows()]
    assert sorted(names) == sorted({msgspec.json.decode(value)["ride_id"] for value in asked})
    assert len(world.records("rides.dlq")) == len(asked) - len(names), "the same ride twice"


def test_events_that_retention_has_taken_come_from_the_archive_with_neither_gap_nor_overlap(tmp_path: Path) -> None:
    async def go() -> World:
        world = World()
        await world.log.create(world.topics.all())
        archive = Archive(world.topics, world.log, tmp_path)
        await world.publish(EVENTS[:600], micros(EVENTS[600][3]))
        while await world.turn():
            pass
        while await archive.turn():
            pass
        await archive.close()
        for event in project.events:
            for number in range(PARTITIONS):
                place = Partition(event.topic, number)
                world.log.trim(place, world.log._stores[place].end - 3 * number)  # nothing, a little and more is left
        world.lose({})
        world.lane = world.opened(EventTables(Tables(tmp_path)))
        world.lane.max_records = 50
        while await world.turn():
            pass
        assert await world.statuses() == {LIVE}
        await world.publish(EVENTS[600:], FOREVER)
        while await world.turn():
            pass
        return world

    rows = asyncio.run(go()).rows()
    assert dict(rows) == WHOLE
    assert len(rows) == len(WHOLE)


def test_a_state_of_another_version_of_the_views_stops_the_feature_store_with_what_to_do() -> None:
    async def go() -> None:
        world = World()
        await world.log.create(world.topics.all())
        await world.publish(EVENTS[:600], micros(EVENTS[600][3]))
        while await world.turn():
            pass
        for shard in world.store._shards.values():
            shard.heads = {
                key: head[:16] + b"otherone" + head[24:] if key != STATUS else head for key, head in shard.heads.items()
            }
        world.lane = world.opened()
        await world.publish(EVENTS[600:], FOREVER)
        while await world.turn():
            pass

    with pytest.raises(PenstockError, match="belongs to another version of the views") as caught:
        asyncio.run(go())
    assert "empty the store" in caught.value.fix


def test_columns_that_are_called_like_a_place_come_back_from_the_archive_as_they_were_published(tmp_path: Path) -> None:
    @ps.event("reads")
    class Read:
        reader: ps.Key[str]
        offset: int
        partition: float | None
        at: ps.EventTime

    @ps.features(by=Read.reader)
    class Reader:
        furthest = ps.max(Read.offset, over="1h")

    async def go() -> list[bytes | None]:
        topics, log = Topics(Project("library", rows={Read: [Reader]}), 1), CrashingLog()
        await log.create(topics.all())
        await log.send([Send("reads", b"a", value) for value in published])
        archive = Archive(topics, log, tmp_path)
        while await archive.turn():
            pass
        await archive.close()
        found = EventTables(Tables(tmp_path)).read(Partition("reads", 0), 0, 10)
        assert found is not None and list(found.offsets) == [0, 1]
        return list(found.values)

    published = [
        b'{"reader":"a","offset":7,"partition":null,"at":"2024-01-01T00:00:00Z"}',
        b'{"reader":"a","offset":9,"partition":0.5,"at":"2024-01-01T00:00:01Z"}',
    ]
    assert list(map(msgspec.json.decode, asyncio.run(go()))) == list(map(msgspec.json.decode, published))  # type: ignore[arg-type]


def test_readers_are_told_that_a_shard_is_rebuilt_until_it_has_come_as_far_as_it_had_been() -> None:
    async def go() -> None:
        world = World()
        online = OnlineFeatures(world.topics, world.store)

        async def read(zone: str) -> str:
            return (await online.view("Zone", zone, FOREVER)).status

        await world.log.create(world.topics.all())
        assert await world.statuses() == {b""}, "nobody knows anything before the feature store has begun"
        await world.turn()
        assert await world.statuses() == {LIVE}, "there is nothing to rebuild"
        await world.publish(EVENTS[:600], micros(EVENTS[600][3]))
        while await world.turn():
            pass
        before = copy.deepcopy(world.store._shards)
        world.lose({})
        assert await world.statuses() == {b""}
        await world.lane.settle()
        world.lane.max_records = 50
        await world.turn()
        assert await world.statuses() == {REBUILDING}
        assert await read("z1") == await read("never seen") == "rebuilding"
        while await world.turn():
            now = {n: s.heads for n, s in world.store._shards.items()}
            for name, shard in before.items():
                if now[name][STATUS] == LIVE:
                    assert {k: now[name].get(k) for k in shard.heads} == shard.heads, "live, and not all there"
        assert await world.statuses() == {LIVE}
        assert (await read("z1"), await read("never seen")) == ("unpromised", "missing")

    asyncio.run(go())


@pytest.mark.parametrize("emptied", [False, True])
def test_the_whole_loop_makes_a_loss_good(emptied: bool, tmp_path: Path) -> None:
    stream, fate = list(flights.events(3)), random.Random(int(emptied))

    async def go() -> Audit:
        store = MemoryStore()
        machine = Embedded(flight_project, tmp_path, PARTITIONS, store)
        await machine.start()
        for place, (part, before) in enumerate(slices(stream, DAY // 4)):
            await machine.publish(part, before)
            if place in (3, 7, 8):
                back = {} if emptied else copy.deepcopy(store._shards)
                for lane in fate.choices(machine.lanes, k=12):
                    await lane.turn(0.0)
                store._shards = back
            await machine.settle()
        await machine.close()
        return await audit(machine.log, machine.topics)

    found = asyncio.run(go())
    assert (found.lost, found.counted_twice, found.redelivered) == (0, 0, 0), found.complaints
    assert found.rows == found.predictions > 2_000 < found.outcomes


class Reluctant(MemoryLog):
    """A log whose members are first given only what all follow, as where the broker of the other partitions is slow."""

    async def join(self, group: str, shared: Sequence[str], follows: Sequence[str] = ()) -> Any:
        member = await super().join(group, shared, follows)
        read, reads = member.read, itertools.count()

        async def later(most: int, wait: float) -> list[Batch]:
            if next(reads):
                return await read(most, wait)
            slow = {p: at for p, at in member._positions.items() if p.topic in shared}
            member._positions = {p: at for p, at in member._positions.items() if p not in slow}
            found = await read(most, wait)
            member._positions |= slow
            return found

        member.read = later  # type: ignore[assignment, method-assign]
        return member


def rows_after_a_loss(story: Sequence[tuple[Sequence[Event], int]]) -> tuple[list[str], list[str]]:
    """Ids of rows, and of events told to be late: of events published in turn, and the time that is closed before them (minutes).
    The store then loses what it was told of the last ones, and nothing else is new."""

    async def go() -> tuple[list[str], list[str]]:
        topics, log, store = Topics(shops, 1), Reluctant(), MemoryStore()
        await log.create(topics.all())
        source = Partition("orders", 0)

        async def publish(events: Sequence[Event], minute: int) -> None:
            end = (await log.ends(["orders"]))[source]
            said = Clock(publisher="test", before=to_micros(OPENED) + minute * 60_000_000, ends={"orders": {0: end}})
            await log.send([Send(topics.clock, b"test", msgspec.json.encode(said))])
            await log.send([Send(topic, key, value) for topic, key, value, _ in events])
            while await lane.turn(0):
                pass

        (lane,) = lanes(topics, log, store, None)
        await lane.turn(0)
        for events, minute in story:
            kept = copy.deepcopy(store._shards)
            await publish(events, minute)
        store._shards = kept
        log._groups.clear()
        (lane,) = lanes(topics, log, store, None)
        await publish([], 0)
        await publish([], 1_000)
        names = [topics.rows(shops.events[0]), topics.late]
        rows, late = ([msgspec.json.decode(v or b"")["id"] for v in log._stores[Partition(name, 0)].values] for name in names)
        return rows, late

    return asyncio.run(go())


def test_the_row_of_an_event_that_was_late_already_is_not_published_again() -> None:
    """Its source had been passed, further than its own time, in a write that the store still has."""
    story = [([order(1, 50)], 0), ([], 60), ([order(2, 20)], 60), ([], 100)]
    assert rows_after_a_loss(story) == (["o1", "o2"], ["o2"])


def test_the_row_of_an_event_that_is_late_only_after_the_loss_is_not_published_again() -> None:
    """Its time was closed before it was published; at first the two were read together, then one after the other."""
    story = [([order(1, 50)], 0), ([], 60), ([order(2, 70)], 150)]
    assert rows_after_a_loss(story) == (["o1", "o2"], [])
