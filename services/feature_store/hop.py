"""One partition of one hop: events in stream time update the windows of their entities and take the values along. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.codec import entity_of
from penstock.event import Event
from penstock.log import partition_of
from penstock.merge import Merge, Released
from penstock.topology import ENTRY, Hop, Topology
from penstock.window import Panes, Plan, Shape

from .block import Item

__all__ = ["HopPartition"]

Floats = npt.NDArray[np.float64]


class HopPartition:
    """State of hop `hop`, partition `number` of `count`: the merge of its sources and the panes of its entities.

    `release` says what is due and which entities it needs; `work` processes it.
    """

    def __init__(self, topology: Topology, hop: Hop, number: int, count: int) -> None:
        self.topology, self.hop, self.number, self.count = topology, hop, number, count
        self.index = [h.key for h in topology.hops].index(hop.key)
        self.direct = [event.topic for event in hop.direct]
        self.upstream = [f"{key}.{shard}" for key in hop.upstream for shard in range(count)]
        self.merge = Merge([*self.direct, *self.upstream])
        self.applied = 0
        """Events processed here so far; what cursors count."""
        self.shape = Shape(hop.views)
        self.plan = Plan(self.shape)
        self.panes = Panes(self.shape)
        self.done: dict[str, tuple[int, ...]] = {}
        """Per upstream source the newest block of which rows were released, and how many of its rows."""
        self._due = Released(np.empty(0, np.int64), np.empty(0, np.int64), [], [])
        self._entities: list[str | None] = []
        self._partitions: dict[str, int] = {}
        self._by = {event: topology.by[hop.key, event] for event in topology.events if (hop.key, event) in topology.by}
        self._reads = {
            event: np.array([name in topology.columns(event) for name in self.plan.columns], bool) for event in topology.reads
        }
        self._empty = self._nothing()

    def _nothing(self) -> Floats:
        """The window values of an entity that nothing has happened to, and of a missing entity."""
        rows: Floats
        rows, _ = Panes(self.shape, capacity=1).apply(
            np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, -1, np.int64),
            np.full((1, max(len(self.shape.tracks), 1)), np.nan), np.ones(1, np.int64), keep=False,
        )  # fmt: skip
        nothing: Floats = rows[0]
        return nothing

    def release(self) -> list[str]:
        """Take what is due from the merge; the entities whose state is not in memory yet."""
        self._due = self.merge.release()
        for item in self._due.items:
            if item.origin is not None:
                self.done[item.origin[0]] = item.origin[1:]
        self._entities = []
        if self.hop.key == ENTRY:
            return []
        events = self.topology.events
        self._entities = [entity_of(self._by[events[item.rank]], item.decoded) for item in self._due.items]
        return sorted({e for e in self._entities if e is not None and not self.panes.known(e)})

    def work(self) -> Iterable[tuple[int, str, Item]]:
        """Process what was released; (effective time, id, item) in order, values and cursor added."""
        due, events = self._due, self.topology.events
        self._due = Released(np.empty(0, np.int64), np.empty(0, np.int64), [], [])
        if not len(due):
            return []
        if self.hop.key != ENTRY:
            self._compute(due, events)
        return zip(due.times.tolist(), due.ids, due.items, strict=True)

    def _compute(self, due: Released, events: Sequence[Event]) -> None:
        items: list[Item] = due.items
        ranks = due.ranks
        present = np.array([e is not None for e in self._entities], bool)
        slots = np.array([0 if e is None else self.panes.slot(e) for e in self._entities], np.int64)
        n = len(items)
        times = np.empty(n, np.int64)
        kinds = np.full(n, -1, np.int64)
        values = np.full((n, max(len(self.shape.tracks), 1)), np.nan)
        want = np.zeros(n, np.int64)
        groups: list[tuple[Event, npt.NDArray[np.intp], list[Any]]] = []
        for rank in np.unique(ranks).tolist():
            event, where = events[rank], np.flatnonzero(ranks == rank)
            decoded = [items[i].decoded for i in where.tolist()]
            groups.append((event, where, decoded))
            times[where] = [items[i].micros for i in where.tolist()]
            want[where] = event in self._reads and bool(self._reads[event].any())
            if event in self.shape.events:
                kinds[where] = self.shape.events.index(event)
                values[where] = self.shape.values(event, decoded)
        rows = np.broadcast_to(self._empty, (n, len(self._empty)))
        some = np.flatnonzero(present)
        if len(some):
            found, _ = self.panes.apply(slots[some], times[some], kinds[some], values[some], want[some])
            rows = rows.copy()
            rows[some] = found
        before = self.applied + np.cumsum(present) - present
        self.applied += int(present.sum())
        for event, where, decoded in groups:
            chosen = self._reads.get(event)
            if chosen is None or not chosen.any():
                continue
            complete = self.plan.complete(rows[where], event, decoded)[:, chosen]
            for line, i in zip(complete, where.tolist(), strict=True):
                item = items[i]
                item.features = line if item.features is None or not len(item.features) else np.concatenate([item.features, line])
                item.cursor = (*item.cursor, self.index, self.number, int(before[i]))

    def target(self, entity: str) -> int:
        """The partition of an entity (remembered: murmur2 in Python costs microseconds)."""
        found = self._partitions.get(entity)
        if found is None:
            if len(self._partitions) > 1_000_000:
                self._partitions.clear()
            found = self._partitions[entity] = partition_of(entity.encode(), self.count)
        return found

    def position(self) -> dict[str, Any]:
        """What to save: with it and the records from the first pending ones on, the partition goes on exactly."""
        return {
            "released": self.merge.released,
            "applied": self.applied,
            "late": self.merge.late,
            "seen": self.merge.seen(),
            "closed": self.merge.closings(self.upstream),
            "done": self.done,
        }

    def resume(self, saved: Mapping[str, Any]) -> None:
        self.merge.released, self.applied, self.merge.late = saved["released"], saved["applied"], saved["late"]
        self.done = {source: tuple(done) for source, done in saved["done"].items()}
        for source, seen in saved["seen"].items():
            self.merge.resume(source, seen)
        for source, closed in saved["closed"].items():
            self.merge.close(source, closed)

    @property
    def frontier(self) -> int:
        """Everything with a smaller effective time has left this partition."""
        return self.merge.released

    def downstream(self) -> Iterable[str]:
        """The hops that hear from this one."""
        return [hop.key for hop in self.topology.hops if self.hop.key in hop.upstream]
