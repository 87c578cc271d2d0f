"""Lookup: a read of features, compiled once and used for any number of entities. Pure: who has a store asks it.

    entities  keys as people give them -> the entity of every row, by hop
    ask       entities -> the places in the store that hold their states, each once: one round trip
    readings  states and moments -> values by the kernel that the stream uses, and how each view stands

What is stored are window tiles, so a read is right however long an entity has been quiet: windows end at the moment asked about,
never at the last write. Tiles cannot be taken back: where an entity has a newer event, windows end at that one, as a late event's
row does in the stream, and the reading says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import Refused
from .event import Event
from .feature import Derived, Feature, references
from .freshness import expired, status_of
from .log import partition_of
from .mistake import nearest
from .model import Model
from .plan import Plan
from .project import Project
from .readings import Readings
from .store import Place
from .topics import Topics
from .topology import Hop
from .window import Panes, Shape

__all__ = ["Asked", "Lookup", "columns_of", "state_key"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_WORKSPACE, _MOST = 1 << 22, 256
"""Bytes of states, and how many, are unpacked at a time: they stay in the processor's cache, however many are read."""

_REMEMBERED, _SHORT = 100_000, 256
"""Entities whose place is remembered (murmur2 in Python costs 3 us), and how long their names may be: 25 MB at most."""

_NO_EVENT: Any = SimpleNamespace(type=type(None))
"""Stands for the event of a read that has none: no derived feature takes it."""


def state_key(hop: str, entity: str) -> bytes:
    """An entity's key in the store: the hop's name, a NUL (which no column name holds), the entity."""
    return f"{hop}\0{entity}".encode()


def columns_of(project: Project, what: object) -> tuple[str, ...]:
    """The names of the values that `what` stands for: a view (class or name), a feature (`Card.spend_24h`, or so as text), a
    model (or its name), or several. Raises Refused where there is no such thing.
    """
    views = {view.name: view for hop in project.topology.hops for view in hop.views}
    found: dict[str, None] = {}
    for item in what if isinstance(what, list | tuple) else [what]:
        if isinstance(item, str):
            view, _, feature = item.partition(".")
            model = next((m for m in project.models if m.name == item), None)
            if view in views and (not feature or item in views[view].columns):
                found |= dict.fromkeys([item] if feature else views[view].columns)
            elif model is not None:
                found |= dict.fromkeys(_of_model(model))
            elif view in views:
                raise Refused("unknown", f"{view} has no feature {feature[:80]!r}; {nearest(item, views[view].columns)}")
            else:
                raise Refused("unknown", f"no view {item[:80]!r}; there are: {', '.join(views)}")
        elif isinstance(item, Model):
            found |= dict.fromkeys(_of_model(item))
        else:
            found |= {repr(r): None for r in references(item) if isinstance(r, Feature | Derived)}
    if not found:
        raise Refused("schema", "nothing to read: name views, features or a model")
    unknown = {name.partition(".")[0] for name in found} - set(views)
    if unknown:
        raise Refused("unknown", f"no view {min(unknown)!r}; there are: {', '.join(views)}")
    return tuple(found)


def _of_model(model: Model) -> Iterable[str]:
    """The inputs of a model that are features, in its order."""
    known = {name for view in model.views for name in view.columns}
    return (name for name in model.inputs if name in known)


