"""One partition of one hop: events in stream time update the windows of their entities and take the values along. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from penstock.codec import entities_of
from penstock.event import Event
from penstock.feature import View
from penstock.log import partition_of
from penstock.runtime.merge import Column, Merge, Released
from penstock.topology import ENTRY, Hop, Topology
from penstock.windows.panes import Panes, Shape
from penstock.windows.plan import Plan

from .block import Rows
from .expiry import Expiry

__all__ = ["HopPartition", "Late", "by_event", "width_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def width_of(topology: Topology) -> int:
    """How many values the widest row has."""
    return max((len(topology.columns(event)) for event in topology.reads), default=0)


def by_event(topology: Topology, ranks: Ints) -> Iterator[tuple[Event, Ints | slice]]:
    """Each kind of event among rows of these ranks, and which rows are of it."""
    kinds = np.unique(ranks).tolist()
    for rank in kinds:
        yield topology.events[rank], np.flatnonzero(ranks == rank) if len(kinds) > 1 else slice(None)


class Late(NamedTuple):
    """The event of `row` of what was released came too late for a view and changed nothing in it; E was `effective`."""

    view: View
    row: int
    effective: int


class HopPartition:
    """State of hop `hop`, partition `number` of `count`: the merge of its sources and the panes of its entities.

    `release` says which entities the events that are due need; `work` processes them.
    """

    def __init__(self, topology: Topology, hop: Hop, number: int, count: int) -> None:
        self.topology, self.hop, self.number, self.count = topology, hop, number, count
        self.index = [h.key for h in topology.hops].index(hop.key)
        self.direct = [event.topic for event in hop.direct]
        self.upstream = [f"{key}.{shard}" for key in hop.upstream for shard in range(count)]
        self.downstream = [other.key for other in topology.hops if hop.key in other.upstream]
        self.merge = Merge([*self.direct, *self.upstream])
        self.applied = 0
        """Events processed here so far; what cursors count."""
        self.shape = Shape(hop.views)
        self.plan = Plan(self.shape)
        self.panes = Panes(self.shape)
        self.late: list[Late] = []
        """Of the events processed last, those that came too late for a view."""
        self.expiry = Expiry(hop)
        self._due: Released | None = None
        self._entities: list[str | None] = []
        self._partitions: dict[str, int] = {}
        self.by = {event: topology.by[hop.key, event] for event in topology.events if (hop.key, event) in topology.by}
        self._reads: dict[Event, tuple[npt.NDArray[np.bool_], int]] = {}
        """Per event whose row has values of this hop: which ones, and where they begin in the row."""
        for event in topology.reads:
            chosen = [name in topology.columns(event) for name in self.plan.columns]
            if any(chosen):
                first = topology.columns(event).index(self.plan.columns[chosen.index(True)])
                self._reads[event] = np.array(chosen), first
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
        due = self._due = self.merge.release()
        self._entities = []
        if self.hop.key == ENTRY or not len(due):
            return []
        self._entities = self._names(due.ranks, Rows(*due.columns).events)
        return self.panes.unknown(self._entities)

    def _names(self, ranks: Ints, events: Column) -> list[str | None]:
        """The entity here of each event; None where a part of it is missing."""
        names = np.empty(len(ranks), object)
        for event, where in by_event(self.topology, ranks):
            names[where] = entities_of(self.by[event], events[where].tolist())
        found: list[str | None] = names.tolist()
        return found

    def work(self) -> Released | None:
        """Process what was released, in place: values and cursors are added to its rows."""
        due, self._due, self.late = self._due, None, []
        if due is None or not len(due):
            return None
        if self.hop.key != ENTRY:
            self._compute(due, Rows(*due.columns))
        return due

    def _compute(self, due: Released, rows: Rows) -> None:
        n, effective = len(due), rows.times
        present = np.array([e is not None for e in self._entities], bool)
        kinds = np.full(n, -1, np.int64)
        values = np.full((n, max(len(self.shape.tracks), 1)), np.nan)
        want = np.zeros(n, np.int64)
        groups: list[tuple[Event, Ints | slice, list[Any]]] = []
        for event, where in by_event(self.topology, due.ranks):
            decoded = rows.events[where].tolist()
            want[where] = event in self._reads
            if event in self.shape.events:
                kinds[where] = self.shape.events.index(event)
                values[where] = self.shape.values(event, decoded)
            if event in self._reads:
                groups.append((event, where, decoded))
        if present.all():
            windows, effective = self.panes.apply(self.panes.slots(self._entities), rows.times, kinds, values, want)
        else:
            windows, some, effective = np.tile(self._empty, (n, 1)), np.flatnonzero(present), effective.copy()
            slots = self.panes.slots([e for e in self._entities if e is not None])
            windows[some], effective[some] = self.panes.apply(slots, rows.times[some], kinds[some], values[some], want[some])
        self._note_late(due, rows, effective)
        self.expiry.take(self._entities, rows.times)
        before = self.applied + np.cumsum(present) - present
        self.applied += int(present.sum())
        at = 2 + 2 * self.index
        later = np.where(effective > rows.times, effective, -1)
        for event, where, decoded in groups:
            chosen, first = self._reads[event]
            complete = self.plan.complete(windows[where], event, decoded)
            rows.features[where, first : first + int(chosen.sum())] = complete if chosen.all() else complete[:, chosen]
            rows.cursors[where, at] = self.number
            rows.cursors[where, at + 1] = before[where]
            rows.cursors[where, -2] = np.maximum(rows.cursors[where, -2], later[where])

    def _note_late(self, due: Released, rows: Rows, effective: Ints) -> None:
        """Find the events that came too late for a view that they would have changed, and mark their rows."""
        for view in self.hop.views:
            if view.lateness is None:
                continue
            kinds = [self.topology.rank[event] for event in view.updates]
            for i in np.flatnonzero((rows.times < effective - view.lateness) & np.isin(due.ranks, kinds)).tolist():
                self.late.append(Late(view, i, int(effective[i])))
                rows.cursors[i, -1] = 1
        self.late.sort(key=attrgetter("row"))

    def targets(self, entities: Sequence[str]) -> list[int]:
        """The partitions of entities (remembered: murmur2 in Python costs microseconds)."""
        known = self._partitions
        if len(known) > 1_000_000:
            known.clear()
        for entity in set(entities).difference(known):  # not `- keys()`, which copies all keys
            known[entity] = partition_of(entity.encode(), self.count)
        return [known[entity] for entity in entities]

    def route(self, due: Released, where: Ints) -> Ints:
        """The partitions of this hop that rows `where`, due at the hop before, go to; a missing entity goes by its id."""
        names = self._names(due.ranks[where], Rows(*due.columns).events[where])
        return np.array(self.targets([i if e is None else e for e, i in zip(names, due.ids[where], strict=True)]), np.int64)

    def position(self) -> dict[str, Any]:
        """What to save: with it and the records from the first pending ones on, the partition goes on exactly."""
        return {
            "released": self.merge.released,
            "period": self.expiry.now,
            "applied": self.applied,
            "late": self.merge.late,
            "seen": self.merge.seen(),
            "closed": self.merge.closings(self.upstream),
            "done": {source: done for source, done in self.merge.done.items() if source in self.upstream},
        }

    def resume(self, saved: Mapping[str, Any]) -> None:
        self.merge.released, self.applied, self.merge.late = saved["released"], saved["applied"], saved["late"]
        self.expiry.now = saved["period"]
        self.merge.done = {source: tuple(done) for source, done in saved["done"].items()}
        for source, seen in saved["seen"].items():
            self.merge.resume(source, seen)
        for source, closed in saved["closed"].items():
            self.merge.close(source, closed)

    @property
    def frontier(self) -> int:
        """Everything with a smaller effective time has left this partition."""
        return self.merge.released

    def offset(self, sources: Iterable[str], read: int) -> int:
        """The first record of these sources' topic that is not fully processed, when it was read up to `read`."""
        pending = (self.merge.first_pending(source) for source in sources)
        return min((at for at in pending if at is not None), default=read)
