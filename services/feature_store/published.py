"""Published: which events a shard has already sent on, though its state does not know it, because the store has lost writes.

Done again, the work may be cut into other blocks, so what counts is the event: its kind, partition and offset. What was
published stays; what is sent anew has only the other events. Where events are in order of time within each source, they would
have been the very same rows. Where a source had been passed was published too and holds again; but what comes late after the loss
may be put before rows that were published before it, which stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.event import to_micros
from penstock.log import Batch
from penstock.records import LateEvent, Passed
from penstock.runtime.generation import meant_for
from penstock.runtime.merge import NEVER
from penstock.topics import Topics

from .block import unpack

__all__ = ["ALWAYS", "Published"]

ALWAYS: Final = 1 << 62
"""Past every effective time, and every offset."""

Ints = npt.NDArray[np.int64]
Where = TypeVar("Where", Ints, Ints | slice)

_OFFSET_BITS, _PARTITION_BITS = 46, 9
"""An event as one number: 7 * 10**13 records in each of 512 partitions, of 256 kinds."""


class _Cursor(msgspec.Struct):
    source: tuple[int, int]


class _Row(msgspec.Struct):
    cursor: _Cursor
    time: datetime


_row = msgspec.json.Decoder(_Row).decode
_late = msgspec.json.Decoder(LateEvent).decode
_passed = msgspec.json.Decoder(Passed).decode


class Published:
    """By topic, events as sorted numbers: 8 bytes each, until all is done again."""

    def __init__(self, topics: Topics) -> None:
        topology = topics.project.topology
        self._ranks = {topics.rows(event): topology.rank[event] for event in topology.reads}
        self._shadow, self._sent = topics.shadow, dict[str, set[int]]()
        self._parts: defaultdict[str, list[Ints]] = defaultdict(list)
        self._late_topic, self._passed_topic = topics.late, topics.passed
        self.late: set[tuple[str, int, int, str]] = set()
        """Late events that were told: topic, partition, offset, view."""
        self.passed: dict[tuple[str, int], dict[int, int]] = {}
        """Where a source had been passed, as was told: by topic and partition, offset -> the effective time from there on."""
        self._sorted: dict[str, Ints] = {}
        self.newest = NEVER
        """Nothing that was heard or sent has a later effective time: that is an own time of its source, or where it had been
        passed."""
        self.before = NEVER
        """All rows, and late events, of earlier effective times are out, whether their topics still have them or not."""

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return any((self._parts, self._sent, self.late, self.passed, self.before > NEVER))

    def recall(self, batch: Batch) -> int:
        """Take note of our records of one topic; the greatest block number among them, or 0."""
        topic, newest = batch.partition.topic, 0
        if topic == self._shadow:
            for value, headers in zip(batch.values, batch.headers, strict=True):
                self.first(meant_for(headers) or "", value or b"")
            return 0
        if topic == self._late_topic:
            for e in map(_late, batch.values):  # type: ignore[arg-type]
                self.late.add((e.event, e.partition, e.offset, e.view))
                self.newest = max(self.newest, to_micros(e.as_of))
            return 0
        if topic == self._passed_topic:
            for said in map(_passed, batch.values):  # type: ignore[arg-type]
                self.passed.setdefault((said.event, said.partition), {})[said.offset] = said.before
                self.newest = max(self.newest, said.before)
            return 0
        for value in batch.values if topic not in self._ranks else ():
            block = unpack(value or b"")
            newest = max(newest, block.number)
            if block.ids:
                cursors = np.frombuffer(block.cursors, np.int64).reshape(len(block.ids), -1)
                self._add(topic, _events(np.frombuffer(block.ranks, np.int64), cursors))
                self.newest = max(self.newest, int(np.frombuffer(block.effective, np.int64).max()))
        if topic in self._ranks and len(batch):
            rows = [_row(value or b"") for value in batch.values]
            self.newest = max(self.newest, to_micros(max(row.time for row in rows)))
            self._add(topic, _events(np.full(len(batch), self._ranks[topic]), _places(rows)))
        return newest

    def first(self, topic: str, value: bytes, at: int | None = ALWAYS) -> bool:
        """Whether nothing was sent of this row, or late event, before; now it was. `at` is its effective time; None: its own;
        ALWAYS: nobody knows."""
        if topic == self._late_topic:
            said = _late(value)
            name = said.event, said.partition, said.offset, said.view
            new = name not in self.late and (at is None or at >= self.before)
            self.late.add(name)
            return new
        if topic == self._passed_topic:
            told = _passed(value)
            known = self.passed.setdefault((told.event, told.partition), {})
            new = told.offset not in known
            known.setdefault(told.offset, told.before)
            return new
        if topic not in self._ranks:
            return True
        row = _row(value)
        own = to_micros(row.time)
        if (own if at is None else at) < self.before:
            return False
        sent, event = self._sent.setdefault(topic, set()), _events(np.array([self._ranks[topic]]), _places([row]))
        new = int(event[0]) not in sent and bool(self._new(topic, event)[0])
        sent.add(int(event[0]))
        self.newest = max(self.newest, own)
        return new

    def unsaid(self, topic: str, ranks: Ints, cursors: Ints, where: Where) -> Where:
        """Those of the rows `where` whose events were not sent to a topic yet."""
        if self._sent.get(topic):
            self._add(topic, np.fromiter(self._sent.pop(topic), np.int64))
        if topic not in self._parts:
            return where
        new: Any = np.arange(len(ranks))[where][self._new(topic, _events(ranks[where], cursors[where]))]
        return cast(Where, new)

    def _add(self, topic: str, events: Ints) -> None:
        self._parts[topic].append(events)
        self._sorted.pop(topic, None)

    def _new(self, topic: str, events: Ints) -> npt.NDArray[np.bool_]:
        if topic not in self._parts:
            return np.ones(len(events), bool)
        if topic not in self._sorted:
            self._sorted[topic] = np.unique(np.concatenate(self._parts[topic]))
            self._parts[topic] = [self._sorted[topic]]
        said = self._sorted[topic]
        found: npt.NDArray[np.bool_] = said[np.minimum(np.searchsorted(said, events), len(said) - 1)] != events
        return found


def _places(rows: Sequence[_Row]) -> Ints:
    """Partition and offset of the events of rows."""
    return np.array([row.cursor.source for row in rows], np.int64)


def _events(ranks: Ints, cursors: Ints) -> Ints:
    """Numbers of events of these ranks that lie where their cursors' first two columns say."""
    found: Ints = ((ranks << _PARTITION_BITS | cursors[:, 0]) << _OFFSET_BITS) | cursors[:, 1]
    return found
