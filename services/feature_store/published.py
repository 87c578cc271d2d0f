"""Published: which events a shard has already sent on, though its state does not know it, because the store has lost writes.

Done again, the work may be cut into other blocks, so what counts is the event: its kind, partition and offset. What was
published stays; what is sent anew has only the other events. Where events are in order of time within each source, they would
have been the very same rows. Where a source had been passed was published too and holds again; but what comes late after the loss
may be put before rows that were published before it, which stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar, cast

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.log import Batch
from penstock.records import LateEvent, Passed
from penstock.topics import Topics

from .block import unpack

__all__ = ["Published"]

Ints = npt.NDArray[np.int64]
Where = TypeVar("Where", Ints, Ints | slice)

_OFFSET_BITS, _PARTITION_BITS = 46, 9
"""An event as one number: 7 * 10**13 records in each of 512 partitions, of 256 kinds."""


class _Cursor(msgspec.Struct):
    source: tuple[int, int]


class _Row(msgspec.Struct):
    cursor: _Cursor


_row = msgspec.json.Decoder(_Row).decode
_late = msgspec.json.Decoder(LateEvent).decode
_passed = msgspec.json.Decoder(Passed).decode


class Published:
    """By topic, events as sorted numbers: 8 bytes each."""

    def __init__(self, topics: Topics) -> None:
        topology = topics.project.topology
        self._ranks = {topics.rows(event): topology.rank[event] for event in topology.reads}
        self._parts: defaultdict[str, list[Ints]] = defaultdict(list)
        self._late_topic, self._passed_topic = topics.late, topics.passed
        self.late: set[tuple[str, int, int, str]] = set()
        """Late events that were told: topic, partition, offset, view."""
        self.passed: dict[str, dict[int, int]] = {}
        """Where a source had been passed, as was told: by topic, offset -> the effective time from there on."""
        self._sorted: dict[str, Ints] = {}

    def recall(self, batch: Batch) -> int:
        """Take note of our records of one topic; the greatest block number among them, or 0."""
        topic, newest = batch.partition.topic, 0
        if topic == self._late_topic:
            self.late |= {(e.event, e.partition, e.offset, e.view) for e in map(_late, batch.values)}  # type: ignore[arg-type]
            return 0
        if topic == self._passed_topic:
            for said in map(_passed, batch.values):  # type: ignore[arg-type]
                self.passed.setdefault(said.event, {})[said.offset] = said.before
            return 0
        self._sorted.pop(topic, None)
        for value in batch.values if topic not in self._ranks else ():
            block = unpack(value or b"")
            newest = max(newest, block.number)
            if block.ids:
                cursors = np.frombuffer(block.cursors, np.int64).reshape(len(block.ids), -1)
                self._parts[topic].append(_events(np.frombuffer(block.ranks, np.int64), cursors))
        if topic in self._ranks:
            cursors = np.array([_row(value or b"").cursor.source for value in batch.values], np.int64)
            self._parts[topic].append(_events(np.full(len(cursors), self._ranks[topic]), cursors))
        return newest

    def unsaid(self, topic: str, ranks: Ints, cursors: Ints, where: Where) -> Where:
        """Those of the rows `where` whose events were not sent to a topic yet."""
        if topic not in self._parts:
            return where
        if topic not in self._sorted:
            self._sorted[topic] = np.unique(np.concatenate(self._parts[topic]))
        said, events = self._sorted[topic], _events(ranks[where], cursors[where])
        new = said[np.minimum(np.searchsorted(said, events), len(said) - 1)] != events
        return cast(Where, np.arange(len(ranks))[where][new])


def _events(ranks: Ints, cursors: Ints) -> Ints:
    """Numbers of events of these ranks that lie where their cursors' first two columns say."""
    found: Ints = ((ranks << _PARTITION_BITS | cursors[:, 0]) << _OFFSET_BITS) | cursors[:, 1]
    return found
