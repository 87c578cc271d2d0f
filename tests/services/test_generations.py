"""Generations of views side by side: built from what was, compared as shadows, swapped and swapped back; none lost or twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.services.test_feature_store import (
    FOREVER,
    Crash,
    CrashingLog,
    CrashingStore,
    Rating,
    Ride,
    Zone,
    closing,
    micros,
    stream,
)  # fmt: skip

import penstock as ps
from penstock.log import Partition, Send
from penstock.records import Charge, Clock, Row
from penstock.runtime.generation import charges, in_charge, meant_for
from penstock.runtime.lane import Lane
from penstock.runtime.merge import Frontiers
from penstock.runtime.outbox import Redelivered
from penstock.services.feature_store.service import lanes
from penstock.store import LIVE, STATUS
from penstock.topics import Topics

PARTITIONS = 3


def views(since: str) -> list[type]:
    """A view by driver as it was, and as somebody changed it: with another window, and one more feature by another key."""

    @ps.features(by=[Ride.driver, Rating.driver])
    class Driver:
        rides = ps.count(Ride, over=since)
        stars_24h = ps.mean(Rating.stars, over="24h")

    @ps.features(by=[Ride.zone, Rating.zone])
    class District:
        dearest = ps.max(Ride.fare, over="7d")

    return [Zone, Driver] if since == "3h" else [Driver, District, Zone]


OLD = ps.Project("cabs", rows={Ride: views("3h")})
NEW = ps.Project("cabs", rows={Ride: views("6h")})
EVENTS = stream(700, seed=3)


class World:
    """Feature stores of one project over one log and one store; each may be killed at any point."""

    def __init__(self, projects: Sequence[ps.Project] = (OLD, NEW)) -> None:
        self.topics = [Topics(project, PARTITIONS) for project in projects]
        self.log, self.store = CrashingLog(), CrashingStore()
        self.lanes: list[Lane | None] = [None] * len(projects)

    def start(self, which: int) -> None:
        for group in [group for group in self.log._groups if group[0] == self.topics[which].group("feature_store")]:
            del self.log._groups[group]
        (self.lanes[which],) = lanes(self.topics[which], self.log, self.store, None)

    async def create(self) -> None:
        for topics in self.topics:
            await self.log.create(topics.all())

    async def publish(self, events: Sequence[tuple[str, bytes, bytes, int]], before: int) -> None:
        self.log.fate = None
        await self.log.send([Send(topic, key, value) for topic, key, value, _ in events])
        await closing(self.log, self.topics[0], before)

    async def turn(self, which: int, fate: random.Random | None = None, most: int = 4096) -> bool:
        lane = self.lanes[which]
        if lane is None:
            return False
        self.log.fate = self.store.fate = fate
        lane.max_records = most
        try:
            return await lane.turn(0)
        except Crash:
            self.start(which)
            return True
        finally:
            self.log.fate = self.store.fate = None

    async def rest(self) -> None:
        while any([await self.turn(which) for which in range(len(self.lanes))]):
            pass

    async def swap(self, to: int) -> None:
        found = in_charge(self.said())
        assert found is not None
        record = Charge(number=found.number + 1, generation=self.topics[to].generation, previous=found.generation)
        await self.log.send([Send(self.topics[0].generations, None, msgspec.json.encode(record))])

    def said(self) -> list[Charge]:
        store = self.log._stores[Partition(self.topics[0].generations, 0)]
        return [msgspec.json.decode(value or b"", type=Charge) for value in store.values]

    async def rows(self) -> list[tuple[Partition, int, Row]]:
        """Rows as a reader has them: without repeats."""
        found = []
        topic = self.topics[0].rows(self.topics[0].project.events[0])
        for partition in await self.log.ends([topic]):
            store, seen = self.log._stores[partition], Redelivered()
            for offset, (value, headers) in enumerate(zip(store.values, store.headers, strict=True)):
                if seen.new(headers):
                    found.append((partition, offset, msgspec.json.decode(value or b"", type=Row)))
        return found

    async def closings(self) -> list[Clock]:
        store = self.log._stores[Partition(self.topics[0].clock, 0)]
        return [msgspec.json.decode(value or b"", type=Clock) for value in store.values]


def alone(project: ps.Project) -> dict[str, bytes]:
    """Every row's features, when this definition is the only one there ever was."""

    async def go() -> dict[str, bytes]:
        world = World([project])
        await world.create()
        world.start(0)
        await world.publish(EVENTS, FOREVER)
        await world.rest()
        return {row.id: bytes(row.features) for _, _, row in await world.rows()}

    return asyncio.run(go())


