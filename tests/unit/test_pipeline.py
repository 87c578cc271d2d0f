"""Steps of a shard overlap: what that may and may not change, with a log and a store that act only when they are let."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import pytest

from penstock.log import Batch, Partition, Send, Topic
from penstock.log.memory import MemoryLog
from penstock.runtime.lane import Effects, Lane
from penstock.runtime.pipeline import DEPTH
from penstock.store import Change, Fenced, Saved
from penstock.store.memory import MemoryStore

TRIPS, ECHOES = Partition("trips", 0), Partition("echoes", 0)


class Gate:
    """Holds back every write and every send until it is let through; with `twice` also the answer, when it is done."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, asyncio.Event]] = []
        self.done: list[str] = []
        self.open = self.twice = False

    async def __call__(self, what: str) -> None:
        if not self.open:
            self.waiting.append((what, asyncio.Event()))
            await self.waiting[-1][1].wait()
        self.done.append(what)

    async def let(self) -> None:
        """Let the oldest through, and give what follows from it the time to happen."""
        _, event = self.waiting.pop(0)
        event.set()
        await still()

    @property
    def asked(self) -> list[str]:
        return [what for what, _ in self.waiting]


async def still() -> None:
    """Until nothing moves any more without the gate: no timers are involved."""
    for _ in range(50):
        await asyncio.sleep(0)


class GatedLog(MemoryLog):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        if records and records[0].topic == "echoes":
            await self.gate("send " + (records[0].value or b"").decode())
        ends = await super().send(records)
        if self.gate.twice and records[0].topic == "echoes":
            await self.gate("sent")
        return ends


