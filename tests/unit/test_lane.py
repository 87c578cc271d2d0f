"""What the lane does for every shard alike."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock.log import Batch, LogError, Partition, Send, Topic
from penstock.log.memory import MemoryLog
from penstock.runtime.lane import Effects, Lane, stamped
from penstock.runtime.merge import NEVER
from penstock.runtime.outbox import Outbox
from penstock.store import Change, Fenced, Saved, StoreError
from penstock.store.memory import MemoryStore

TRIPS = Partition("trips", 0)


class Counting:
    """The least shard: it counts records, and has nothing to do when there are none."""

    def __init__(self) -> None:
        self.count = self.new = 0

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        self.count = int(saved.position or b"0")
        return {TRIPS: self.count}

    def recall(self, batch: Batch) -> None:
        """It publishes nothing."""

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self.new = sum(map(len, batches))
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if not self.new:
            return None
        self.count += self.new
        return Effects(Change(b"%d" % self.count), positions={TRIPS: self.count})


def test_a_kill_before_the_commit_leaves_no_lag_that_nobody_has() -> None:
    async def scenario() -> tuple[int, int | None]:
        log, store = MemoryLog(), MemoryStore()
        await log.create([Topic("trips", 1)])
        await log.send([Send("trips", None, b"{}")] * 3)

        def lane() -> Lane:
            return Lane("counting", log, store, lambda _: Counting(), ["trips"])

        killed = lane()
        while await killed.turn(0):
            pass
        log.committed.clear()  # the state was written, the position not yet committed
        log._groups.clear()
        again = lane()
        moved = await again.turn(0)
        return int(moved), log.committed.get(("counting", TRIPS))

    assert asyncio.run(scenario()) == (0, 3)


class Echoing(Counting):
    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        effects = super().step(loaded)
        if effects is not None:
            effects.sends = [Send("echoes", None, b"%d" % self.count, (), 0)]
        return effects


def test_neither_a_lane_that_is_stopped_nor_one_that_is_killed_publishes_anything_once_more() -> None:
    async def echoes(killed: bool) -> int:
        log, store = MemoryLog(), MemoryStore()
        await log.create([Topic("trips", 1), Topic("echoes", 1)])
        await log.send([Send("trips", None, b"{}")])
        for _ in range(3):
            lane, stop = Lane("echoing", log, store, lambda _: Echoing(), ["trips"], writes=["echoes"]), asyncio.Event()
            running = asyncio.ensure_future(lane.run(stop))
            while not (lane.ready and (await log.ends(["echoes"]))[Partition("echoes", 0)]):
                await asyncio.sleep(0)
            running.cancel() if killed else stop.set()
            await asyncio.wait([running])
            await lane.close()
        return (await log.ends(["echoes"]))[Partition("echoes", 0)]

    assert asyncio.run(echoes(killed=False)) == 1
    assert asyncio.run(echoes(killed=True)) == 1


def test_more_records_than_a_write_can_number_are_an_error_and_not_lost() -> None:
    with pytest.raises(ValueError, match="1,048,577 records in one write"):
        stamped("feature_store.3", 2, [Send("rows", None, b"")] * ((1 << 20) + 1))


def test_the_outbox_gives_back_what_went_in_under_the_same_numbers() -> None:
    row, letter = (("ce_type", b"row"),), (("ce_id", b"mine"), ("dlq.reason", b"decode"))
    sends = [
        Send("rows", b"a", b"1", row, 0),
        Send("rows", b"b", None, row, 1),
        Send("t.dlq", None, b"{", letter, 0),
        Send("x", b"k", b""),
    ]
    outbox = Outbox.of(2, {"rows": {0: 7}}, sends)
    assert Outbox.unpack(outbox.pack()).sends == sends
    assert Outbox.unpack(outbox.pack()).end(Partition("rows", 0)) == 7
    first, second, dead, last = stamped("feature_store.3", 2, sends)
    assert first.headers == (*row, ("ce_source", b"feature_store.3"), ("ce_id", b"%d" % (2 << 20)))
    assert dict(second.headers)["ce_id"] == b"%d" % ((2 << 20) + 1)
    assert dead.headers == letter, "a dead letter keeps the headers of whoever published it"
    assert dict(last.headers)["ce_id"] == b"%d" % ((2 << 20) + 3)


class Contested:
    """A handover that another process wins, so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def prepare(self, numbers: Sequence[int]) -> int:
        return NEVER

    async def confirm(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise Fenced("another one was put in charge meanwhile")


def test_a_lane_whose_shards_are_taken_while_it_opens_them_says_so_and_goes_on() -> None:
    async def scenario() -> int:
        log, store = MemoryLog(), MemoryStore()
        await log.create([Topic("trips", 1)])
        await log.send([Send("trips", None, b"{}")] * 3)
        lane = Lane("counting", log, store, lambda _: Counting(), ["trips"], handover=Contested(4))
        while await lane.turn(0):
            pass
        return int((await store.open("counting.0")).position)

    with capture_logs() as said:
        assert asyncio.run(scenario()) == 3
    assert [line["log_level"] for line in said if line["event"] == "taken"] == ["info", "info", "warning", "warning"]
    assert all("another one was put in charge" in line["cause"] for line in said if line["event"] == "taken")


def test_a_lane_tells_what_it_waits_for_as_long_as_it_does() -> None:
    class Away(MemoryStore):
        away = True

        async def open(self, shard: str) -> Saved:
            if self.away:
                raise StoreError("Redis at here:1 does not answer")
            return await super().open(shard)

    async def scenario() -> list[str]:
        log, store, said = MemoryLog(), Away(), []
        await log.create([Topic("trips", 1)])
        lane = Lane("counting", log, store, lambda _: Counting(), ["trips"])
        turning = asyncio.ensure_future(lane.turn(0))
        while not lane.waiting:
            await asyncio.sleep(0)
        said.append(lane.waiting)
        store.away = False
        await turning
        return [*said, lane.waiting]

    assert asyncio.run(scenario()) == ["Redis at here:1 does not answer", ""]


def test_a_broker_that_does_not_take_a_position_is_waited_for() -> None:
    class Hanging(MemoryLog):
        async def join(self, group: str, shared: Sequence[str], follows: Sequence[str] = ()) -> Any:
            member = await super().join(group, shared, follows)
            commit, tries = member.commit, iter([LogError("committing: Kafka at here:1 gave no answer"), None])

            async def hanging(positions: Mapping[Partition, int]) -> None:
                if (error := next(tries, None)) is not None:
                    raise error
                await commit(positions)

            member.commit = hanging  # type: ignore[method-assign]
            return member

    async def scenario() -> int:
        log, store = Hanging(), MemoryStore()
        await log.create([Topic("trips", 1)])
        await log.send([Send("trips", None, b"{}")] * 3)
        lane = Lane("counting", log, store, lambda _: Counting(), ["trips"])
        while await lane.turn(0):
            pass
        return log.committed["counting", TRIPS]

    assert asyncio.run(scenario()) == 3
