"""A store that has lost its last writes, or all of them: no row is lost, none is published twice, and all are what they were."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable

import msgspec
import pytest
from tests.services.test_feature_store import EVENTS, FOREVER, WHOLE, closing, micros, project

from penstock.lane import LIVE, REBUILDING, STATUS, Lane
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.services.feature_store.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

PARTITIONS = 3


class World:
    """The feature store over a log and a store in memory, of which copies can be put back."""

    def __init__(self) -> None:
        self.topics = Topics(project, PARTITIONS)
        self.log, self.store = MemoryLog(), MemoryStore()
        self.lane = self.opened()
        self.copies: list[object] = [{}]

    def opened(self) -> Lane:
        self.log._groups.clear()
        (lane,) = lanes(self.topics, self.log, self.store, None)
        return lane

    async def publish(self, first: int, last: int) -> None:
        await self.log.send([Send(topic, key, value) for topic, key, value, _ in EVENTS[first:last]])
        await closing(self.log, self.topics, micros(EVENTS[last][3]) if last < len(EVENTS) else FOREVER)

    def copy(self) -> None:
        self.copies.append(copy.deepcopy(self.store._shards))

    def lose(self, back: object) -> None:
        self.store._shards = copy.deepcopy(back)  # type: ignore[assignment]

    async def statuses(self) -> set[bytes]:
        return {(await self.store.read(f"feature_store.{n}", [STATUS]))[0][0] for n in range(PARTITIONS)}

    def rows(self) -> list[tuple[str, bytes]]:
        """Id and body of every row record, as often as it is there."""
        found = []
        for event in project.topology.reads:
            for number in range(PARTITIONS):
                for value in self.log._stores[self.place(self.topics.rows(event), number)].values:
                    assert value is not None
                    found.append((msgspec.json.decode(value)["id"], value[: value.index(b',"cursor"')]))
        return found

    @staticmethod
    def place(topic: str, number: int):  # type: ignore[no-untyped-def]
        from penstock.log import Partition

        return Partition(topic, number)


def story(seed: int, emptied: bool, closed: bool) -> World:
    """Publish in pieces of random length, worked on in steps of random length; four times the store is put back to an earlier
    state (or emptied), while the process goes on (`closed`: while it is started anew)."""
    fate = random.Random(seed)

    async def go() -> World:
        world = World()
        await world.log.create(world.topics.all())
        losses = sorted(fate.sample(range(50, len(EVENTS)), 4))
        first = 0
        while first < len(EVENTS):
            last = min(first + fate.randrange(1, 60), len(EVENTS))
            await world.publish(first, last)
            first = last
            world.lane.max_records = fate.choice([7, 40, 4096])
            for _ in range(fate.randrange(12)):
                await world.lane.turn(0)
                if fate.random() < 0.3:
                    world.copy()
            if losses and losses[0] < first:
                losses.pop(0)
                world.lose({} if emptied else fate.choice(world.copies[-8:]))
                if closed:
                    world.lane = world.opened()
        while await world.lane.turn(0):
            pass
        return world

    return asyncio.run(go())


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_every_row_is_published_once_and_is_what_it_would_have_been(seed: int, emptied: bool, closed: bool) -> None:
    rows = story(seed, emptied, closed).rows()
    assert len(rows) == len(WHOLE)
    assert dict(rows) == WHOLE