class GatedStore(MemoryStore):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate, self.reads = gate, list[list[tuple[bytes, bytes]]]()

    async def write(self, shard: str, seen: int, change: Change) -> int:
        await self.gate("write " + change.position.decode())
        version = await super().write(shard, seen, change)
        if self.gate.twice:
            await self.gate("written")
        return version

    async def read(self, shard: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        self.reads.append(await super().read(shard, keys))
        return self.reads[-1]


class Echo:
    """Echoes each record, and counts them under one key, which leaves memory with every step."""

    def __init__(self) -> None:
        self.next, self.values, self.steps = 0, list[bytes](), 0

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        self.next = int(saved.position or b"0")
        return {TRIPS: self.next}

    def recall(self, batch: Batch) -> None:
        raise AssertionError("the store has lost nothing")

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self.values = [value or b"" for batch in batches for value in batch.values]
        return [b"count"] if self.values and self.values[0][-1:] == b"!" else ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if not self.values:
            return None
        self.steps += 1
        self.next += len(self.values)
        change = Change(b"%d" % self.next, heads={b"count": b"%d" % self.next})
        return Effects(change, [Send("echoes", None, value, (), 0) for value in self.values], positions={TRIPS: self.next})


class World:
    def __init__(self, max_records: int = 1) -> None:
        self.gate = Gate()
        self.log, self.store, self.max_records = GatedLog(self.gate), GatedStore(self.gate), max_records
        self.running: asyncio.Future[None] | None = None
        self.shard = Echo()

    async def begin(self, records: Sequence[bytes] = ()) -> None:
        """Start the lane, its shard opened, with these records to read."""
        if not await self.log.describe():
            await self.log.create([Topic("trips", 1), Topic("echoes", 1)])
            await self.log.send([Send("trips", None, value) for value in records])

        def made(_: int) -> Echo:
            self.shard = Echo()
            return self.shard

        self.log._groups.clear()
        self.lane = Lane("echoing", self.log, self.store, made, ["trips"], writes=["echoes"])
        self.lane.max_records = self.max_records
        self.running = asyncio.ensure_future(self.lane.run())
        await still()

    async def kill(self) -> None:
        assert self.running is not None
        self.running.cancel()
        await asyncio.wait([self.running])
        self.gate.waiting.clear()

    @property
    def echoes(self) -> list[bytes | None]:
        return self.log._stores[ECHOES].values


async def opened(records: Sequence[bytes], max_records: int = 1) -> World:
    """A lane that has written that it is live, and has read what it can."""
    world = World(max_records)
    await world.begin(records)
    assert world.gate.asked == ["write "], "a new shard tells readers that it is live"
    await world.gate.let()
    return world


def test_a_step_is_worked_while_the_one_before_is_written_and_neither_overtakes_the_other() -> None:
    async def go() -> None:
        world = await opened([b"a", b"b", b"c", b"d"])
        assert (world.gate.asked, world.shard.steps) == (["write 1"], DEPTH), "the second is worked, and waits"
        await world.gate.let()
        assert (world.gate.asked, world.shard.steps) == (["send a"], DEPTH), "its write would replace an outbox that is not out"
        await world.gate.let()
        assert (world.gate.asked, world.shard.steps) == (["write 2"], DEPTH + 1)
        while world.gate.asked:
            assert len(world.gate.asked) == 1, "one at a time"
            await world.gate.let()
        assert world.gate.done[1:] == [
            f"{what} {of}" for n, e in zip("1234", "abcd", strict=True) for what, of in (("write", n), ("send", e))
        ]
        assert world.echoes == [b"a", b"b", b"c", b"d"]
        await world.kill()

    asyncio.run(go())


@pytest.mark.parametrize("seed", range(40))
def test_a_kill_anywhere_between_overlapping_steps_loses_nothing_and_doubles_nothing(seed: int) -> None:
    fate, records = random.Random(seed), [b"%d" % i for i in range(23)]

    async def go() -> list[bytes | None]:
        world = World()
        world.gate.open = True
        await world.begin()
        await world.log.send([Send("trips", None, value) for value in records])
        world.gate.open, world.gate.twice = False, True
        kills = 0
        while len(world.echoes) < len(records) or world.gate.asked:
            if world.gate.asked:
                await world.gate.let()
            await still()
            if kills < 12 and fate.random() < 0.3:
                kills += 1
                await world.kill()
                world.max_records = fate.randint(1, 4)
                await world.begin()
        await world.kill()
        assert kills
        return world.echoes

    assert asyncio.run(go()) == records


def test_a_write_that_is_fenced_stops_the_step_that_was_worked_upon_it() -> None:
    async def go() -> None:
        world = await opened([b"a", b"b", b"c"])
        abandoned = world.shard
        assert (world.gate.asked, abandoned.steps) == (["write 1"], DEPTH)
        world.store._shards["echoing.0"].version += 1  # somebody else wrote
        await world.gate.let()
        assert world.shard is not abandoned and abandoned.steps == DEPTH, "opened anew"
        assert world.gate.asked == ["write 1"], "the second step, worked upon the first, has written nothing"
        while world.gate.asked:
            await world.gate.let()
        assert world.echoes == [b"a", b"b", b"c"]
        await world.kill()

    asyncio.run(go())


def test_an_error_in_a_step_ends_the_lane_behind_the_steps_before_it_and_leaves_nothing_under_way() -> None:
    async def go() -> None:
        world = await opened([b"a", b"b", b"c"])
        world.shard.step = broken  # type: ignore[method-assign]
        while world.gate.asked:
            await world.gate.let()
        assert world.running is not None
        with pytest.raises(ZeroDivisionError):
            await world.running
        assert world.echoes == [b"a", b"b"], "what had been worked before is out"
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    def broken(loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        raise ZeroDivisionError

    asyncio.run(go())


def test_what_is_asked_of_the_store_has_seen_the_steps_before() -> None:
    async def go() -> None:
        world = await opened([b"a", b"b!", b"c"])
        assert world.store.reads == [], "its count is being written: reading now would find the older one"
        await world.gate.let()
        assert world.store.reads == [], "(a step is stored when it is out)"
        await world.gate.let()
        assert world.store.reads == [[(b"1", b"")]]
        await world.kill()

    asyncio.run(go())


def test_a_stop_lets_what_is_under_way_come_to_its_end() -> None:
    async def go() -> None:
        world, stop = await opened([b"a", b"b", b"c"]), asyncio.Event()
        await world.kill()
        world.running = asyncio.ensure_future(world.lane.run(stop))
        await still()
        stop.set()
        world.gate.open = True
        while world.gate.waiting:
            await world.gate.let()
        await asyncio.wait_for(world.running, 10)
        begun = world.shard.steps
        assert world.echoes == [b"a", b"b", b"c"][:begun] and begun >= DEPTH
        saved = await world.store.open("echoing.0")
        assert saved.position == b"%d" % begun

    asyncio.run(go())


def test_a_change_touches_what_it_replaces_appends_to_cuts_or_drops() -> None:
    change = Change(b"", heads={b"h": b""}, tails={b"t": b""}, cut=[b"c"], drops=[b"d"])
    assert [key for key in (b"h", b"t", b"c", b"d", b"x") if change.touches([b"y", key])] == [b"h", b"t", b"c", b"d"]
    assert not change.touches([])


def test_a_fenced_store_is_what_the_tests_above_take_it_for() -> None:
    with pytest.raises(Fenced):
        asyncio.run(MemoryStore().write("echoing.0", 1, Change(b"")))
