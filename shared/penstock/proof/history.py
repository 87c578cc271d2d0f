"""The past: archived events in the two orders that matter, without the kernel that the stream uses.

    by time      as if each had come in its time: what a person would join by, as everything is known now
    by position  the order in which the stream processed them, as `penstock.order` states it

What the feature store refused is left out again: repeats of an id, and records in a partition that their key is not of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..codec import entities_of
from ..errors import PenstockError
from ..event import Column, Event, from_micros
from ..log import partition_of
from ..order import order_of
from ..place import spelled
from ..topology import Topology

__all__ = ["History", "Past", "Recorded", "micros_of"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def micros_of(column: Any) -> Ints:
    """A column of times of an Arrow table as integer microseconds since 1970."""
    import pyarrow as pa

    found: Ints = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy().astype(np.int64)
    return found


class Recorded:
    """The archived events of one kind: an Arrow table with `partition`, `offset` and the event's columns. `passed` says where
    its partitions had been passed: (partition, offset) -> effective time from there on (`records.Passed`)."""

    def __init__(
        self, event: Event, table: Any, partitions: int = 1, passed: Mapping[tuple[int, int], int] | None = None
    ) -> None:
        import pyarrow as pa

        self.event, self.passed = event, passed or {}
        table = table.sort_by([("partition", "ascending"), ("offset", "ascending")])
        self.ends: dict[int, int] = dict(zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True))
        """Per partition the newest offset archived."""
        self.misplaced = 0
        """Events in a partition that their key is not of."""
        keep = self._taken(table, partitions)
        self._table = table if keep.all() else table.filter(pa.array(keep))
        self.partitions: Ints = self._table["partition"].to_numpy().astype(np.int64)
        self.offsets: Ints = self._table["offset"].to_numpy().astype(np.int64)
        self.times = micros_of(self._table[spelled(event.time)])
        self.ids = [str(name) for name in self._table[spelled(event.id or event.key)].to_pylist()]
        self._typed: dict[int, Any] = {}
        self._numbers: dict[str, Floats] = {}

    def __len__(self) -> int:
        return len(self.times)

    def _taken(self, table: Any, partitions: int) -> npt.NDArray[np.bool_]:
        """Which records the feature store took."""
        keep = np.ones(len(table), bool)
        if self.event.id is not None:
            known: set[tuple[Any, ...]] = set()
            names = [table[name].to_pylist() for name in ("partition", spelled(self.event.id), spelled(self.event.key))]
            for i, named in enumerate(zip(*names, strict=True)):
                keep[i] = named not in known
                known.add(named)
        if partitions > 1:
            keys = [str(key) for key in table[spelled(self.event.key)].to_pylist()]
            right = {key: partition_of(key.encode(), partitions) for key in set(keys)}
            placed = np.array([right[key] for key in keys], np.int64) == table["partition"].to_numpy()
            self.misplaced = int(np.count_nonzero(~placed))
            keep &= placed
        return keep

    @cached_property
    def moved(self) -> Ints:
        """E of each event, microseconds: the greatest time so far in its partition, and what it had been passed by."""
        found = self.times.copy()
        if self.passed:
            places = zip(self.partitions.tolist(), self.offsets.tolist(), strict=True)
            found = np.maximum(found, [self.passed.get(place, 0) for place in places])
        for number in np.unique(self.partitions).tolist():
            own = self.partitions == number
            found[own] = np.maximum.accumulate(found[own])
        return found

    def entities(self, columns: tuple[Column, ...]) -> list[str | None]:
        """The entity in each event; None where a part of it is missing."""
        keyed = msgspec.defstruct("Keyed", [column.name for column in columns])
        values = [self._table[spelled(column)].to_pylist() for column in columns]
        return entities_of(columns, list(map(keyed, *values)))

    def numbers(self, column: Column | None) -> Floats:
        """A numeric column as float64, NaN where missing or not finite; of no column, ones."""
        if column is None:
            return np.ones(len(self))
        if column.name not in self._numbers:
            import pyarrow as pa

            found = self._table[spelled(column)].cast(pa.float64()).to_numpy()
            self._numbers[column.name] = np.where(np.isfinite(found), found, np.nan)
        return self._numbers[column.name]

    @cached_property
    def _columns(self) -> list[list[Any]]:
        return [self._table[spelled(column)].to_pylist() for column in self.event.columns.values()]

    def typed(self, i: int) -> Any:
        """One event as the project declares it."""
        found = self._typed.get(i)
        if found is None:
            found = self._typed[i] = self.event.type(*(values[i] for values in self._columns))
        return found


class History:
    """What one hop has processed, by entity. Parallel arrays, ordered by entity, then by position."""

    def __init__(self, past: Past, key: str, partitions: int) -> None:
        topology = past.topology
        self._past = past
        names: list[str | None] = []
        for event, recorded in past.recorded.items():
            passes = key in topology.routes[event].path
            names += recorded.entities(topology.by[key, event]) if passes else [None] * len(recorded)
        self.names = sorted({name for name in names if name is not None})
        self.number = {name: i for i, name in enumerate(self.names)}
        self.entities: Ints = np.array([-1 if name is None else self.number[name] for name in names], np.int64)
        """By event: which entity it is of; -1 for none, and for events that do not come here."""
        homes = np.array([partition_of(name.encode(), partitions) for name in self.names] or [0], np.int64)
        self.partitions: Ints = np.where(self.entities >= 0, homes[self.entities], -1)
        """By event: the partition here; -1 likewise."""
        order = np.lexsort((past.by_position, self.entities))
        self._order: Ints = order[np.searchsorted(self.entities[order], 0) :]
        self._starts = np.searchsorted(self.entities[self._order], np.arange(len(self.names) + 1))
        self._late: dict[int, Ints] = {}
        self._lines: dict[int, Ints] = {}
        """Per partition its events, in the order of positions."""

    def of(self, entity: int) -> Ints:
        """All events of an entity, in the order of positions; none for -1."""
        if entity < 0:
            return np.empty(0, np.int64)
        return self._order[self._starts[entity] : self._starts[entity + 1]]

    def preceding(self, event: int) -> Ints:
        """The events of its entity that were processed before an event, in order."""
        own = self.of(int(self.entities[event]))
        return own[: np.searchsorted(self._past.by_position[own], self._past.by_position[event])]

    def late(self, entity: int) -> Ints:
        """Those events of an entity that came late."""
        if entity not in self._late:
            own = self.of(entity)
            self._late[entity] = own[self._past.late[own]]
        return self._late[entity]

    def count(self, event: int) -> int:
        """How many events its partition here had processed before an event."""
        return int(np.searchsorted(self._past.by_position[self.line(event)], self._past.by_position[event]))

    def line(self, event: int) -> Ints:
        """All events of its partition here, in the order of positions."""
        number = int(self.partitions[event])
        if number not in self._lines:
            own = np.flatnonzero(self.partitions == number)
            self._lines[number] = own[np.argsort(self._past.by_position[own])]
        return self._lines[number]

    def until(self, entity: int, place: int) -> Ints:
        """The events of an entity before a place in the order of time, in that order."""
        own = self.of(entity)
        own = own[np.argsort(self._past.by_time[own])]
        return own[: np.searchsorted(self._past.by_time[own], place)]


class Past:
    """The archived events of a project. An event is a number: its place when all kinds are laid one after the other.

    PenstockError where they were published to another number of partitions than is said.
    """

    def __init__(self, topology: Topology, recorded: Mapping[Event, Recorded], partitions: int = 1) -> None:
        self.topology, self.partitions = topology, partitions
        self.recorded = {event: recorded[event] for event in topology.events if event in recorded}
        kinds = list(self.recorded.values())
        found = 1 + max((number for kind in kinds for number in kind.ends), default=0)
        misplaced = sum(kind.misplaced for kind in kinds)
        if found > partitions or misplaced > sum(map(len, kinds)):
            raise PenstockError(
                f"the archived events were published to {found} partitions, not to {partitions}",
                f"export PENSTOCK_PARTITIONS={found}   as it was then",
            )
        self.starts = dict(zip(self.recorded, np.cumsum([0, *map(len, kinds)]).tolist(), strict=False))
        """Where each kind begins."""
        self.times = _laid([kind.times for kind in kinds])
        self.moved = _laid([kind.moved for kind in kinds])
        """E of each event."""
        self.ranks = _laid([np.full(len(kind), topology.rank[kind.event], np.int64) for kind in kinds])
        self.late = self.times < self.moved
        """Which came after a newer one of their partition, or after that had been passed."""
        places = tuple(_laid([getattr(kind, name) for kind in kinds]) for name in ("partitions", "offsets"))
        self.sources = places[0]
        """The partition of each event in its topic."""
        names = [name for kind in kinds for name in kind.ids]
        ids = np.array(names, object)
        on_time = np.zeros(len(self.times), bool)
        self.by_time = _places(order_of(self.times, on_time, self.ranks, ids.__getitem__, places))
        """The place of each event in the order of time."""
        self.by_position = _places(order_of(self.moved, self.late, self.ranks, ids.__getitem__, places))
        """The place of each event in the order of positions."""
        self._histories: dict[str, History] = {}

    def __len__(self) -> int:
        return len(self.times)

    def history(self, key: str) -> History:
        """What the hop by `key` processed."""
        if key not in self._histories:
            self._histories[key] = History(self, key, self.partitions)
        return self._histories[key]

    def kind(self, event: int) -> tuple[Recorded, int]:
        """The table of an event, and its row there."""
        declared = self.topology.events[int(self.ranks[event])]
        return self.recorded[declared], event - self.starts[declared]

    def typed(self, event: int) -> Any:
        """An event as the project declares it."""
        recorded, i = self.kind(event)
        return recorded.typed(i)

    def spoken(self, event: int) -> dict[str, Any]:
        """An event as people look for it: topic, partition, offset, id, time, and by how many seconds it came after a newer
        one of its partition."""
        recorded, i = self.kind(event)
        late = (int(self.moved[event]) - int(self.times[event])) / 1e6
        return {
            "topic": recorded.event.topic, "partition": int(recorded.partitions[i]), "offset": int(recorded.offsets[i]),
            "id": recorded.ids[i], "time": from_micros(int(recorded.times[i])), "late": late,
        }  # fmt: skip


def _laid(parts: Sequence[Ints]) -> Ints:
    return np.concatenate([np.empty(0, np.int64), *parts])


def _places(order: Any) -> Ints:
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(len(order))
    return found
