"""Values computed plainly from archived events by `replay`, the written-down meaning: slow, obvious, for one value or a test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..aggregate import Aggregate, hop_of
from ..feature import View
from ..replay import derive as derived_of
from ..replay import value as value_of
from .history import Past

__all__ = ["derive", "effective_of", "held", "inside", "parts_of", "start_of", "timely", "value", "values"]

Ints = npt.NDArray[np.int64]


def start_of(over: int, effective: Any) -> Any:
    """Where a window of length `over` that ends at `effective` begins, in microseconds: its tail is floored to the hop."""
    hop = hop_of(over)
    return (effective - over) // hop * hop


def parts_of(view: View) -> dict[str, Aggregate]:
    """The aggregate of every column of a view that is not derived."""
    return {name: part for feature in view.features for name, part in zip(feature.columns, feature.parts, strict=True)}


def inside(past: Past, part: Aggregate, processed: Ints, effective: int) -> Ints:
    """Those of the processed events of an entity that an aggregate counts, of a ratio both of its aggregates."""
    if part.of:
        both = np.union1d(*(inside(past, each, processed, effective) for each in part.of))
        return np.asarray(processed[np.isin(processed, both)], np.int64)
    found: Ints = processed[past.ranks[processed] == past.topology.rank[part.event]]
    if part.over:
        found = found[past.times[found] >= start_of(part.over, effective)]
    meets = [part.condition.holds(past.typed(event)) and held(past, part, event) is not None for event in found.tolist()]
    return np.asarray(found[np.array(meets, bool)], np.int64)


def held(past: Past, part: Aggregate, event: int) -> Any:
    """The value of an event in the column of an aggregate: None where it is missing; without a column every event counts 1."""
    found = 1 if part.column is None else getattr(past.typed(event), part.column.name)
    return None if isinstance(found, float) and not math.isfinite(found) else found


def value(past: Past, part: Aggregate, processed: Ints, effective: int, ttl: int | None = None) -> float:
    """An aggregate by its definition, over the events of an entity in the order in which they were processed; with a `ttl` all
    is as if it had never been when the newest that it has values of is older."""
    kinds = [past.topology.rank[each.event] for each in part.of or (part,)]
    lengths = [each.over for each in part.of or (part,)]
    seen = processed[np.isin(past.ranks[processed], kinds)]
    if all(lengths) and ttl is None:  # only to be quick: the definition looks at times itself
        seen = seen[past.times[seen] >= min(start_of(over, effective) for over in lengths)]
    return value_of(part, [(int(past.times[event]), past.typed(event)) for event in seen.tolist()], effective, ttl)


def effective_of(past: Past, processed: Ints, moment: int) -> int:
    """Where windows end: the newest time among a moment and the events processed, microseconds."""
    return max(moment, int(past.times[processed].max(initial=0)))


def values(past: Past, view: View, processed: Ints, moment: int, asked: Any = None) -> dict[str, float]:
    """All values of a view for a row of the event `asked` (None: of no event) at `moment`."""
    effective = effective_of(past, processed, moment)
    counted = processed[timely(past, view, processed)]
    found = {name: value(past, part, counted, effective, view.ttl) for name, part in parts_of(view).items()}
    return found | derive(view, found, asked)


def timely(past: Past, view: View, processed: Ints) -> npt.NDArray[np.bool_]:
    """Which events came in time to change the view: those not later than its `lateness`."""
    if view.lateness is None:
        return np.ones(len(processed), bool)
    times = past.times[processed]
    return np.asarray(times >= np.maximum.accumulate(times) - view.lateness, bool)


def derive(view: View, found: Mapping[str, float], event: Any) -> dict[str, float]:
    """The derived features of a row by column, from its others."""
    features, derived = _names(view)
    row, made = SimpleNamespace(), {}
    for feature, columns in features:
        feature.put(row.__dict__, [found[name] for name in columns])
    for item, column in derived:
        made[column] = row.__dict__[item.name] = derived_of(item, row, event)
    return made


@lru_cache(64)
def _names(view: View) -> tuple[list[tuple[Any, tuple[str, ...]]], list[tuple[Any, str]]]:
    """The features of a view with their columns: spelling those takes longer than the arithmetic."""
    return [(feature, feature.columns) for feature in view.features], [(item, repr(item)) for item in view.derived]
