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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import msgspec
import structlog

from ..log import Batch, Log, LogError, Member, Partition, Send
from ..store import LIVE, STATUS, Change, Fenced, Store, StoreError
from .behind import LOOK
from .earlier import Earlier, Past
from .merge import NEVER
from .opening import Handover, Opening
from .outbox import FROM, SEQUENCE, Redelivered, letter_of, numbered, stamped
from .outlet import Outlet
from .patience import RETRY_SECONDS, patiently
from .pipeline import ended
from .shard import Effects, Held, Shard
from .telemetry import Meters, Tracing, trace_of

__all__ = [
    "FROM", "SEQUENCE", "Effects", "Lane", "Redelivered", "Shard", "now", "numbered", "stamped",
]  # fmt: skip

T = TypeVar("T")

MAX_RECORDS, WAIT = 4096, 0.02
"""How many records a turn takes at most, and how many seconds it waits for the first."""

OFTEN = 3
"""Times in a row that a lane's shards are taken while it opens them, after which it waits before it tries again, and warns: a
swap takes them once or twice, and two processes that both hold them for theirs do it for ever."""

QUIET = 5.0
"""Seconds without anything to do after which a lane looks whether its shards are still in the store as it left them."""


def now() -> float:
    """Wall clock in seconds since 1970; reaches shards as a parameter."""
    return time.time()


