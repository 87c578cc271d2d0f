"""Takeovers that something comes into: one put in charge that never ran, yet another swap, a lost store. Each event has one
row all the same."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.services.test_feature_store import FOREVER, Ride, micros
from tests.services.test_generations import ALONE, EVENTS, NEW, OLD, PARTITIONS, World, alone, of_generation, views

import penstock as ps
from penstock.cli.generations import forget
from penstock.log import Partition, Send
from penstock.runtime.generation import in_charge
from penstock.runtime.merge import Frontiers
from penstock.runtime.outbox import numbered
from penstock.services.feature_store.succession import Succession
from penstock.store import LIVE, STATUS

THIRD = ps.Project("cabs", rows={Ride: views("12h")})
PROJECTS = [OLD, NEW, THIRD]
VALUES = [*ALONE, alone(THIRD)]


def played(story: Callable[[World], Awaitable[None]]) -> None:
    """A story that begins with the first definition in charge and the second one, its shadow, up to date; at its end each event
    has one row."""

    async def go() -> None:
        world = World(PROJECTS)
        await world.create()
        world.start(0)
        await world.publish(EVENTS[:300], micros(EVENTS[300][3]))
        await world.rest()
        world.start(1)
        await world.rest()
        await story(world)
        await world.publish(EVENTS[500:], FOREVER)
        await world.rest()
        await told_once(world)

    asyncio.run(asyncio.wait_for(go(), 60))


async def more(world: World) -> None:
    await world.publish(EVENTS[300:500], micros(EVENTS[500][3]))
    await world.rest()


async def in_parts(world: World) -> None:
    for first in range(300, 500, 10):
        await world.publish(EVENTS[first : first + 10], micros(EVENTS[first + 10][3]))
        await world.rest()


def trimmed(world: World, topic: str) -> Callable[[], None]:
    """Take from a topic all that it has, as retention does; what puts it back, as readers have had it."""
    stores = {number: world.log._stores[Partition(topic, number)] for number in range(PARTITIONS)}
    columns = {number: (list(store.keys), list(store.values), list(store.headers)) for number, store in stores.items()}
    for number, store in stores.items():
        world.log.trim(Partition(topic, number), store.end)

    def kept() -> None:
        for number, store in stores.items():
            store.keys[:0], store.values[:0], store.headers[:0] = columns[number]
            store.base = 0

    return kept


async def told_once(world: World) -> None:
    rows = await world.rows()
    assert sorted(row.id for _, _, row in rows) == sorted(VALUES[0]), "an event has no row, or more than one"
    for _, _, row in rows:
        assert bytes(row.features) == VALUES[of_generation(world, row)][row.id]


def test_who_was_put_in_charge_and_never_ran_has_not_stopped_those_before_it() -> None:
    async def story(world: World) -> None:
        world.lanes[1] = None
        await world.swap(1)
        await more(world)
        world.start(2)
        await world.rest()
        await world.swap(2)
        await world.rest()

    played(story)


def test_who_was_fenced_before_it_opened_its_shards_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        async def overtaken(self: Succession, numbers: Any) -> int:
            found = await prepare(self, numbers)
            if self._topics is world.topics[0] and len(world.said()) == 1:
                await world.swap(1)
                while await world.turn(1):
                    pass
            return found

        prepare = Succession.prepare
        monkeypatch.setattr(Succession, "prepare", overtaken)
        world.start(0)
        await more(world)

    played(story)


def test_a_takeover_that_another_swap_comes_into_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        async def overtaken(self: Succession, sources: Any) -> None:
            if self._topics is world.topics[1] and len(world.said()) == 2:
                world.start(0)
                await world.swap(0)
                while await world.turn(0):
                    pass
            await send_on(self, sources)

        send_on = Succession._send_on
        monkeypatch.setattr(Succession, "_send_on", overtaken)
        world.lanes[0] = None  # so that its shadow has rows that nobody has sent
        await more(world)
        await world.swap(1)
        await world.rest()

    played(story)


def test_what_a_takeover_was_sending_when_another_swap_came_is_not_said_again_by_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A send may be on its way for as long as a broker is slow."""

    async def story(world: World) -> None:
        rows, shard, sent = world.topics[0].rows(OLD.events[0]), world.topics[1].shard(0), world.log.send

        async def slowly(records: Sequence[Send]) -> dict[Partition, int]:
            own = records and records[0].topic == rows and (numbered(records[0].headers) or ("", 0))[0] == shard
            if own and len(world.said()) == 2:
                world.start(0)
                await world.swap(0)
                while await world.turn(0):
                    pass
            return await sent(records)

        world.lanes[0] = None  # so that the other's shadow has rows that nobody has sent
        await more(world)
        monkeypatch.setattr(world.log, "send", slowly)
        await world.swap(1)
        await world.rest()
        assert len(world.said()) == 3

    played(story)


@pytest.mark.parametrize("behind", [False, True])
def test_rows_that_retention_took_are_not_said_again_by_who_takes_over(behind: bool) -> None:
    """A shadow may be kept for longer than the rows are, or may not have come as far."""

    async def story(world: World) -> None:
        shadow = world.lanes[1]
        world.lanes[1] = None if behind else shadow
        await in_parts(world)
        world.lanes[1] = shadow
        kept = trimmed(world, world.topics[0].rows(OLD.events[0]))
        await world.swap(1)
        await world.rest()
        kept()

    played(story)


