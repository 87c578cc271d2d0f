"""A walk through the archived events of each entity, in one of their two orders, that gives the values of a view at rows. Pure.

The time that it takes grows with the events and the rows, not with their product: see `running`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ..aggregate import EVERY, Aggregate, code
from ..feature import View
from .history import History, Past
from .recompute import derive, held, parts_of
from .running import NEAR, OFF, SAME, Running, close, running

__all__ = ["Order", "Walked", "gives", "walk"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Order = Literal["time", "position", "forgetting"]
"""As if each event had come in its time; as they were processed; and where an entity is forgotten after its ttl of quiet."""
OFTEN: Final = 500
"""Rows between two words of progress."""


@dataclass(frozen=True)
class Walked:
    """Values of a view for n rows, and what the served ones are beside them."""

    values: Floats
    """(n, columns): exact."""
    beside: npt.NDArray[np.int8]
    """(n, columns): OFF, SAME, NEAR or ESTIMATE (see `running`)."""
    expired: npt.NDArray[np.bool_]
    """(n): whether some aggregate had forgotten what came."""


def walk(
    past: Past,
    history: History,
    view: View,
    order: Order,
    asked: Ints,
    told: Floats,
    progress: Callable[[int], None] = lambda done: None,
) -> Walked:
    """The values of `view` for the rows of the events `asked` (n), beside those served, `told` (n, columns). In the order of time
    nothing is forgotten and nothing is too late; in the others the view's `ttl` and `lateness` hold. `progress` is told
    after every OFTEN rows how many are done."""
    count = len(asked), len(view.columns)
    made = Walked(np.full(count, np.nan), np.full(count, OFF, np.int8), np.zeros(count[0], bool))
    steps = _Steps(past, view, order, made, told, progress)
    whose = history.entities[asked]
    rows = np.argsort(whose, kind="stable")
    borders = [*np.flatnonzero(np.diff(whose[rows], prepend=-2)).tolist(), len(rows)]
    for first, last in pairwise(borders):
        own = rows[first:last]
        wanted = dict(zip(asked[own].tolist(), own.tolist(), strict=True))
        entity = int(whose[own[0]])
        if entity < 0:  # of nobody: nothing has happened to any of them
            for event, row in wanted.items():
                steps.run(np.array([event]), {event: row})
            continue
        events = history.of(entity)
        steps.run(events[np.argsort(past.by_time[events])] if order == "time" else events, wanted)
    return made


def gives(past: Past, view: View, events: Ints, event: int, told: Floats) -> npt.NDArray[np.int8]:
    """What the served values (columns) of the row of `event` are beside those that come of these events, processed in this
    order before it."""
    made = Walked(np.full((1, len(told)), np.nan), np.full((1, len(told)), OFF, np.int8), np.zeros(1, bool))
    _Steps(past, view, "position", made, told[None], lambda done: None).run(np.append(events, event), {event: 0})
    beside: npt.NDArray[np.int8] = made.beside[0]
    return beside


class _Steps:
    """The walk through the events of one entity after another."""

    def __init__(self, past: Past, view: View, order: Order, made: Walked, told: Floats, progress: Callable[[int], None]) -> None:
        self.past, self.view, self.made, self.told, self.progress = past, view, made, told, progress
        self.forgets = order == "forgetting"
        self.ttl, self.lateness = (None, None) if order == "time" else (view.ttl, view.lateness)
        self.parts = parts_of(view)
        self.columns = {name: i for i, name in enumerate(view.columns)}
        self.worths: dict[int, list[tuple[int, list[float]]]] = {}
        """By rank of a kind of event: which of the flattened aggregates it feeds, and with what values."""
        flat = [each for part in self.parts.values() for each in part.of or (part,)]
        for place, part in enumerate(flat):
            self.worths.setdefault(past.topology.rank[part.event], []).append((place, _worth(past, part)))
        self.starts = {past.topology.rank[kind]: start for kind, start in past.starts.items()}
        self.done = 0

    def run(self, events: Ints, wanted: Mapping[int, int]) -> None:
        """Walk through the events of one entity; `wanted` has the row of each event that asked for one."""
        held, flat = self._nothing()
        newest, left = 0, len(wanted)
        times, ranks = self.past.times[events].tolist(), self.past.ranks[events].tolist()
        for event, time, rank in zip(events.tolist(), times, ranks, strict=True):
            effective = max(newest, time)
            if self.forgets and self.ttl is not None and newest and effective - newest > self.ttl:
                held, flat = self._nothing()
            row = wanted.get(event)
            if row is not None:
                self._row(row, event, held, effective)
                left -= 1
                if not left:
                    return
            newest = effective
            if self.lateness is not None and time < effective - self.lateness:
                continue
            place = event - self.starts[rank]
            for which, worth in self.worths.get(rank, ()):
                value = worth[place]
                if value == value:  # not missing
                    flat[which].add(time, value)

    def _nothing(self) -> tuple[dict[str, Running], list[Running]]:
        """Aggregates of an entity to which nothing has happened: by column, and those that events feed."""
        held = {name: running(part, self.ttl) for name, part in self.parts.items()}
        return held, [each for one in held.values() for each in one.fed]

    def _row(self, row: int, event: int, held: Mapping[str, Running], effective: int) -> None:
        told, beside, values = self.told[row].tolist(), self.made.beside[row], self.made.values[row]
        found = {name: one.at(effective) for name, one in held.items()}
        for name, one in held.items():
            column = self.columns[name]
            values[column], beside[column] = found[name], one.beside(told[column], found[name])
        if self.view.derived:
            widest: float | None = None
            for name, meant in derive(self.view, found, self.past.typed(event)).items():
                column = self.columns[name]
                values[column], beside[column] = meant, SAME
                if not close(told[column], meant):  # it may be the difference of great numbers
                    widest = max(one.scale() for one in held.values()) if widest is None else widest
                    beside[column] = NEAR if close(told[column], meant, widest) else OFF
        if self.ttl is not None:
            self.made.expired[row] = any(one.expired(effective) for one in held.values())
        self.done += 1
        if self.done % OFTEN == 0:
            self.progress(self.done)


def _worth(past: Past, part: Aggregate) -> list[float]:
    """The value of every event of a kind to an aggregate, NaN where it has none or does not meet the condition."""
    recorded, start = past.recorded[part.event], past.starts[part.event]
    if part.condition == EVERY and (part.column is None or part.column.kind == "number"):
        numbers: list[float] = recorded.numbers(part.column).tolist()
        return numbers
    found = []
    for event in range(start, start + len(recorded)):
        value = held(past, part, event) if part.condition.holds(past.typed(event)) else None
        found.append(math.nan if value is None else code(value) if isinstance(value, str) else float(value))
    return found
