"""Reading the online store: the features of an entity as of a moment, by the kernel that the stream uses.

What is stored are window tiles, so a read is right however long the entity has been quiet: windows end at the moment asked
about, never at the last write. Tiles cannot be taken back: where the entity has a newer event, windows end at that one (as a
late event's row does in the stream), and the reading says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from .codec import entity_of
from .event import Event, to_micros
from .log import partition_of
from .plan import Plan
from .store import LIVE, STATUS, Store
from .topics import Topics
from .topology import Hop
from .window import Panes, Shape

__all__ = ["OnlineFeatures", "Reading", "state_key"]

_NO_EVENT: Any = SimpleNamespace(type=type(None))
"""Stands for the event of a read that has none: no derived feature takes it."""


def state_key(hop: str, entity: str) -> bytes:
    """An entity's key in the store: the hop's name, a NUL (which no column name holds), the entity."""
    return f"{hop}\0{entity}".encode()


@dataclass(frozen=True)
class Reading:
    """What one view says of one entity: `values` by name, None where missing, with windows that end at `as_of` (microseconds).

    `status` is what the store can know, which is not how far behind the stream it is:

        fresh      as of the moment asked about
        newer      as of the entity's newest event, which lies after that moment
        missing    nothing is known of such an entity (or the event names none)
        rebuilding the store has lost writes, and is not yet what it had been: values are older than they were
    """

    values: Mapping[str, float | None]
    as_of: int
    status: str


class OnlineFeatures:
    """Reads rows and views from the states that the feature store keeps. One round trip per hop."""

    def __init__(self, topics: Topics, store: Store) -> None:
        self._topics, self._store = topics, store
        self._topology = topics.project.topology
        self._shapes = {hop.key: Shape(hop.views) for hop in self._topology.hops if hop.views}

    async def row(self, event: Event, decoded: Any) -> dict[str, Reading]:
        """By view, what the row would hold that this event would get now; `decoded` as EventDecoder gives it."""
        moment = to_micros(getattr(decoded, event.time.name))
        wanted = self._topology.reads[event]
        found: dict[str, Reading] = {}
        for hop in self._topology.hops:
            if any(view in hop.views for view in wanted):
                entity = entity_of(self._topology.by[hop.key, event], decoded)
                found |= await self._read(hop, entity, moment, event, [decoded])
        return {view.name: found[view.name] for view in wanted}

    async def view(self, name: str, entity: str, moment: int) -> Reading:
        """One view of one entity at a moment (microseconds); KeyError if there is no such view.

        Derived values that need an event are None: there is no event here.
        """
        hop = next((hop for hop in self._topology.hops if any(view.name == name for view in hop.views)), None)
        if hop is None:
            raise KeyError(name)
        return (await self._read(hop, entity, moment, _NO_EVENT, []))[name]

    async def _read(self, hop: Hop, entity: str | None, moment: int, event: Event, decoded: list[Any]) -> dict[str, Reading]:
        shape, head, stands = self._shapes[hop.key], b"", LIVE
        panes = Panes(shape, capacity=1)
        if entity is not None:
            shard = f"feature_store.{partition_of(entity.encode(), self._topics.partitions)}"
            (head, tail), (stands, _) = await self._store.read(shard, [state_key(hop.key, entity), STATUS])
            panes.restore(entity, head, tail)
        slots, times = np.array([panes.slot(entity or "")], np.int64), np.array([moment], np.int64)
        nothing = np.full((1, max(len(shape.tracks), 1)), np.nan)
        windows, effective = panes.apply(slots, times, np.full(1, -1, np.int64), nothing, np.ones(1, np.int64), keep=False)
        plan = Plan(shape)
        values = [None if math.isnan(v) else v for v in plan.complete(windows, event, decoded)[0].tolist()]
        named = dict(zip(plan.columns, values, strict=True))
        as_of = int(effective[0])
        status = "missing" if not head else "fresh" if as_of == moment else "newer"
        if stands != LIVE:
            status = "rebuilding"
        return {
            view.name: Reading({c.removeprefix(f"{view.name}."): named[c] for c in view.columns}, as_of, status)
            for view in hop.views
        }
