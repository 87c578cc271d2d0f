"""Lookup: a read of features, compiled once and used for any number of entities. Pure: who has a store asks it.

    entities  keys as people give them -> the entity of every row, by hop
    ask       entities -> the places in the store that hold their states, each once: one round trip
    readings  states and moments -> values by the kernel that the stream uses, and how each view stands

What is stored are window tiles, so a read is right however long an entity has been quiet: windows end at the moment asked about,
never at the last write. Tiles cannot be taken back: where an entity has a newer event, windows end at that one, as a late event's
row does in the stream, and the reading says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..aggregate import Feature
from ..errors import Refused
from ..event import Event
from ..feature import Derived, references
from ..log import partition_of
from ..mistake import nearest
from ..model import Model
from ..project import Project
from ..store import LIVE, STATUS, Place, StoreError
from ..topics import Topics
from ..topology import Hop
from ..windows.plan import Plan
from ..windows.shape import Shape
from .answering import Answering
from .freshness import REBUILDING
from .readings import Readings

__all__ = ["Asked", "Lookup", "OtherVersion", "columns_of", "state_key"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

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
    named: dict[str, tuple[str, ...]] = {name: (name,) for view in views.values() for name in view.columns}
    named |= {repr(item): item.columns for view in views.values() for item in (*view.features, *view.derived)}
    found: dict[str, None] = {}
    for item in what if isinstance(what, list | tuple) else [what]:
        if isinstance(item, str):
            view, _, feature = item.partition(".")
            model = next((m for m in project.models if m.name == item), None)
            if view in views and not feature:
                found |= dict.fromkeys(views[view].columns)
            elif item in named:
                found |= dict.fromkeys(named[item])
            elif model is not None:
                found |= dict.fromkeys(_of_model(model))
            elif view in views:
                raise Refused("unknown", f"{view} has no feature {feature[:80]!r}; {nearest(item, views[view].columns)}")
            else:
                raise Refused("unknown", f"no view {item[:80]!r}; there are: {', '.join(views)}")
        elif isinstance(item, Model):
            found |= dict.fromkeys(_of_model(item))
        else:
            found |= {name: None for r in references(item) if isinstance(r, Feature | Derived) for name in r.columns}
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


class OtherVersion(StoreError):
    """The store holds states of other definitions of the views than these."""

    def __init__(self, hop: str) -> None:
        super().__init__(f"the states by {hop} in the store belong to another version of the views than this project has")


class _Places(dict[str, Place]):
    """Where the states of one hop's entities are."""

    def __init__(self, hop: str, topics: Topics) -> None:
        self._hop, self._shards = hop, [topics.shard(number) for number in range(topics.partitions)]

    def __missing__(self, entity: str) -> Place:
        try:
            found = self._shards[partition_of(entity.encode(), len(self._shards))], state_key(self._hop, entity)
        except UnicodeEncodeError:
            raise Refused("schema", f"keys: {entity[:80]!r} is no text that UTF-8 can say") from None
        if len(entity) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[entity] = found
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What a lookup wants from the store for some rows: `places`, of which the first `tailed` have a tail too, and the last are
    how each of `shards` stands. `found` says, by hop, which places are its own (first, end), and which of those each row is
    about (one past the last: about nobody)."""

    places: list[Place]
    tailed: int
    found: list[tuple[int, int, Ints]]
    shards: list[str]


class Lookup:
    """The compiled read of `columns`, for rows that name entities of one or several keys.

    `hops` are the hops to ask, those with windows first. Safe to share between threads.
    """

    def __init__(self, topics: Topics, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        names = {name.partition(".")[0] for name in columns}
        hops = [hop for hop in topics.project.topology.hops if any(view.name in names for view in hop.views)]
        self._parts = sorted((_Part(hop, topics, columns) for hop in hops), key=lambda part: not part.tailed)
        self.hops = [part.hop for part in self._parts]
        self.views = tuple(view for part in self._parts for view in part.views)
        found = [name for part in self._parts for name in part.columns]
        self._order = [] if found == list(columns) else [found.index(name) for name in columns]
        self._names = tuple(view.name for view in self.views)
        seen = 0
        for part in self._parts:
            part.view, seen = seen, seen + len(part.views)

    def ask(self, entities: Sequence[Sequence[str | None]]) -> Asked:
        """What to get for rows; `entities` by hop, in the order of `hops`, one for each row (None: the row names none)."""
        places: list[Place] = []
        tailed, found = 0, []
        for part, named in zip(self._parts, entities, strict=True):
            unique, first = set(named), len(places)
            if len(unique) == len(named) and None not in unique:
                places += map(part.places.__getitem__, cast(Sequence[str], named))
                index = np.arange(len(named))
            else:
                known = [entity for entity in dict.fromkeys(named) if entity is not None]
                number: dict[str | None, int] = {entity: at for at, entity in enumerate(known)}
                number[None] = len(known)
                places += map(part.places.__getitem__, known)
                index = np.fromiter(map(number.__getitem__, named), np.int64, len(named))
            found.append((first, len(places), index))
            tailed = len(places) if part.tailed else tailed
        shards = list(dict.fromkeys(map(itemgetter(0), places)))
        return Asked(places + [(shard, STATUS) for shard in shards], tailed, found, shards)

    def readings(
        self,
        asked: Asked,
        heads: list[bytes],
        tails: list[bytes],
        moments: Ints,
        event: Event | None = None,
        decoded: Sequence[Any] = (),
    ) -> Readings:
        """The rows at `moments` (microseconds, one for each row), from what the store had at `asked.places`. With an `event`
        and its `decoded` ones, derived features that take one are answered too; else those are missing."""
        kind = event or _NO_EVENT
        pieces = [
            part.compute(heads[first:last], tails[first:last] if part.tailed else [], index, moments, kind, decoded)
            for part, (first, last, index) in zip(self._parts, asked.found, strict=True)
        ]
        if len(pieces) == 1:  # most often one hop has it all, and nothing need be put together
            effective, newest, codes, values = pieces[0]
            as_of = effective[:, None] if len(self.views) == 1 else effective[:, None].repeat(len(self.views), axis=1)
        else:
            ends = [
                np.repeat(piece[0][:, None], len(part.views), axis=1) for part, piece in zip(self._parts, pieces, strict=True)
            ]
            as_of = np.concatenate(ends, axis=1)
            newest, codes, values = (np.concatenate(each, axis=1) for each in list(zip(*pieces, strict=True))[1:])
        stands = heads[len(heads) - len(asked.shards) :]
        if stands.count(LIVE) < len(stands):
            behind = {shard for shard, head in zip(asked.shards, stands, strict=True) if head != LIVE}
            for part, (first, last, index) in zip(self._parts, asked.found, strict=True):
                of = np.array([*(shard in behind for shard, _ in asked.places[first:last]), False])
                codes[of[index], part.view : part.view + len(part.views)] = REBUILDING
        if self._order:
            values = values[:, self._order]
        return Readings(self.columns, values, self._names, codes, as_of, newest)


class _Part:
    """One hop's share of a lookup."""

    def __init__(self, hop: Hop, topics: Topics, columns: Sequence[str]) -> None:
        self.hop, self.places = hop, _Places(hop.key, topics)
        shape = Shape(hop.views)
        self._plan = Plan(shape)
        self.tailed = len(shape.rings) > 0
        self.view = 0
        """Where its views begin in those of the lookup."""
        self.columns = [name for name in columns if name in self._plan.columns]
        chosen = [self._plan.columns.index(name) for name in self.columns]
        self._chosen: Any = ... if chosen == list(range(len(self._plan.columns))) else (slice(None), chosen)
        names = {name.partition(".")[0] for name in self.columns}
        self.views = [view for view in hop.views if view.name in names]
        self._answering = Answering(shape, self.views)

    def compute(
        self, heads: Sequence[bytes], tails: Sequence[bytes], index: Ints, moments: Ints, event: Event, decoded: Sequence[Any]
    ) -> tuple[Ints, Ints, Codes, Floats]:
        """When the windows of a row end (n,), by view its newest event and how it stands (n, views), its values (n, columns)."""
        if len(index) != len(heads):  # some rows are about the same entity, or about nobody
            heads, tails = [*heads, b""], [*tails, b""] if self.tailed else []
        try:
            windows, effective, newest, codes = self._answering(heads, tails, index, moments)
        except ValueError as error:
            raise OtherVersion(self.hop.key) from error
        return effective, newest, codes, self._plan.complete(windows, event, decoded)[self._chosen]