class _Places(dict[str, Place]):
    """Where the states of one hop's entities are."""

    def __init__(self, hop: str, partitions: int) -> None:
        self._hop, self._partitions = hop, partitions

    def __missing__(self, entity: str) -> Place:
        found = f"feature_store.{partition_of(entity.encode(), self._partitions)}", state_key(self._hop, entity)
        if len(entity) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[entity] = found
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What a lookup wants from the store for some rows: `places`, of which the first `tailed` have a tail too. `found` says, by
    hop, where its places begin, how many they are, and which of them each row is about (one past the last: about nobody)."""

    places: list[Place]
    tailed: int
    found: list[tuple[int, int, Ints]]


class Lookup:
    """The compiled read of `columns`, for rows that name entities of one or several keys.

    `hops` are the hops to ask, those with windows first. Safe to share between threads; two at once take turns.
    """

    def __init__(self, topics: Topics, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        names = tuple(dict.fromkeys(name.partition(".")[0] for name in columns))
        parts = [
            _Part(hop, topics.partitions, self.columns, names)
            for hop in topics.project.topology.hops
            if any(view.name in names for view in hop.views)
        ]
        self._parts = sorted(parts, key=lambda part: not part.tailed)
        self.hops = [part.hop for part in self._parts]
        self.views = tuple(next(v for hop in self.hops for v in hop.views if v.name == name) for name in names)
        self._lock = threading.Lock()

    def ask(self, entities: Sequence[Sequence[str | None]]) -> Asked:
        """What to get for rows; `entities` by hop, in the order of `hops`, one for each row (None: the row names none)."""
        places: list[Place] = []
        tailed, found = 0, []
        for part, named in zip(self._parts, entities, strict=True):
            unique, first = dict.fromkeys(named), len(places)
            known = [entity for entity in unique if entity is not None]
            if len(known) == len(named):
                index = np.arange(len(named))
            else:
                number: dict[str | None, int] = {entity: at for at, entity in enumerate(known)}
                number[None] = len(known)
                index = np.fromiter(map(number.__getitem__, named), np.int64, len(named))
            places += map(part.places.__getitem__, known)
            found.append((first, len(known), index))
            tailed = len(places) if part.tailed else tailed
        return Asked(places, tailed, found)

    def readings(
        self,
        asked: Asked,
        heads: Sequence[bytes],
        tails: Sequence[bytes],
        moments: Ints,
        event: Event | None = None,
        decoded: Sequence[Any] = (),
    ) -> Readings:
        """The rows at `moments` (microseconds, one for each row), from what the store had at `asked.places`. With an `event`
        and its `decoded` ones, derived features that take one are answered too; else those are missing."""
        n = len(moments)
        values = np.full((n, len(self.columns)), np.nan)
        as_of, newest = np.empty((n, len(self.views)), np.int64), np.empty((n, len(self.views)), np.int64)
        with self._lock:
            for part, (first, count, index) in zip(self._parts, asked.found, strict=True):
                own = (heads[first : first + count], tails[first : first + count] if part.tailed else [])
                part.fill(*own, index, moments, event or _NO_EVENT, decoded, values, as_of, newest)
        codes = [status_of(v, newest[:, i], moments, as_of[:, i]) for i, v in enumerate(self.views)]
        names = tuple(view.name for view in self.views)
        return Readings(self.columns, values, names, np.stack(codes, 1), as_of, newest)


class _Part:
    """One hop's share of a lookup, with the workspace in which states are unpacked."""

    def __init__(self, hop: Hop, partitions: int, columns: Sequence[str], views: Sequence[str]) -> None:
        self.hop, self.places = hop, _Places(hop.key, partitions)
        self._shape = Shape(hop.views)
        self._plan = Plan(self._shape)
        self.tailed = len(self._shape.ring_at) > 0
        known = {name: at for at, name in enumerate(self._plan.columns)}
        self._targets = [at for at, name in enumerate(columns) if name in known]
        self._chosen = [known[columns[at]] for at in self._targets]
        self._views = [(at, views.index(view.name), view) for at, view in enumerate(hop.views) if view.name in views]
        self._forgetful = [view for _, _, view in self._views if view.ttl]
        self._room = max(1, min(_MOST, _WORKSPACE // (8 * self._shape.words)))
        self._seats = [str(seat) for seat in range(self._room)]
        self._panes = Panes(self._shape, self._room)
        nobody = self._panes.restore_all(self._seats[:1], [b""], [b""] if self.tailed else [])
        self._nothing = self._windows(nobody, np.zeros(1, np.int64))[0][0]

    def fill(
        self, heads: Sequence[bytes], tails: Sequence[bytes], index: Ints, moments: Ints, event: Event, decoded: Sequence[Any],
        values: Floats, as_of: Ints, newest: Ints,
    ) -> None:  # fmt: skip
        """Write this hop's columns of `values`, and its views' of `as_of` and `newest`."""
        nobody = len(heads)
        if nobody == 0 or index.max(initial=0) == nobody:
            heads, tails = [*heads, b""], [*tails, b""] if self.tailed else []
        for first in range(0, len(heads), self._room):
            last = min(first + self._room, len(heads))
            slots = self._panes.restore_all(self._seats[: last - first], heads[first:last], tails[first:last])
            whole = len(heads) <= self._room
            rows = np.arange(len(index)) if whole else np.flatnonzero((index >= first) & (index < last))
            slots = slots[index[rows] - first]
            windows, effective = self._windows(slots, moments[rows])
            times = self._panes.newest(slots)
            if self._forgetful:
                windows = self._remembered(windows, times, effective)
            of = decoded if whole or not decoded else [decoded[row] for row in rows.tolist()]
            complete = self._plan.complete(windows, event, of)
            values[rows[:, None], self._targets] = complete[:, self._chosen]
            for at, target, _ in self._views:
                newest[rows, target] = times[:, self._shape.view_tracks[at]].max(axis=1, initial=-1)
                as_of[rows, target] = effective

    def _windows(self, slots: Ints, moments: Ints) -> tuple[Floats, Ints]:
        n = len(slots)
        nothing = np.full((n, max(len(self._shape.tracks), 1)), np.nan)
        return self._panes.apply(slots, moments, np.full(n, -1, np.int64), nothing, np.ones(n, np.int64), keep=False)

    def _remembered(self, windows: Floats, times: Ints, as_of: Ints) -> Floats:
        """Window values without what their view has forgotten: see `freshness.expired`."""
        gone = np.zeros(windows.shape, bool)
        for at, _, view in self._views:
            if view.ttl:
                own = times[:, self._shape.view_tracks[at]]
                over = np.array([feature.over for feature in view.features])
                newest = np.where(over, own.max(axis=1, keepdims=True), own)
                first = self._shape.columns.index(repr(view.features[0]))
                gone[:, first : first + len(over)] = expired(view, newest, as_of[:, None])
        return np.where(gone, self._nothing, windows)
