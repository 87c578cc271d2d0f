"""The data lane: how a service that is shared out by partitions runs, on any log and any store.

A service brings a *shard*: the pure state machine of one partition. The lane does what all have in common: it shares
partitions, restores a shard, feeds it batches, writes its change and its position in one atomic step, and only then
publishes what the step produced:

    read -> shard.take -> load states -> shard.step -> store.write (state, position, outbox) -> log.send -> clock

A crash before the write repeats the step; a crash after it publishes the outbox again. Every record sent carries its shard
and sequence number, so readers drop what they have had (`Redelivered`). Together: nothing lost, nothing counted twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeVar

import msgspec
import structlog

from .log import Batch, Headers, Log, Member, Partition, Send
from .patience import patiently
from .records import Clock
from .store import Change, Fenced, Saved, Store, StoreError
from .telemetry import Meters, Tracing, trace_of

__all__ = ["Effects", "Lane", "Redelivered", "Shard", "now", "numbered"]

T = TypeVar("T")

FROM, SEQUENCE = "ce_source", "ce_id"
"""Source and id name a CloudEvent; who has had both may drop it. Lanes use them so: their shard's name, and a number that
grows. (The sources of others hold a slash.)"""

MAX_RECORDS, WAIT = 4096, 0.02
"""How many records a turn takes at most, and how many seconds it waits for the first."""


def now() -> float:
    """Wall clock in seconds since 1970; reaches shards as a parameter."""
    return time.time()


@dataclass(slots=True)
class Effects:
    """What a step did. `change.outbox` is filled by the lane. `closed` is the time before which this shard has published
    all that it will (microseconds), None when that did not move."""

    change: Change
    sends: list[Send] = field(default_factory=list)
    closed: int | None = None
    positions: Mapping[Partition, int] = field(default_factory=dict)


class Shard(Protocol):
    """One partition's share of a service. Only `take` and `step` run per batch; neither does I/O."""

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        """Restore what was saved (version 0: nothing was) and say where to read on."""
        ...

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        """Accept batches of the own partitions and of followed topics; return the keys whose state the step needs."""
        ...

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        """Do the work; None when there was nothing to do."""
        ...


def numbered(headers: Headers) -> tuple[str, int] | None:
    """The shard that sent a record and the number that it gave it; None for records of others.

    >>> numbered((("ce_type", b"penstock.row.v1"), ("ce_source", b"feature_store.3"), ("ce_id", b"17")))
    ('feature_store.3', 17)
    """
    source = number = None
    for name, value in headers:
        if name == FROM and value and b"/" not in value:
            source = value.decode("utf-8", "replace")
        elif name == SEQUENCE and value and value.isdigit():
            number = int(value)
    return None if source is None or number is None else (source, number)


class Redelivered:
    """Drops records that a shard has had before: sources number what they send, so a number that does not grow is a repeat."""

    def __init__(self, seen: Mapping[str, int] | None = None) -> None:
        self.seen = dict(seen or {})

    def new(self, headers: Headers) -> bool:
        """Whether a record with these headers is new; records that nobody numbered always are."""
        found = numbered(headers)
        if found is None:
            return True
        source, number = found
        if number <= self.seen.get(source, -1):
            return False
        self.seen[source] = number
        return True


def stamped(shard: str, version: int, sends: Sequence[Send]) -> list[Send]:
    """The sends of a shard's write `version`, numbered; the same write gives the same numbers. Dead letters go as they are,
    with the headers of whoever published them: the position they come from is their name.

    2**20 records a step is far above what a read of MAX_RECORDS can produce.
    """
    source, first = (FROM, shard.encode()), version << 20
    return [
        Send(topic, key, value, (*headers, source, (SEQUENCE, b"%d" % number)), partition)
        if topic[-4:] != ".dlq"
        else Send(topic, key, value, headers, partition)
        for number, (topic, key, value, headers, partition) in enumerate(sends, first)
    ]


def packed(sends: Sequence[Send]) -> bytes:
    """Sends as the outbox keeps them: those of one topic with the same headers together, for they are many."""
    groups = [
        (*of, [(key, value, partition) for _, key, value, _, partition in group])
        for of, group in groupby(sends, key=itemgetter(0, 3))
    ]
    return msgspec.msgpack.encode(groups) if groups else b""


def unpacked(outbox: bytes) -> list[Send]:
    """The inverse of `packed`."""
    kind = list[tuple[str, Headers, list[tuple[bytes | None, bytes | None, int | None]]]]
    groups = msgspec.msgpack.decode(outbox, type=kind)
    return [Send(topic, key, value, headers, number) for topic, headers, group in groups for key, value, number in group]