def test_what_others_have_said_is_kept_only_until_it_is_done_again() -> None:
    async def story(world: World) -> None:
        world.lanes[1], shadow = None, world.lanes[1]
        await in_parts(world)
        world.lanes[1] = shadow
        await world.swap(1)
        lane = world.lanes[1]
        assert lane is not None
        knew = False
        while await world.turn(1, most=40):
            knew |= any(held.shard._published for held in lane._held.values())  # type: ignore[attr-defined]
        assert knew
        assert not any(held.shard._published for held in lane._held.values())  # type: ignore[attr-defined]

    played(story)


def test_a_kill_leaves_no_repeat_behind_for_who_takes_over() -> None:
    """Everything that the old one's last write had to say is out, and its outbox still holds it."""

    async def story(world: World) -> None:
        await more(world)
        world.lanes[0] = None
        await world.swap(1)
        await world.rest()
        for number in range(PARTITIONS):
            values = world.log._stores[Partition(world.topics[0].rows(OLD.events[0]), number)].values
            assert len(values) == len(set(values))

    played(story)


def test_a_state_that_was_emptied_after_a_swap_is_never_called_live_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        await world.swap(1)
        await more(world)
        stands: list[bytes] = []
        shards = {world.topics[1].shard(number) for number in range(PARTITIONS)}

        async def write(shard: str, *args: Any) -> int:
            version = await writes(shard, *args)
            heads = world.store._shards[shard].heads
            if shard in shards and not any(b"\0" in key[1:] for key in heads):  # no entity yet
                stands.append(heads[STATUS])
            return version

        writes = world.store.write
        monkeypatch.setattr(world.store, "write", write)
        world.store._shards.clear()
        world.start(1)
        await world.turn(1)
        assert stands
        assert LIVE not in stands

    played(story)


def test_a_definition_that_was_dropped_and_is_built_again_goes_on_with_its_numbers() -> None:
    """Also where the log has no longer what it said before: readers still know the numbers that they have had."""

    async def story(world: World) -> None:
        topics, topic = world.topics[1], world.topics[1].rows(OLD.events[0])
        await world.swap(1)
        await in_parts(world)
        await world.swap(0)
        await world.rest()
        world.lanes[1] = None
        await forget(world.store, [topics.shard(number) for number in range(PARTITIONS)])
        await world.log.delete(topics.of_generation(topics.generation, await world.log.describe()))
        kept = trimmed(world, topic)
        await world.create()
        world.start(1)
        await world.rest()
        kept()  # a reader has had them
        await world.swap(1)
        await world.rest()

    played(story)


def tale(seed: int, loss: str) -> World:
    """Publish in pieces of random length, worked on by turns of random length. Whoever runs may be killed, started and swapped in
    at any time; and the store may be put back to what it was, or emptied."""
    fate = random.Random(seed)

    async def go() -> World:
        world = World(PROJECTS)
        await world.create()
        world.start(0)
        names, copies, first = [topics.generation for topics in world.topics], [dict[str, Any]()], 0
        while first < len(EVENTS):
            last = min(first + fate.randrange(1, 60), len(EVENTS))
            await world.publish(EVENTS[first:last], min((micros(e[3]) for e in EVENTS[last:]), default=FOREVER))
            first = last
            for _ in range(fate.randrange(14)):
                await world.turn(fate.randrange(3), fate, fate.choice([7, 40, 4096]))
                if fate.random() < 0.3:
                    copies.append(copy.deepcopy(world.store._shards))
            what, charge = fate.random(), in_charge(world.said())
            if what < 0.12 and charge is not None:
                await world.swap(fate.choice([which for which in range(3) if names[which] != charge.generation]))
            elif what < 0.35:
                world.start(fate.randrange(3))
            elif what < 0.42:
                world.lanes[fate.randrange(3)] = None
            elif what < 0.48 and loss == "emptied":
                world.store._shards = {}
            elif what < 0.48 and loss == "put back":
                del copies[len(copies) - fate.randrange(min(8, len(copies))) :]
                world.store._shards = copy.deepcopy(copies[-1])
        for which in range(3):
            if world.lanes[which] is None:
                world.start(which)
        await world.rest()
        return world

    return asyncio.run(asyncio.wait_for(go(), 60))


@pytest.mark.parametrize("loss", ["none", "put back", "emptied"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_each_event_has_one_row_before_its_time_is_closed(seed: int, loss: str) -> None:
    world = tale(seed, loss)
    asyncio.run(told_once(world))
    rows, clocks = asyncio.run(world.rows()), asyncio.run(world.closings())
    topic = rows[0][0].topic
    for number in range(PARTITIONS):
        frontiers = Frontiers([topic], number, {topic: [f"feature_store.{n}" for n in range(PARTITIONS)]})
        for clock in clocks:
            frontiers.hear(clock)
        for _, offset, row in sorted((r for r in rows if r[0].number == number), key=lambda r: r[1]):
            assert int(row.time.timestamp() * 1e6) >= frontiers.at(topic, offset)
