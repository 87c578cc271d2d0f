"""The assessor: adds up what the partitions report of a day, publishes it, and raises alarms.

A day of an event is over when every partition has told everything up to its end. A partition that nothing closes (no events, no
publisher that closes times) is waited for `idle_after` seconds of wall clock once others are past the day; what it reports of the
day later is published by itself, as a further part of that day. Alarms go by the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec
import structlog

from penstock.alarm import Watch, alarm
from penstock.duration import DAY
from penstock.event import Event
from penstock.log import Batch, Partition, Send
from penstock.profiling.survey import Survey
from penstock.records import Alarm, DataQuality
from penstock.runtime.lane import Effects
from penstock.runtime.outbox import Redelivered, Said
from penstock.store import Change, Saved
from penstock.topics import Topics

from .part import Part

__all__ = ["Assessor"]

TOLD = 400
"""Days of which it is known how many parts were published."""


class _Case(msgspec.Struct):
    """One event. `days` are the packed surveys of days that are not over, by start and partition; `parts` how many were
    published."""

    reported: dict[int, int] = {}
    days: dict[int, dict[int, bytes]] = {}
    parts: dict[int, int] = {}
    watches: dict[str, Watch] = {}


class _Position(msgspec.Struct):
    next: int
    seen: dict[str, int]
    cases: dict[str, _Case]


class Assessor:
    """The only shard: partition 0 of the surveys."""

    def __init__(self, topics: Topics, idle_after: float | None) -> None:
        self._topics, self._idle_after = topics, idle_after
        self._events = {event.topic: event for event in topics.project.events}
        self._cases = {topic: _Case() for topic in self._events}
        self._at = Partition(topics.surveys, 0)
        self._position = _Position(0, {}, self._cases)
        self._repeats, self._said = Redelivered(), Said()
        self._taken: list[Part] = []
        self._fresh = False
        self._now = 0.0
        self._since: dict[str, float] = {}
        """Since when (wall clock) days of an event wait for a partition."""
        self._logger = structlog.get_logger(service="feature_store")
        self._encode = msgspec.json.Encoder().encode

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.position:
            self._position = msgspec.msgpack.decode(saved.position, type=_Position)
            self._repeats = Redelivered(self._position.seen)
            self._cases = {topic: self._position.cases.get(topic, _Case()) for topic in self._events}
        return {self._at: self._position.next}

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._now = now
        for batch in batches:
            headers: Any = batch.headers or [()] * len(batch)
            for offset, value, head in zip(batch.offsets, batch.values, headers, strict=True):
                if offset < self._position.next:
                    continue
                self._position.next, self._fresh = offset + 1, True
                if self._repeats.new(head):
                    try:
                        self._taken.append(msgspec.msgpack.decode(value or b"", type=Part))
                    except msgspec.MsgspecError as error:  # this topic is ours alone
                        self._logger.error("not a survey", topic=self._at.topic, offset=offset, cause=str(error))
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        sends: list[Send] = []
        for part in self._taken:
            if part.event in self._events:
                self._hear(self._events[part.event], self._cases[part.event], part)
                sends += self._assessed(part.event)
        self._taken.clear()
        for topic in self._events:
            if self._passed(topic):
                sends += self._assessed(topic, wait=False)
        if not self._fresh and not sends:
            return None
        self._fresh = False
        said = _Position(self._position.next, self._repeats.seen, self._cases)
        return Effects(Change(msgspec.msgpack.encode(said)), self._said.unsaid(sends), positions={self._at: said.next})

    def _hear(self, event: Event, case: _Case, part: Part) -> None:
        if part.survey:
            known = case.days.setdefault(part.start, {})
            before, new = known.get(part.shard), Survey.unpack(event, part.survey)
            known[part.shard] = (Survey.unpack(event, before).merge(new) if before else new).pack()
        case.reported[part.shard] = max(part.until, case.reported.get(part.shard, part.until))

    def _passed(self, topic: str) -> bool:
        """Whether days have waited long enough for the partitions that are behind."""
        case = self._cases[topic]
        newest = max(case.reported.values(), default=0)
        if self._idle_after is None or not any(start + DAY <= newest for start in case.days):
            self._since.pop(topic, None)
            return False
        return self._now - self._since.setdefault(topic, self._now) >= self._idle_after

    def _assessed(self, topic: str, wait: bool = True) -> list[Send]:
        """What there is to say of the days that are over; with `wait`, over in every partition."""
        event, case, sends = self._events[topic], self._cases[topic], list[Send]()
        told = [case.reported.get(number, 0) for number in range(self._topics.partitions)]
        until = min(told) if wait else max(told)
        for start in sorted(start for start in case.days if start + DAY <= until):
            shares = sorted(case.days.pop(start).items())  # in order of partitions, whichever came first
            day = reduce(Survey.merge, [Survey.unpack(event, survey) for _, survey in shares])
            record = day.described(start, start + DAY)
            part = case.parts[start] = case.parts.get(start, -1) + 1
            if part:
                record = msgspec.structs.replace(record, id=f"{record.id}/{part}", part=part)
            key = f"{topic}/{record.start.date().isoformat()}".encode()
            sends.append(Send(self._topics.quality, key, self._encode(record)))
            if not part:
                sends += [
                    Send(self._topics.alarms, topic.encode(), self._encode(a)) for a in self._alarms(event, case, record, start)
                ]
        for old in sorted(case.parts)[:-TOLD]:
            del case.parts[old]
        return sends

    def _alarms(self, event: Event, case: _Case, record: DataQuality, start: int) -> list[Alarm]:
        found = []
        for expectation in event.expectations:
            met = record.expectations[expectation.name]
            if expectation.otherwise != "alarm" or not met.asked:
                continue
            share, signal = met.broken / met.asked, f"quality/{event.topic}/{expectation.name}"
            watch = case.watches.setdefault(expectation.name, Watch())
            word = watch.hear({0: share > expectation.above}, start + DAY)
            if word is not None:
                evidence = {
                    "expectation": repr(expectation),
                    "asked": met.asked,
                    "broken": met.broken,
                    "share": share,
                    "above": expectation.above,
                    "example": met.example,
                }
                found.append(alarm("", signal, word, start + DAY, watch.since, evidence))
        return found