ALONE = [alone(OLD), alone(NEW)]


def of_generation(world: World, row: Row) -> int:
    made = [{v.name: v.fingerprint for h in t.project.topology.hops for v in h.views} for t in world.topics]
    return made.index(row.views)


def story(seed: int, killed: bool, swaps: int) -> World:
    """Publish in pieces of random length, worked on by turns of random length. The changed definition comes at some time, and is
    swapped in at some time, and out again; either feature store may be far behind or down at any of them."""
    fate = random.Random(seed)

    async def go() -> World:
        world = World()
        await world.create()
        world.start(0)
        turning = sorted(fate.sample(range(len(EVENTS)), 1 + swaps))
        first = to = 0
        while first < len(EVENTS):
            last = min(first + fate.randrange(1, 60), len(EVENTS))
            await world.publish(EVENTS[first:last], min((micros(e[3]) for e in EVENTS[last:]), default=FOREVER))
            first = last
            for _ in range(fate.randrange(12)):
                await world.turn(fate.randrange(2), fate if killed else None, fate.choice([7, 40, 4096]))
            if turning and turning[0] < first:
                turning.pop(0)
                if world.lanes[1] is None:
                    world.start(1)
                elif world.said():
                    to = 1 - to
                    await world.swap(to)
        await world.rest()
        return world

    return asyncio.run(go())


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("swaps", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_each_event_has_one_row_and_it_is_that_of_the_definition_which_made_it(seed: int, swaps: int, killed: bool) -> None:
    world = story(seed, killed, swaps)
    rows = asyncio.run(world.rows())
    assert sorted(row.id for _, _, row in rows) == sorted(ALONE[0]), "an event has no row, or more than one"
    for _, _, row in rows:
        which = of_generation(world, row)
        assert bytes(row.features) == ALONE[which][row.id]


@pytest.mark.parametrize("seed", range(6))
def test_no_row_comes_after_its_time_is_closed(seed: int) -> None:
    """Readers go by what `feature_store.<n>` closes, whoever is in charge."""
    world = story(seed, killed=True, swaps=3)
    writers = [f"feature_store.{n}" for n in range(PARTITIONS)]
    rows, clocks = asyncio.run(world.rows()), asyncio.run(world.closings())
    topic = rows[0][0].topic
    for number in range(PARTITIONS):
        frontiers = Frontiers([topic], number, {topic: writers})
        for clock in clocks:
            frontiers.hear(clock)
        for partition, offset, row in sorted((r for r in rows if r[0].number == number), key=lambda r: r[1]):
            closed = frontiers.at(topic, offset)
            assert int(row.time.timestamp() * 1e6) >= closed, f"{partition} {offset}: a row of {row.time}, closed {closed}"


def at_rest(check: Callable[[World], Any]) -> None:
    """With the old definition in charge and the new one, which came half-way, up to date."""

    async def go() -> None:
        world = World()
        await world.create()
        world.start(0)
        await world.publish(EVENTS[:400], micros(EVENTS[400][3]))
        await world.rest()
        world.start(1)
        await world.turn(1, most=40)
        await check(world)

    asyncio.run(go())


def test_reads_of_a_definition_say_rebuilding_until_it_is_built() -> None:
    async def check(world: World) -> None:
        async def statuses(which: int) -> set[bytes]:
            return {(await world.store.read(world.topics[which].shard(n), [STATUS]))[0][0] for n in range(PARTITIONS)}

        assert await statuses(0) == {LIVE}
        assert LIVE not in await statuses(1)
        await world.rest()
        assert await statuses(1) == {LIVE}

    at_rest(check)


def test_a_shadow_shows_what_it_would_have_said_from_when_it_began() -> None:
    async def check(world: World) -> None:
        await world.rest()
        before = {row.id for _, _, row in await world.rows()}
        await world.publish(EVENTS[400:], FOREVER)
        await world.rest()
        shown: dict[str, bytes] = {}
        for n in range(PARTITIONS):
            store = world.log._stores[Partition(world.topics[1].shadow, n)]
            for value, headers in zip(store.values, store.headers, strict=True):
                assert meant_for(headers) == "cabs.rows.rides"
                row = msgspec.json.decode(value or b"", type=Row)
                shown[row.id] = bytes(row.features)
        rows = {row.id: bytes(row.features) for _, _, row in await world.rows() if row.id not in before}
        assert set(rows) <= set(shown), "what came after the beginning can be compared"
        assert shown.items() <= ALONE[1].items()
        assert rows.items() <= ALONE[0].items()

    at_rest(check)


def test_a_shadow_that_is_behind_goes_by_the_order_that_was_told() -> None:
    """Somebody closed a time too early, so the one in charge puts what came after it later than its own time."""

    async def check(world: World) -> None:
        await world.rest()
        await world.publish(EVENTS[400:500], micros(EVENTS[600][3]))
        while await world.turn(0):
            pass
        await world.publish(EVENTS[500:], FOREVER)
        while await world.turn(0):
            pass
        assert world.log._stores[Partition(world.topics[0].passed, 0)].end
        await world.rest()
        rows = {row.id: msgspec.json.decode(row.features) for _, _, row in await world.rows()}
        compared = 0
        for n in range(PARTITIONS):
            for value in world.log._stores[Partition(world.topics[1].shadow, n)].values:
                row = msgspec.json.decode(value or b"", type=Row) if b'"features"' in (value or b"") else None
                for name, had in msgspec.json.decode(row.features).items() if row else ():
                    if row and name.startswith("Zone."):
                        compared += 1
                        assert had == rows[row.id][name], (row.id, name)
        assert compared > 400

    at_rest(check)


def test_of_two_swaps_at_once_one_counts() -> None:
    async def check(world: World) -> None:
        before = in_charge(world.said())
        assert before is not None
        await world.swap(1)
        late = Charge(number=before.number + 1, generation="elsewhere", previous=before.generation)
        await world.log.send(
            [Send(world.topics[0].generations, None, msgspec.json.encode(late)), Send(world.topics[0].generations, None, b"{")]
        )
        await world.rest()
        await world.publish(EVENTS[400:], FOREVER)
        await world.rest()
        rows = await world.rows()
        assert of_generation(world, rows[-1][2]) == 1
        assert len(rows) == len(ALONE[0])

    at_rest(check)


def test_records_that_are_no_charge_are_passed_by() -> None:
    async def go() -> list[Charge]:
        world = World()
        await world.create()
        topic = world.topics[0].generations
        await world.log.send(
            [Send(topic, None, b"no"), Send(topic, None, None), Send(topic, None, b'{"number":1,"generation":"a"}')]
        )
        reader = await world.log.reader(await world.log.begins([topic]))
        return charges((await reader.read(10, 0))[0].values)

    assert asyncio.run(go()) == [Charge(number=1, generation="a")]


def test_the_topics_of_a_generation_are_its_own_and_no_others() -> None:
    topics = Topics(OLD, PARTITIONS)
    there = [topic.name for topic in [*topics.all(), *Topics(NEW, PARTITIONS).all()]]
    own = topics.of_generation(topics.generation, there)
    assert topics.shadow in own
    assert all(name.endswith(f".{topics.generation}") for name in own)
    for name in ("rides", "dlq", "clock", "passed", "generations", "quality", ""):
        assert topics.of_generation(name, there) == []