class Lane:
    """Runs the shards of one service that this process holds.

    `writes` are the topics that it publishes to, `closes` those of them whose time it closes on the clock topic as it goes.
    `name` names its shards in the store and in what it sends; `group` (default: the same) is the consumer group, which other
    projects on the broker must not share. `history` has what the log no longer keeps of the shared topics. `places` names a shard
    in the store and in what it sends (default: by the name of the lane). `handover` has a say when shards are opened. `apart`:
    steps may wait for other processes, and run in a thread, one after the other; the event loop goes on meanwhile.
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
        handover: Handover | None = None,
        apart: bool = False,
    ) -> None:
        self.name, self._log, self._store = name, log, store
        self._group = group or name
        self._shared, self._follows, self._closes = shared, tuple(follows), closes
        self._thread = ThreadPoolExecutor(1, name) if apart else None
        self._meters, self._logger = Meters(name), structlog.get_logger(service=name)
        self._outlet = Outlet(log, [*writes, *closes], clock, self._patient)
        self._opening = Opening(
            service=name,
            log=log,
            store=store,
            make=shard,
            place=places or (lambda number: f"{name}.{number}"),
            shared=shared,
            clock=clock if closes else "",
            outlet=self._outlet,
            handover=handover,
            patient=self._patient,
            logger=self._logger,
        )
        self._past = None if history is None else Past(history, log, self._patient, self._logger)
        self.max_records = MAX_RECORDS
        self.tracing = tracing or Tracing(name)
        self._member: Member | None = None
        self._generation = 0
        self._held: dict[int, Held] = {}
        self._done: dict[Partition, int] = {}
        self._times: dict[int, int] = {}
        """Shard -> the time before which it has published all."""
        self._taken = 0
        """How often in a row others have taken a shard while it was opened."""
        self._causes: dict[object, str] = {}

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
                await held.write(self._store, self._outlet.ends, Change(held.position), [], held.loss)
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
            except Fenced as error:
                await self._opened_elsewhere(error)
                return True
            self._taken = 0
        batches = await self._patient(lambda: self._member.read(self.max_records, wait))  # type: ignore[union-attr]
        if self._member.generation != self._generation:
            return True
        if self._past:
            batches = await self._past.instead(self._member, batches, self.max_records)
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

    def _begin(self, number: int, held: Held, batches: list[Batch]) -> None:
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

    async def _opened_elsewhere(self, cause: Fenced) -> None:
        """Somebody has taken shards while they were opened here: the next turn opens them anew."""
        self._meters.fenced.inc()
        self._generation, self._taken = -1, self._taken + 1
        if self._taken < OFTEN:
            self._logger.info("taken", cause=str(cause), meaning="another process opens the same; opening them anew")
            return
        meaning = f"taken {self._taken} times in a row while they were opened: do two processes run the same under one name?"
        self._logger.warning("taken", cause=str(cause), meaning=meaning)
        await asyncio.sleep(RETRY_SECONDS[min(self._taken - OFTEN, len(RETRY_SECONDS) - 1)])

    async def _work(self, number: int, held: Held, batches: list[Batch], before: Awaitable[object] | None) -> Effects | None:
        keys = held.shard.take(batches, now())
        if before is not None and any(change.touches(keys) for change in held.unwritten):
            await before  # the store does not have yet what is asked for: it left memory in a step that is being written
        loaded = await self._patient(lambda: self._store.read(held.name, keys)) if keys else []
        if self._thread is None:
            effects = held.shard.step(loaded)
        else:
            effects = await asyncio.get_running_loop().run_in_executor(self._thread, held.shard.step, loaded)
        if effects is not None:
            held.unwritten.append(effects.change)
        return effects

    async def _keep(self, number: int, held: Held, batches: list[Batch], began: float, effects: Effects | None) -> bool:
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
        await self._patient(lambda: held.write(self._store, self._outlet.ends, change, sends, loss))
        held.unwritten.popleft()
        touched = await self._outlet.send(stamped(held.name, held.outbox.write, sends))
        if any(topic[-4:] == ".dlq" for topic in touched):
            self._meters.dead_letters.inc(sum(send.topic[-4:] == ".dlq" for send in sends))
        done = now()
        self._meters.records_in.inc(sum(len(batch) for batch in batches))
        self._meters.records_out.inc(len(sends))
        self._meters.seconds.observe(done - began)
        self._meters.newest.set(done)
        self._done |= effects.positions
        if effects.closed is not None:
            self._times[number] = effects.closed
            self._meters.closed(min(self._times.values()))
            await self._outlet.close(effects.closed, *(effects.closing or (held.name, self._closes)))
        if effects.positions and (member := self._member) is not None:
            await self._patient(lambda: member.commit(effects.positions))
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

    async def _open(self, member: Member) -> None:
        """Open the shards that this member holds now, and read on where each has come."""
        for each in self._held.values():
            with suppress(Fenced):
                await each.steps.end()
        await self._drop()
        self._generation = member.generation
        for partition, begin in (await self._patient(lambda: self._log.begins(self._follows))).items():
            member.seek(partition, begin)
        held, positions = await self._opening.open(sorted(member.assigned))
        for number, each in held.items():
            for partition, offset in positions[number].items():
                member.seek(partition, offset)
            if each.position:  # a kill between write and commit would leave lag tools an old position for ever
                await self._patient(lambda number=number: member.commit(positions[number]))  # type: ignore[misc]
        self._held, self._times = held, {}
        self._done = {partition: at for each in positions.values() for partition, at in each.items()}
        if self._past is not None:
            await self._past.begin(member, self._shared, {p: at for found in positions.values() for p, at in found.items()})

    async def _patient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        waiting = object()

        async def tried() -> T:
            try:
                return await attempt()
            except (LogError, StoreError, OSError) as error:
                self._causes[waiting] = str(error)
                raise

        try:
            return await patiently(tried, self._logger, self._meters.waits.inc)
        finally:
            self._causes.pop(waiting, None)

    @property
    def waiting(self) -> str:
        """What it waits for: a log or a store that is away, in words; empty where nothing is."""
        return next(iter(self._causes.values()), "")

    @property
    def ready(self) -> bool:
        """Whether it has joined its group (it may hold no partition when others hold them all)."""
        return self._member is not None and self._generation == self._member.generation

    @property
    def holds(self) -> tuple[int, ...]:
        """The partitions whose shards it has open."""
        return tuple(self._held)

    async def watch(self, stop: asyncio.Event) -> None:
        """Say in the metrics how far it is behind, every few seconds, also while its own work is stuck."""
        ends: Mapping[Partition, int] = {}
        while not stop.is_set():
            with suppress(LogError):  # its age grows all the same
                ends = await self._log.ends(self._shared)
            self._meters.stands(now(), ends, self._done)
            await asyncio.wait([stopped := asyncio.ensure_future(stop.wait())], timeout=LOOK)
            stopped.cancel()

    async def close(self) -> None:
        await self._drop()
        if self._member is not None:
            await self._member.close()
            self._member = None
