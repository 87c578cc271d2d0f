"""The data lane: how a service that is shared out by partitions runs, on any log and any store.

A service brings a *shard*: the pure state machine of one partition. The lane does what all have in common: it shares
partitions, restores a shard, feeds it batches, writes its change and its position in one atomic step, and only then
publishes what the step produced:

    read -> shard.take -> load states -> shard.step -> store.write (state, position, outbox) -> log.send -> clock

The steps of a shard overlap (`pipeline`): up to `shard.step` one is worked, while the one before it is written and published; and
shards do not wait for each other. A write begins when all that the one before it sends is acknowledged, for it replaces that
outbox. So the store is never more than one write ahead of the log, and a write that fails stops the steps worked upon it.

A crash before the write repeats the step; after a crash behind it the rest of the outbox is published, and where the store has
lost writes they are done again, but not published again: what a shard has published is read from the log (`outbox`). Every record
sent carries its shard and a number that grows, so readers drop what they have had. Together: nothing lost, nothing counted twice.

Readers of the store are told by each shard, at the key `store.STATUS`, whether it is being rebuilt after such a loss.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from ..log import Batch, Log, Member, Partition, Send
from ..records import Clock
from ..store import LIVE, REBUILDING, STATUS, Change, Fenced, Saved, Store, StoreError
from .control import Tail
from .deadletter import cause_of
from .earlier import Earlier
from .merge import NEVER
from .outbox import FROM, SEQUENCE, Ends, Loss, Outbox, Redelivered, letter_of, numbered, stamped, write_of
from .patience import patiently
from .pipeline import Pipeline, ended
from .telemetry import Meters, Tracing, trace_of

__all__ = [
    "FROM", "SEQUENCE", "Effects", "Lane", "Redelivered", "Shard", "now", "numbered", "stamped",
]  # fmt: skip

T = TypeVar("T")

MAX_RECORDS, WAIT = 4096, 0.02
"""How many records a turn takes at most, and how many seconds it waits for the first."""

QUIET = 5.0
"""Seconds without anything to do after which a lane looks whether its shards are still in the store as it left them."""


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
    closing: tuple[str, Sequence[str]] | None = None
    """Who closes `closed`, for which topics; None: the shard, for those that the lane closes."""


class Shard(Protocol):
    """One partition's share of a service. Only `take` and `step` run per batch; neither does I/O."""

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        """Restore what was saved (version 0: nothing was) and say where to read on."""
        ...

    def recall(self, batch: Batch) -> None:
        """Hear records of one topic that this shard has published in writes which the store has lost. They are said: what
        `step` makes of the same cause anew must not be among its sends."""
        ...

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        """Accept batches of the own partitions and of followed topics; return the keys whose state the step needs."""
        ...

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        """Do the work; None when there was nothing to do."""
        ...


@dataclass(slots=True)
class _Held:
    """A shard that this lane holds, and what the store has of it."""

    shard: Shard
    version: int
    position: bytes
    outbox: Outbox
    letters: set[Hashable] = field(default_factory=set)
    """Dead letters that are out, though the state may not know it."""
    steps: Pipeline = field(default_factory=Pipeline)
    unwritten: deque[Change] = field(default_factory=deque)
    """What steps have changed, until it is written."""

    @property
    def loss(self) -> Loss | None:
        return self.outbox.loss


def _some(batch: Batch, rows: Sequence[int]) -> Batch:
    found = [batch.record(row) for row in rows]
    return Batch(batch.partition, [r[0] for r in found], [r[1] for r in found], [r[2] for r in found], [r[3] for r in found])


