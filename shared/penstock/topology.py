"""How events travel: which hops an event passes, in one global order of keys, so that there are no cycles.

A *hop* is one key (airport, carrier, ...) with all views by that key; its partition p holds the entities whose key falls to
p. An event visits, in order, every hop with a view that it updates or that its row reads. Where the event's own record key
is the key of its first hop, that hop reads the event topic directly; otherwise the `entry` hop reads it and sends it on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .event import Column, Event
from .feature import View
from .mistake import mistake

__all__ = ["ENTRY", "Hop", "Route", "Topology"]

ENTRY = "entry"


@dataclass(frozen=True)
class Hop:
    """One key: the views it updates and reads, the events it takes from their own topics, the hops it hears from."""

    key: str
    views: tuple[View, ...]
    direct: tuple[Event, ...]
    upstream: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """The way of one event: `path` names hops; `row` says whether a finished row is published at its end."""

    event: Event
    path: tuple[str, ...]
    row: bool


class Topology:
    """The compiled picture of a project: pure data, printable, the same in every service."""

    def __init__(self, rows: Sequence[tuple[Event, tuple[View, ...]]], others: Iterable[Event] = ()) -> None:
        self.reads = dict(rows)
        views = list(dict.fromkeys(view for _, read in rows for view in read))
        names = [view.name for view in views]
        for name in sorted({n for n in names if names.count(n) > 1}):
            mistake(f"two views are called {name}", "rename one: names of views are names of columns")
        keys = list(dict.fromkeys(view.key for view in views))
        self.events = tuple(dict.fromkeys([*self.reads, *(e for view in views for e in view.updates), *others]))
        self.rank = {event: index for index, event in enumerate(self.events)}
        self.routes: dict[Event, Route] = {}
        for event in self.events:
            path = tuple(
                key for key in keys if any(v.key == key and (event in v.updates or v in self.reads.get(event, ())) for v in views)
            )
            self.routes[event] = Route(event, path, event in self.reads)
        self.by: dict[tuple[str, Event], tuple[Column, ...]] = {}
        for view in views:
            for event, columns in view.by.items():
                known = self.by.setdefault((view.key, event), columns)
                if known != columns:
                    mistake(
                        f"views by {view.key} name the entity of {event!r} in two ways: {known} and {columns}",
                        "use the same column in each `by`, or other column names for another entity",
                    )
        direct = {
            event: route.path[0] if route.path and self.by.get((route.path[0], event)) == (event.key,) else ENTRY
            for event, route in self.routes.items()
            if route.path or route.row
        }
        upstream: dict[str, set[str]] = {key: set() for key in keys}
        for event, route in self.routes.items():
            way = [direct[event], *route.path] if direct.get(event) == ENTRY else list(route.path)
            for here, there in itertools.pairwise(way):
                upstream[there].add(here)
        order = [ENTRY, *keys]
        self.hops = tuple(
            Hop(
                key,
                tuple(view for view in views if view.key == key),
                tuple(event for event in self.events if direct.get(event) == key),
                tuple(sorted(upstream.get(key, ()), key=order.index)),
            )
            for key in order
            if key != ENTRY or ENTRY in direct.values()
        )

    @cached_property
    def generation(self) -> str:
        """Eight hexadecimal digits over all that states, blocks and rows depend on: the views of each hop, the ways of events.
        What the feature store keeps of a project bears them in its names, so another definition never misreads it."""
        said = [
            [
                [hop.key, [view.fingerprint for view in hop.views], [e.topic for e in hop.direct], hop.upstream]
                for hop in self.hops
            ],
            [
                [event.topic, self.columns(event) if way.row else None]
                for event, way in self.routes.items()
                if way.path or way.row
            ],
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]

    def after(self, event: Event, key: str) -> str | None:
        """The next hop of an event after `key`; None when its way ends there."""
        way = (ENTRY, *self.routes[event].path)
        following = way[way.index(key) + 1 :]
        return following[0] if following else None

    def columns(self, event: Event) -> tuple[str, ...]:
        """The names of the values in a row of this event, in the order in which its hops add them."""
        read = self.reads.get(event, ())
        return tuple(name for hop in self.hops for view in hop.views if view in read for name in view.columns)