class Lane:
    """Runs the shards of one service that this process holds.

    `closes` are the topics whose time the service closes on the clock topic as it goes. `name` names its shards in the store
    and in what it sends; `group` (default: the same) is the consumer group, which other projects on the broker must not share.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        store: Store,
        shard: Callable[[int], Shard],
        shared: Sequence[str],
        follows: Sequence[str] = (),
        clock: str = "",
        closes: Sequence[str] = (),
        tracing: Tracing | None = None,
        group: str = "",
    ) -> None:
        self.name, self._log, self._store, self._make = name, log, store, shard
        self._group = group or name
        self._shared, self._follows, self._clock, self._closes = shared, tuple(follows), clock, tuple(closes)
        self.max_records = MAX_RECORDS
        self.tracing = tracing or Tracing(name)
        self._meters = Meters(name)
        self._member: Member | None = None
        self._generation = 0
        self.shards: dict[int, Shard] = {}
        self._versions: dict[int, int] = {}
        self._published: dict[int, bytes] = {}
        """The positions of the shards whose outbox is stored, though all of it has been published."""
        self._ends: dict[str, dict[int, int]] = {}
        self._logger = structlog.get_logger(service=name)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Turn until `stop` is set, then settle: whoever opens these shards next has nothing to publish once more.

        Cancelled, it ends wherever it is, also when a client below drops the cancellation (`asyncio.wait_for` of Python 3.11,
        which redis-py uses, does when the answer comes in the same moment).
        """
        me = asyncio.current_task()
        while me is None or not me.cancelling():
            await self.turn()
            if stop is not None and stop.is_set():
                return await self.settle()
        raise asyncio.CancelledError

    async def settle(self) -> None:
        """Empty the stored outbox of each shard that has published it. Where that fails, its next owner publishes it once
        more, and readers drop the repeats by their numbers."""
        published, self._published = self._published, {}
        for number, position in published.items():
            with suppress(StoreError, Fenced):
                self._versions[number] = await self._store.write(
                    f"{self.name}.{number}", self._versions[number], Change(position)
                )

    async def turn(self, wait: float = WAIT) -> bool:
        """One round; whether anything happened."""
        if self._member is None:
            self._member = await self._patient(lambda: self._log.join(self._group, self._shared, self._follows))
        if self._member.generation != self._generation:
            await self._open(self._member)
        batches = await self._patient(lambda: self._member.read(self.max_records, wait))  # type: ignore[union-attr]
        if self._member.generation != self._generation:
            return True
        followed = [b for b in batches if b.partition.topic in self._follows]
        moved = bool(batches)
        for number, shard in self.shards.items():
            own = [b for b in batches if b.partition.number == number and b.partition.topic not in self._follows]
            try:
                moved |= await self._step(number, shard, followed + own)
            except Fenced:
                self._logger.warning(
                    "fenced", shard=number, meaning="another process has taken this partition over; opening it anew"
                )
                self._meters.fenced.inc()
                self._generation = -1
                return True
        return moved

    async def _step(self, number: int, shard: Shard, batches: list[Batch]) -> bool:
        name = f"{self.name}.{number}"
        began = now()
        keys = shard.take(batches, began)
        loaded = await self._patient(lambda: self._store.read(name, keys)) if keys else []
        effects = shard.step(loaded)
        if effects is None:
            return False
        self._trace(effects.sends, began)
        effects.change.outbox = packed(effects.sends)
        self._published.pop(number, None)
        version = await self._patient(lambda: self._store.write(name, self._versions[number], effects.change))
        self._versions[number] = version
        await self._publish(name, version, effects.sends)
        if effects.sends:
            self._published[number] = effects.change.position
        done = now()
        self._meters.records_in.inc(sum(len(batch) for batch in batches))
        self._meters.records_out.inc(len(effects.sends))
        self._meters.seconds.observe(done - began)
        self._meters.newest.set(done)
        if effects.closed is not None:
            await self._close(name, effects.closed)
        if effects.positions and self._member is not None:
            await self._member.commit(effects.positions)
        return True

    def _trace(self, sends: list[Send], began: float) -> None:
        """One span for each traced record that goes out, and one for the step that links them."""
        if not self.tracing.on:
            return
        traces = []
        for at, send in enumerate(sends):
            if send.headers and (trace := trace_of(send.headers)):
                traces.append(trace)
                onward = self.tracing.record(trace, "process", send.topic)
                kept = tuple(h for h in send.headers if h[0] != "traceparent")
                sends[at] = send._replace(headers=(*kept, ("traceparent", onward.encode())))
        self.tracing.step(f"step {self.name}", traces, began, records=len(sends))

    async def _publish(self, name: str, version: int, sends: list[Send]) -> None:
        if sends:
            ends = await self._patient(lambda: self._log.send(stamped(name, version, sends)))
            for partition, end in ends.items():
                self._ends.setdefault(partition.topic, {})[partition.number] = end

    async def _close(self, name: str, before: int) -> None:
        ends = {topic: self._ends[topic] for topic in self._closes}
        said = Clock(publisher=name, before=before, ends=ends)
        await self._patient(lambda: self._log.send([Send(self._clock, name.encode(), msgspec.json.encode(said))]))

    async def _open(self, member: Member) -> None:
        """Restore the shards that this member holds now, and let them publish what they still owe."""
        self._generation = member.generation
        self.shards, self._versions, self._published = {}, {}, {}
        if self._closes:
            self._ends = {}
            for partition, end in (await self._patient(lambda: self._log.ends(self._closes))).items():
                self._ends.setdefault(partition.topic, {})[partition.number] = end
        for partition, begin in (await self._patient(lambda: self._log.begins(self._follows))).items():
            member.seek(partition, begin)
        for number in sorted(member.assigned):
            name = f"{self.name}.{number}"
            saved = await self._patient(lambda name=name: self._store.open(name))  # type: ignore[misc]
            shard = self._make(number)
            positions = shard.open(saved)
            if saved.outbox:
                await self._publish(name, saved.version, unpacked(saved.outbox))
                self._published[number] = saved.position
            for partition, offset in positions.items():
                member.seek(partition, offset)
            if saved.version:  # a kill between write and commit would leave lag tools an old position for ever
                await self._patient(lambda positions=positions: member.commit(positions))  # type: ignore[misc]
            self.shards[number], self._versions[number] = shard, saved.version

    async def _patient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(attempt, self._logger, self._meters.waits.inc)

    @property
    def ready(self) -> bool:
        """Whether it has joined its group (it may hold no partition when others hold them all)."""
        return self._member is not None and self._generation == self._member.generation

    async def close(self) -> None:
        if self._member is not None:
            await self._member.close()
            self._member = None
