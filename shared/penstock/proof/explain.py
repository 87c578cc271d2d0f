"""Explanation: what is behind one value: definition, window, tiles, the events inside, which of them were late. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import duration
from ..aggregate import Aggregate, Feature, hop_of
from ..event import from_micros, to_micros
from ..feature import Derived, View
from ..lineage import reads
from .history import Past
from .recompute import effective_of, held, inside, start_of, timely, values

__all__ = ["Explanation", "Inside", "Tile", "explain"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tile:
    """What falls into one hop of a window."""

    start: datetime
    events: int
    sum: float | None = None
    """Of the aggregated column, as are the others; None where it is no number, or always missing."""
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Inside:
    """An event that counts: where it lies, when it happened, its value. `behind` is how many seconds older it is than the
    newest event of the entity that was processed before it; 0 when it came in order."""

    topic: str
    partition: int
    offset: int
    id: str
    time: datetime
    value: Any
    behind: float


@dataclass(frozen=True)
class Explanation:
    """One value. `value` is recomputed from the events in `inside`; None when missing."""

    feature: str
    definition: str
    as_of: datetime
    """Where the windows end: the newest time among the moment asked for and the entity's events."""
    value: float | None
    start: datetime | None = None
    """Where the window begins; None where there is no window."""
    over: str = ""
    hop: str = ""
    seconds: float | None = None
    """How long the window is just now: in [over, over + hop)."""
    tiles: Sequence[Tile] = ()
    inside: Sequence[Inside] = ()
    parts: Mapping[str, Any] | None = None
    """Of a derived feature what it is made from, of one of several numbers all of them."""


def explain(
    past: Past, view: View, item: Feature[Any] | Derived[float], processed: Ints, moment: int, asked: Any = None, label: str = ""
) -> Explanation:
    """Explain one value at `moment` (microseconds), when the events in `processed` had been processed, in that order; `asked`
    is the event of the row, for derived features that want one. Of a feature of several numbers, `label` names one; else all of
    them are its parts, and the events are those of the first."""
    effective = effective_of(past, processed, moment)
    found = values(past, view, processed, moment, asked)
    column = f"{item!r}[{label}]" if label else repr(item)
    said = Explanation(column, item.spelled(), from_micros(effective), number_of(found.get(column, math.nan)))
    if isinstance(item, Derived):
        above = [feature.name for feature in view.features] + [other.name for other in view.derived]
        names = reads(item, above[: above.index(item.name)], view.by)
        return replace(said, parts={name: _part(name, found, asked) for name in names})
    if column not in item.columns:
        said = replace(said, parts={name: number_of(found[name]) for name in item.columns})
    part = dict(zip(item.columns, item.parts, strict=True)).get(column, item.parts[0])
    seen = inside(past, part, processed[timely(past, view, processed)], effective)
    behind = np.maximum.accumulate(past.times[processed]) - past.times[processed]
    late = dict(zip(processed.tolist(), (behind / 1e6).tolist(), strict=True))
    inner = [_inside(past, part, event, late[event]) for event in seen.tolist()]
    if not part.over:
        return replace(said, inside=inner)
    hop, start = hop_of(part.over), start_of(part.over, effective)
    return replace(
        said,
        inside=inner,
        start=from_micros(start),
        over=duration.spoken(part.over),
        hop=duration.spoken(hop),
        seconds=(effective - start) / 1e6,
        tiles=_tiles(inner, hop),
    )


def _part(name: str, found: Mapping[str, float], asked: Any) -> Any:
    """A value of the row, or a column of the event that asked for it."""
    if name in found:
        return number_of(found[name])
    several = {column: number_of(value) for column, value in found.items() if column.startswith(f"{name}[")}
    return several or getattr(asked, name.partition(".")[2], None)


def number_of(found: float) -> float | None:
    """None for what is missing."""
    return None if math.isnan(found) else float(found)


def _inside(past: Past, part: Aggregate, event: int, behind: float) -> Inside:
    """An event as it counts."""
    said, counted = past.spoken(event), next((each for each in part.of if _is(past, each, event)), part)
    return Inside(said["topic"], said["partition"], said["offset"], said["id"], said["time"], held(past, counted, event), behind)


def _is(past: Past, part: Aggregate, event: int) -> bool:
    return int(past.ranks[event]) == past.topology.rank[part.event] and part.condition.holds(past.typed(event))


def _tiles(events: Sequence[Inside], hop: int) -> list[Tile]:
    """Events by hop, oldest first; hops without events are left out."""
    by_hop: dict[int, list[Any]] = {}
    for event in events:
        by_hop.setdefault(to_micros(event.time) // hop, []).append(event.value)
    found = []
    for number, counted in sorted(by_hop.items()):
        numeric = [float(value) for value in counted if isinstance(value, int | float)]
        said = (math.fsum(numeric), min(numeric), max(numeric)) if numeric else (None, None, None)
        found.append(Tile(from_micros(number * hop), len(counted), *said))
    return found