class Lane:
    """Runs the shards of one service that this process holds.

    `writes` are the topics that it publishes to, `closes` those of them whose time it closes on the clock topic as it goes.
    `name` names its shards in the store and in what it sends; `group` (default: the same) is the consumer group, which other
    projects on the broker must not share. `history` has what the log no longer keeps of the shared topics. `places` names a shard
    in the store and in what it sends (default: by the name of the lane). `prepare` comes before shards are opened; it gives the
    time up to which one without state is being built (NEVER: it just begins). `confirm` comes when they are, and raises Fenced
    where what was prepared holds no more: whoever changes that after it fences them.
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
        writes: Sequence[str] = (),
        closes: Sequence[str] = (),
        tracing: Tracing | None = None,
        group: str = "",
        history: Earlier | None = None,
        places: Callable[[int], str] | None = None,
        prepare: Callable[[Sequence[int]], Awaitable[int]] | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._history, self._prepare, self._confirm = history, prepare, confirm
        self._place: Callable[[int], str] = places or (lambda number: f"{name}.{number}")
        self._past: dict[Partition, int] = {}
        """Where to read on in the history of partitions whose log begins later than their shard has come."""
        self.name, self._log, self._store, self._make = name, log, store, shard
        self._group = group or name
        self._shared, self._follows, self._clock, self._closes = shared, tuple(follows), clock, tuple(closes)
        self._writes = tuple(dict.fromkeys([*writes, *closes]))
        self.max_records = MAX_RECORDS
        self.tracing = tracing or Tracing(name)
        self._meters = Meters(name)
        self._member: Member | None = None
        self._generation = 0
        self._held: dict[int, _Held] = {}
        self._ends: Ends = {}
        """Where the topics end that it writes to, as far as this lane knows."""
        self._logger = structlog.get_logger(service=name)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Turn until `stop` is set, then settle: whoever opens these shards next has nothing left to publish.

        Cancelled, it ends wherever it is, also when a client below drops the cancellation (`asyncio.wait_for` of Python 3.11,
        which redis-py uses, does when the answer comes in the same moment).
        """
        me, busy = asyncio.current_task(), time.monotonic()
        try:
            while me is None or not me.cancelling():
                if await self.turn():
                    busy = time.monotonic()
                if stop is not None and stop.is_set():
                    return await self.settle()
                if time.monotonic() > busy + QUIET:  # a store that came back empty must not wait for a record to be noticed
                    busy = time.monotonic()
                    await self.settle()
            raise asyncio.CancelledError
        finally:
            await self._drop()

    async def settle(self) -> None:
        """Let what is under way come to its end, and empty the outbox of each shard in the store. When that fails, whoever opens
        the shard looks into the log. What is fenced is opened anew by the next turn."""
        for number, held in self._held.items():
            try:
                await held.steps.end()
                await self._write(number, held, Change(held.position), [], held.loss)
            except StoreError as error:
                self._logger.info("not settled", shard=number, cause=str(error))
            except Fenced:
                self._fenced(number)

    async def turn(self, wait: float = WAIT) -> bool:
        """One round: read, and begin the steps. Whether anything happened; when not, nothing is under way either. Raised out of
        it, or cancelled, it leaves nothing under way, as a kill would; the next one opens all shards anew."""
        try:
            return await self._turn(wait)
        except BaseException:
            await self._drop()
            raise

    async def _turn(self, wait: float) -> bool:
        if self._member is None:
            self._member = await self._patient(lambda: self._log.join(self._group, self._shared, self._follows))
        if self._member.generation != self._generation:
            try:
                await self._open(self._member)
            except Fenced:
                self._generation = -1
                return True
        batches = await self._patient(lambda: self._member.read(self.max_records, wait))  # type: ignore[union-attr]
        if self._member.generation != self._generation:
            return True
        if self._past:
            batches = await self._remember(batches)
        followed = [b for b in batches if b.partition.topic in self._follows]
        moved = bool(batches)
        for number, held in self._held.items():
            own = [b for b in batches if b.partition.number == number and b.partition.topic not in self._follows]
            try:
                if followed or own or not held.steps:
                    moved |= await held.steps.room()
                    self._begin(number, held, followed + own)
            except Fenced:
                self._fenced(number)
                return True
        for number, held in self._held.items() if not batches else ():
            try:
                moved |= await held.steps.end()
            except Fenced:
                self._fenced(number)
                return True
        return moved

    def _begin(self, number: int, held: _Held, batches: list[Batch]) -> None:
        began = now()
        held.steps.begin(
            lambda before: self._work(number, held, batches, before),
            lambda effects: self._keep(number, held, batches, began, effects),
        )

    async def _drop(self) -> None:
        """Leave everything where it is."""
        left = [task for held in self._held.values() for task in held.steps.drop()]
        self._held, self._generation = {}, -1
        await ended(left)

    def _fenced(self, number: int) -> None:
        meaning = "another process has taken this partition over, or the store has lost writes; opening it anew"
        self._logger.info("fenced", shard=number, meaning=meaning)  # ordinary in a swap; a loss is told when it is opened
        self._meters.fenced.inc()
        self._generation = -1

    async def _work(self, number: int, held: _Held, batches: list[Batch], before: Awaitable[object] | None) -> Effects | None:
        keys = held.shard.take(batches, now())
        if before is not None and any(change.touches(keys) for change in held.unwritten):
            await before  # the store does not have yet what is asked for: it left memory in a step that is being written
        loaded = await self._patient(lambda: self._store.read(self._place(number), keys)) if keys else []
        effects = held.shard.step(loaded)
        if effects is not None:
            held.unwritten.append(effects.change)
        return effects

    async def _keep(self, number: int, held: _Held, batches: list[Batch], began: float, effects: Effects | None) -> bool:
        """Write and publish what a step did; whether it did anything."""
        if effects is None:
            return False
        self._trace(effects.sends, began)
        change, loss = effects.change, held.loss
        if loss is not None and effects.closed is not None and effects.closed >= loss.closed > NEVER:
            loss = msgspec.structs.replace(loss, closed=NEVER)
            change.heads = {**change.heads, STATUS: LIVE}
            self._logger.info("rebuilt", shard=number)
        if loss is not None and loss.closed == NEVER and loss.over(effects.positions):
            loss = None
        sends = [s for s in effects.sends if letter_of(s.topic, s.headers) not in held.letters] if held.letters else effects.sends
        await self._patient(lambda: self._write(number, held, change, sends, loss))
        held.unwritten.popleft()
        await self._publish(number, held.outbox.write, sends)
        done = now()
        self._meters.records_in.inc(sum(len(batch) for batch in batches))
        self._meters.records_out.inc(len(sends))
        self._meters.seconds.observe(done - began)
        self._meters.newest.set(done)
        if effects.closed is not None:
            await self._close(effects.closed, *(effects.closing or (self._place(number), self._closes)))
        if effects.positions and self._member is not None:
            await self._member.commit(effects.positions)
        return True

    async def _write(self, number: int, held: _Held, change: Change, sends: Sequence[Send], loss: Loss | None = None) -> None:
        """Store a change with what it sends."""
        ends = held.outbox.ends if loss is not None else {topic: dict(self._ends[topic]) for topic in self._writes}
        outbox = Outbox.of(held.outbox.write + 1, ends, sends, loss)
        change.outbox = outbox.pack()
        held.version = await self._store.write(self._place(number), held.version, change)
        held.position, held.outbox = change.position, outbox

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

    async def _publish(self, number: int, write: int, sends: Sequence[Send]) -> None:
        await self._send(stamped(self._place(number), write, sends))

    async def _send(self, sends: Sequence[Send]) -> None:
        if sends:
            for partition, end in (await self._patient(lambda: self._log.send(sends))).items():
                ends = self._ends.setdefault(partition.topic, {})
                ends[partition.number] = max(end, ends.get(partition.number, 0))  # shards send at once

    async def _close(self, before: int, name: str, topics: Sequence[str]) -> None:
        said = Clock(publisher=name, before=before, ends={topic: self._ends[topic] for topic in topics})
        await self._patient(lambda: self._log.send([Send(self._clock, name.encode(), msgspec.json.encode(said))]))

    async def _remember(self, batches: Sequence[Batch]) -> list[Batch]:
        """Batches of the log, and of the history in place of what lies after it; where it ends, the log is read on."""
        found = [batch for batch in batches if batch.partition not in self._past]
        for partition, at in list(self._past.items()):
            history: Any = self._history
            read = partial(asyncio.to_thread, history.read, partition, at, self.max_records)
            batch = await self._patient(read)
            if batch is not None:
                found.append(batch)
                self._past[partition] = batch.next
                continue
            at = max(at, await self._patient(partial(asyncio.to_thread, history.end, partition)))
            self._member.seek(partition, at)  # type: ignore[union-attr]
            del self._past[partition]
            self._logger.info("history read", partition=str(partition), meaning=f"the log is read on at {at}")
        return found

    # --- opening ---------------------------------------------------------------------------------------------------

    async def _open(self, member: Member) -> None:
        """Restore the shards that this member holds now, and let them publish what they still owe."""
        for each in self._held.values():
            with suppress(Fenced):
                await each.steps.end()
        await self._drop()
        self._generation = member.generation
        for partition, begin in (await self._patient(lambda: self._log.begins(self._follows))).items():
            member.seek(partition, begin)
        held, positions = {}, {}
        until = await self._prepare(sorted(member.assigned)) if self._prepare is not None else NEVER
        for number in sorted(member.assigned):
            saved = await self._patient(lambda number=number: self._store.open(self._place(number)))  # type: ignore[misc]
            shard = self._make(number)
            positions[number] = shard.open(saved)
            held[number] = _Held(shard, saved.version, saved.position, Outbox.unpack(saved.outbox))
        if self._confirm is not None:
            await self._confirm()
        newest, out = await self._recall(held)
        for number, each in held.items():
            await self._resume(number, each, newest[number], out[number], positions[number], until)
            for partition, offset in positions[number].items():
                member.seek(partition, offset)
            if each.position:  # a kill between write and commit would leave lag tools an old position for ever
                await self._patient(lambda number=number: member.commit(positions[number]))  # type: ignore[misc]
        self._held = held
        self._past = await self._gone(positions) if self._history is not None else {}
        if self._past:
            ends = await self._patient(lambda: self._log.ends(self._shared))
            for partition in self._past:  # until its history is read nothing of it is wanted
                member.seek(partition, ends[partition])

    async def _gone(self, positions: Mapping[int, Mapping[Partition, int]]) -> dict[Partition, int]:
        """The partitions whose log begins after the position of their shard, and that position."""
        begins = await self._patient(lambda: self._log.begins(self._shared))
        return {p: at for found in positions.values() for p, at in found.items() if at < begins.get(p, 0)}

    async def _recall(self, held: Mapping[int, _Held]) -> tuple[dict[int, int], dict[int, set[int]]]:
        """Read what the log has of these shards since the writes that the store knows: the number of each one's newest write, and
        the numbers of its last outbox that are out. Shards hear what the store has lost."""
        begins = await self._patient(lambda: self._log.begins(self._writes))
        known = {p: max(begin, min((h.outbox.end(p) for h in held.values()), default=0)) for p, begin in begins.items()}
        newest, out = {number: h.outbox.write for number, h in held.items()}, {number: set[int]() for number in held}
        tail = Tail(self._log, self._writes, known)

        async def hear() -> None:
            async for batch in tail.news():
                for number, rows in self._own(batch, held).items():
                    each, lost = held[number], []
                    for row, found in rows:
                        if found is None:
                            each.letters.add(letter_of(batch.partition.topic, batch.headers[row]))
                            continue
                        write = write_of(found)
                        newest[number] = max(newest[number], write)
                        if write == each.outbox.write:
                            out[number].add(found)
                        if write > each.outbox.write or (each.loss is not None and each.loss.holds(write)):
                            lost.append(row)
                    if lost:
                        each.shard.recall(_some(batch, lost))

        ends = await self._patient(lambda: self._log.ends(self._writes))
        if any(known[partition] < end for partition, end in ends.items()):
            try:
                await self._patient(hear)
            finally:
                await tail.close()
        self._ends = {topic: {} for topic in self._writes}
        for partition, end in ends.items():
            self._ends[partition.topic][partition.number] = end
        return newest, out

    def _own(self, batch: Batch, held: Mapping[int, _Held]) -> dict[int, list[tuple[int, int | None]]]:
        """By shard, which records of a batch are its own, and their numbers: None for dead letters."""
        names, found = {self._place(number): number for number in held}, dict[int, list[tuple[int, int | None]]]()
        letters = batch.partition.topic[-4:] == ".dlq"
        for row, headers in enumerate(batch.headers):
            if letters:
                if batch.partition.number in held and cause_of(headers).get("dlq.service") == self.name:
                    found.setdefault(batch.partition.number, []).append((row, None))
                continue
            said = numbered(headers)
            if said is not None and said[0] in names:
                found.setdefault(names[said[0]], []).append((row, said[1]))
        return found

    async def _resume(
        self, number: int, held: _Held, newest: int, out: set[int], positions: Mapping[Partition, int], until: int
    ) -> None:
        """Publish what is left of the outbox; and where the store has lost writes, or never had any of a shard that is to come up
        to a time, say so until they are done."""
        left = stamped(self._place(number), held.outbox.write, held.outbox.sends)
        left = [send for send in left if (said := numbered(send.headers)) is None or said[1] not in out]
        left = [send for send in left if letter_of(send.topic, send.headers) not in held.letters]
        await self._send(left)
        loss = held.loss
        if newest > held.outbox.write or (until > NEVER and not held.position):
            inputs = {
                p.topic: end
                for p, end in (await self._patient(lambda: self._log.ends(self._shared))).items()
                if p.number == number
            }
            closed = max(until, await self._closed(number))
            loss = Loss(loss.after if loss else held.outbox.write, newest, inputs, closed)
        if newest > held.outbox.write:
            lost = newest - held.outbox.write
            self._logger.warning("behind", shard=number, meaning=f"the store has lost its last {lost} writes; doing them again")
        if loss is None and held.version and (held.position or self._prepare is None):  # what prepares may have marked it
            return
        status = REBUILDING if loss is not None and loss.closed > NEVER else LIVE
        held.outbox = msgspec.structs.replace(held.outbox, write=max(newest, held.outbox.write))
        await self._patient(lambda: self._write(number, held, Change(held.position, heads={STATUS: status}), [], loss))

    async def _closed(self, number: int) -> int:
        """The newest time that this shard has closed."""
        names, closed = {self._place(number).encode(), f"{self.name}.{number}".encode()}, NEVER
        if self._closes:
            tail = Tail(self._log, [self._clock])

            async def hear() -> None:
                nonlocal closed
                async for batch in tail.news():
                    said = [value for key, value in zip(batch.keys, batch.values, strict=True) if key in names and value]
                    closed = max([closed, *(msgspec.json.decode(value, type=Clock).before for value in said)])

            try:
                await self._patient(hear)
            finally:
                await tail.close()
        return closed

    async def _patient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(attempt, self._logger, self._meters.waits.inc)

    @property
    def ready(self) -> bool:
        """Whether it has joined its group (it may hold no partition when others hold them all)."""
        return self._member is not None and self._generation == self._member.generation

    async def close(self) -> None:
        await self._drop()
        if self._member is not None:
            await self._member.close()
            self._member = None
