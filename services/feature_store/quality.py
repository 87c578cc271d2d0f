"""Data quality: each partition surveys its events day by day of stream time; one judge adds the partitions up.

reads    your events               one shard a partition (lane "quality")
         <p>.hops.quality          one shard in all (lane "assessor")
follows  <p>.clock                 which times publishers have closed
writes   <p>.hops.quality          a partition's survey of a day that is over
         <p>.quality               the day, over all partitions
         <p>.alarms                an expectation with otherwise="alarm" that too many records of a day did not meet
state    the day under way of each event, what expectations remember, and positions

It reads the events again instead of taking them from the intake, so that nothing in here can hold up or harm a row; and it reads
in the gaps: `Spare` bounds its share of the process, and days come out later while rows are being caught up with.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import numpy as np

from penstock.codec import EventDecoder
from penstock.duration import DAY
from penstock.event import Event
from penstock.log import Batch, Log, Partition, Send
from penstock.profiling.survey import Memories, Survey
from penstock.runtime.lane import WAIT, Effects, Lane, Shard
from penstock.runtime.merge import NEVER, Frontiers
from penstock.runtime.outbox import Said
from penstock.store import Change, Saved, Store
from penstock.topics import Topics

from .assessor import Assessor
from .part import Part, part_of

__all__ = ["QualityShard", "Spare", "lanes", "rest"]

SHARE, ALONE = 0.04, 0.5
"""Of a core, at most: while the rest of the process keeps one half busy, and while it does not. A survey costs about 3
microseconds an event of eight columns (bench_profile), so a backlog is surveyed at some 13,000 and 160,000 events a second."""
EVERY_SECONDS = 2.0
"""State is some hundred kilobytes and written whole, so records are gathered for this long."""
GATHERED = 32_768
"""Records that are gathered at most."""


class Day:
    """The day under way of one event on one partition. `seen` is its newest effective time."""

    def __init__(self, event: Event) -> None:
        self.event, self.decoder = event, EventDecoder(event, expectations=False)
        self.start = self.seen = NEVER
        self.survey = Survey(event)
        self.memories: Memories = {}
        self.next = self.told = 0
        """The offset to read next; before which time everything has been told."""

    def take(self, batch: Batch, now: float) -> list[tuple[int, Survey]]:
        """Add records; the days that are over with them."""
        decoded, own, refused = self.decoder.decode_all(batch.values, now)
        if self.seen == NEVER:  # what cannot be read before the first that can counts with it
            readable = np.flatnonzero(own)
            self.seen = int(own[readable[0]]) if len(readable) else NEVER
        effective = np.maximum.accumulate(np.maximum(own, self.seen))
        unread = {at: refusal.reason for at, refusal in refused.items()}
        self.next = batch.next
        over: list[tuple[int, Survey]] = []
        if self.seen == NEVER:
            self.survey.take(decoded, own, effective, unread, self.memories)
            return over
        self.seen = int(effective[-1])
        days = effective // DAY * DAY
        cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(decoded)]
        for first, last in itertools.pairwise(cuts):
            over += self.close(int(days[first]))
            self.start = int(days[first])
            part = {at - first: reason for at, reason in unread.items() if first <= at < last}
            rows = slice(first, last)
            place = partial(_place, batch.partition, batch.offsets[rows])
            self.survey.take(decoded[rows], own[rows], effective[rows], part, self.memories, place)
        return over

    def close(self, before: int) -> list[tuple[int, Survey]]:
        """End the day under way when it lies before this time."""
        if self.start == NEVER or before < self.start + DAY:
            return []
        found = [(self.start, self.survey)]
        self.start, self.survey = NEVER, Survey(self.event)
        return found


def _place(partition: Partition, offsets: Sequence[int], at: int) -> str:
    return f"{partition.topic}/{partition.number} at {offsets[at]}"


class QualityShard:
    """The survey of partition `number` of every event. Nothing is saved before `every` seconds are over, GATHERED records wait or
    a day is closed; what was not saved is read again."""

    def __init__(self, topics: Topics, number: int, every: float = EVERY_SECONDS) -> None:
        self._topics, self._number, self._every = topics, number, every
        self._days = {event.topic: Day(event) for event in topics.project.events}
        self._frontiers = Frontiers(self._days, number)
        self._waiting: list[Batch] = []
        self._read: dict[str, int] = {}
        """The offset to read next of each event, after what waits."""
        self._since: float | None = None
        self._said = Said(part_of)
        self._now = 0.0
        self.busy = 0.0
        """Seconds of work done, for `Spare`."""

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.position:
            for topic, (at, start, seen, told) in msgspec.msgpack.decode(saved.position).items():
                if topic in self._days:
                    day = self._days[topic]
                    day.next, day.start, day.seen, day.told = at, start, seen, told
            for name, value in saved.table.items():
                topic, _, what = name.decode().partition("/")
                if topic not in self._days:
                    continue
                if what == "survey":
                    self._days[topic].survey = Survey.unpack(self._days[topic].event, value)
                else:
                    self._days[topic].memories = {n: dict(map(tuple, m)) for n, m in msgspec.msgpack.decode(value).items()}
        self._read = {topic: day.next for topic, day in self._days.items()}
        return {Partition(topic, self._number): offset for topic, offset in self._read.items()}

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._now = now
        for batch in batches:
            if batch.partition.topic in self._days:
                self._waiting.append(batch)
                self._read[batch.partition.topic] = batch.next
                self._since = now if self._since is None else self._since
            else:
                self._frontiers.follow(batch)
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        due = self._since is not None and self._now - self._since >= self._every
        if not due and sum(map(len, self._waiting)) < GATHERED and not self._closing():
            return None
        began = time.perf_counter()
        over: dict[str, list[tuple[int, Survey]]] = {topic: [] for topic in self._days}
        changed = {batch.partition.topic for batch in self._waiting}
        for batch in _together(self._waiting):
            over[batch.partition.topic] += self._days[batch.partition.topic].take(batch, self._now)
        self._waiting, self._since = [], None
        sends: list[Send] = []
        for topic, day in self._days.items():
            closed = self._closed(topic)
            over[topic] += day.close(closed)
            changed |= {topic} if over[topic] else set()
            sends += self._parts(day, over[topic], max(closed, day.start, day.told))
        table: dict[bytes, bytes | None] = {}
        for topic in sorted(changed):
            day = self._days[topic]
            table[f"{topic}/survey".encode()] = day.survey.pack()
            if day.memories:
                memories = {name: list(memory.items()) for name, memory in day.memories.items()}
                table[f"{topic}/memories".encode()] = msgspec.msgpack.encode(memories)
        position = {topic: (day.next, day.start, day.seen, day.told) for topic, day in self._days.items()}
        self.busy += time.perf_counter() - began
        offsets = {Partition(topic, self._number): day.next for topic, day in self._days.items()}
        return Effects(Change(msgspec.msgpack.encode(position), table=table), self._said.unsaid(sends), positions=offsets)

    def _closed(self, topic: str) -> int:
        """The newest day that a publisher has closed, as far as we have read."""
        return self._frontiers.at(topic, self._read[topic]) // DAY * DAY

    def _closing(self) -> bool:
        return any(self._closed(topic) > day.told for topic, day in self._days.items())

    def _parts(self, day: Day, over: Sequence[tuple[int, Survey]], until: int) -> list[Send]:
        """What to tell of days that are over; at least that everything before `until` is told, when that is new."""
        topic, parts = day.event.topic, [Part(day.event.topic, self._number, s, s + DAY, survey.pack()) for s, survey in over]
        if until > max([day.told, *(part.until for part in parts)]):
            parts.append(Part(topic, self._number, until - DAY, until))
        day.told = until
        return [Send(self._topics.surveys, topic.encode(), msgspec.msgpack.encode(part)) for part in parts]


def _together(batches: Sequence[Batch]) -> list[Batch]:
    """One batch per topic: work by columns has its price per batch."""
    found: dict[Partition, Batch] = {}
    for batch in batches:
        known = found.get(batch.partition)
        if known is None:
            found[batch.partition] = Batch(batch.partition, list(batch.offsets), (), list(batch.values))
        else:
            known.offsets = [*known.offsets, *batch.offsets]
            known.values = [*known.values, *batch.values]
    return list(found.values())


class Spare(Lane):
    """A lane that works in the gaps of the others in its process."""

    _at, _used, _worked = 0.0, 0.0, 0.0
    _stop: asyncio.Event | None = None

    async def run(self, stop: asyncio.Event | None = None) -> None:
        self._stop = stop
        await super().run(stop)

    async def turn(self, wait: float = WAIT) -> bool:
        moved = await super().turn(wait)
        own = sum(getattr(held.shard, "busy", 0.0) for held in self._held.values()) - self._worked
        if own > 0 and wait:  # without it somebody else drives, and wants no rest
            others = (time.process_time() - self._used - own) / max(time.monotonic() - self._at, own)
            with suppress(TimeoutError):  # a rest ends when the lane is to stop
                async with asyncio.timeout(rest(own, others)):
                    await (self._stop or asyncio.Event()).wait()
        self._at, self._used, self._worked = time.monotonic(), time.process_time(), self._worked + own
        return moved


def rest(own: float, others: float) -> float:
    """Seconds to rest after `own` seconds of work, while the others use this share of a core.

    >>> round(rest(1.0, others=0.9), 1), rest(1.0, others=0.1)
    (24.0, 1.0)
    """
    return own * (1 / (SHARE if others > ALONE else ALONE) - 1)


def lanes(topics: Topics, log: Log, store: Store, every: float = EVERY_SECONDS, idle_after: float | None = 60.0) -> list[Lane]:
    """The two lanes. `idle_after`: seconds after which the assessor no longer waits for a partition that nothing closes."""

    def shard(number: int) -> Shard:
        return QualityShard(topics, number, every)

    events = [event.topic for event in topics.project.events]
    group = f"{topics.prefix}.quality"
    return [
        Spare("quality", log, store, shard, events, follows=[topics.clock], writes=[topics.surveys], group=group),
        Lane(
            "assessor",
            log,
            store,
            lambda _: Assessor(topics, idle_after),
            [topics.surveys],
            writes=[topics.quality, topics.alarms],
            group=f"{topics.prefix}.assessor",
        ),
    ]
