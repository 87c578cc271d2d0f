"""Reading the online store: the features of an entity as of a moment, by the kernel that the stream uses.

What is stored are window tiles, so a read is right however long the entity has been quiet: windows end at the moment asked
about (or at the entity's newest event, if that is later), never at the last write.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .codec import entity_of
from .event import Event, to_micros
from .log import partition_of
from .store import Store
from .topics import Topics
from .topology import Hop
from .window import Panes, Plan, Shape

__all__ = ["OnlineFeatures", "state_key"]


def state_key(hop: str, entity: str) -> bytes:
    """An entity's key in the store: the hop's name, a NUL (which no column name holds), the entity."""
    return f"{hop}\0{entity}".encode()


class OnlineFeatures:
    """Reads rows and views from the states that the feature store keeps. One round trip per hop partition."""

    def __init__(self, topics: Topics, store: Store) -> None:
        self._topics, self._store = topics, store
        self._topology = topics.project.topology
        self._shapes = {hop.key: Shape(hop.views) for hop in self._topology.hops if hop.views}

    async def row(self, event: Event, decoded: Any) -> dict[str, float | None]:
        """All values of the row that this event would get now, None where missing; `decoded` as EventDecoder gives it."""
        moment = to_micros(getattr(decoded, event.time.name))
        values: dict[str, float | None] = {}
        for hop in self._topology.hops:
            if any(view in hop.views for view in self._topology.reads[event]):
                entity = entity_of(self._topology.by[hop.key, event], decoded)
                values |= await self._values(hop, entity, moment, event, decoded)
        return {name: values[name] for name in self._topology.columns(event)}

    async def view(self, name: str, entity: str, moment: int) -> dict[str, float | None]:
        """The windows of one view for one entity at a moment (microseconds); KeyError if there is no such view.

        Derived values that need an event are None: there is no event here.
        """
        hop = next((h for h in self._topology.hops if any(v.name == name for v in h.views)), None)
        if hop is None:
            raise KeyError(name)
        event = next(iter(hop.views[0].by))
        values = await self._values(hop, entity, moment, event, None)
        return {column.removeprefix(f"{name}."): value for column, value in values.items() if column.startswith(f"{name}.")}

    async def _values(self, hop: Hop, entity: str | None, moment: int, event: Event, decoded: Any) -> dict[str, float | None]:
        shape = self._shapes[hop.key]
        panes = Panes(shape, capacity=1)
        if entity is not None:
            shard = f"feature_store.{partition_of(entity.encode(), self._topics.partitions)}"
            panes.restore(entity, *(await self._store.read(shard, [state_key(hop.key, entity)]))[0])
        slots = np.array([panes.slot(entity or "")], np.int64)
        nothing = np.full((1, max(len(shape.tracks), 1)), np.nan)
        rows, _ = panes.apply(
            slots, np.array([moment], np.int64), np.full(1, -1, np.int64), nothing, np.ones(1, np.int64), keep=False
        )
        plan = Plan(shape)
        known = [decoded] if decoded is not None else []
        complete = plan.complete(rows, event, known) if known else _without_event(plan, rows)
        return {c: None if math.isnan(v) else v for c, v in zip(plan.columns, complete[0].tolist(), strict=True)}


def _without_event(plan: Plan, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    windows = list(plan.windows)
    return np.array([[rows[0, windows.index(c)] if c in windows else np.nan for c in plan.columns]])
