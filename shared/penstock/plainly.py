"""Values computed plainly from archived events: by `replay`, the written-down meaning, and for many rows by binary search.

`value` and `derive` are the meaning. `cut` is quick and knows the plain aggregates only; the tests compare it with `value`,
and whoever uses it takes what differs from a served value to `value`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .feature import Derived, Feature, View, hop_of
from .past import History, Past
from .replay import _derived as derived_of
from .replay import _value as value_of

__all__ = [
    "TOLERANCE", "agrees", "close", "cut", "derive", "effective_of", "expired", "inside", "plain", "start_of", "timely", "value",
    "values",
]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-9
"""Relative to the value, or to the numbers that went into it: float64 sums of up to a million of them, in another order."""


def start_of(feature: Feature[float], effective: int) -> int:
    """Where a window that ends at `effective` begins, in microseconds: its tail is floored to the hop."""
    hop = hop_of(feature.over)
    return (effective - feature.over) // hop * hop


def inside(past: Past, feature: Feature[float], processed: Ints, effective: int) -> Ints:
    """Those of the processed events of an entity that a feature looks at."""
    found: Ints = processed[past.ranks[processed] == past.topology.rank[feature.event]]
    if feature.over:
        found = found[past.times[found] >= start_of(feature, effective)]
    return found


def value(past: Past, feature: Feature[float], processed: Ints, effective: int) -> float:
    """A feature by its definition, over the events of an entity in the order in which they were processed."""
    seen = inside(past, feature, processed, effective).tolist()
    return value_of(feature, [(int(past.times[event]), past.typed(event)) for event in seen], effective)


def effective_of(past: Past, processed: Ints, moment: int) -> int:
    """Where windows end: the newest time among a moment and the events processed, microseconds."""
    return max(moment, int(past.times[processed].max(initial=0)))


def values(past: Past, view: View, processed: Ints, moment: int, asked: Any = None) -> dict[str, float]:
    """All values of a view for a row of the event `asked` (None: of no event) at `moment`."""
    effective = effective_of(past, processed, moment)
    counted, over = processed[timely(past, view, processed)], expired(past, view, processed, effective)
    found = [math.nan if over else value(past, feature, counted, effective) for feature in view.features]
    return dict(zip(view.columns, [*found, *derive(view, found, asked)], strict=True))


def timely(past: Past, view: View, processed: Ints) -> npt.NDArray[np.bool_]:
    """Which events came in time to change the view: those not later than its `lateness`."""
    lateness = getattr(view, "lateness", None)
    if lateness is None:
        return np.ones(len(processed), bool)
    times = past.times[processed]
    return np.asarray(times >= np.maximum.accumulate(times) - lateness, bool)


def expired(past: Past, view: View, processed: Ints, effective: int) -> bool:
    """Whether the newest event that the view has values of is older than its `ttl`."""
    ttl = getattr(view, "ttl", None)
    if ttl is None:
        return False
    ranks = [past.topology.rank[event] for event in view.updates]
    known = past.times[processed[timely(past, view, processed) & np.isin(past.ranks[processed], ranks)]]
    return len(known) > 0 and int(known.max()) < effective - ttl


def agrees(past: Past, view: View, told: Mapping[str, float], processed: Ints, event: int) -> bool:
    """Whether served values are those of the events in `processed`, up to the order in which numbers were added. Stops at the
    first that is not: many guesses are asked about."""
    moment = int(past.times[event])
    effective = effective_of(past, processed, moment)
    counted, over = processed[timely(past, view, processed)], expired(past, view, processed, effective)
    found, widest = [], 0.0
    for feature in view.features:
        meant = math.nan if over else value(past, feature, counted, effective)
        said = told.get(repr(feature), meant)
        if not close(said, meant):
            scale = _scale(past, feature, counted, effective)
            if not close(said, meant, scale):
                return False
        found.append(meant)
    for item, meant in zip(view.derived, derive(view, found, past.typed(event)), strict=True):
        said = told.get(repr(item), meant)
        if not close(said, meant):
            widest = widest or max(_scale(past, feature, counted, effective) for feature in view.features)
            if not close(said, meant, widest):
                return False
    return True


def close(said: float, meant: float, scale: float = 0.0) -> bool:
    """Whether two numbers are the same up to TOLERANCE, of the greater of them or of `scale`; missing is missing."""
    if math.isnan(said) or math.isnan(meant):
        return math.isnan(said) and math.isnan(meant)
    return said == meant or abs(said - meant) <= TOLERANCE * max(abs(said), abs(meant), scale)


def _scale(past: Past, feature: Feature[float], processed: Ints, effective: int) -> float:
    """How great the numbers are that were added up: a sum of great ones that cancel is as exact as they are."""
    if feature.column is None or feature.column.kind != "number":
        return 0.0
    numbers = past.recorded[feature.event].numbers(feature.column)
    seen = np.abs(numbers[inside(past, feature, processed, effective) - past.starts[feature.event]])
    seen = seen[~np.isnan(seen)]
    return float(seen.sum() if feature.kind == "sum" else seen.max(initial=0.0))


class _Row:
    """Numbers by attribute, for bodies of derived features."""


def derive(view: View, found: Sequence[float], event: Any) -> list[float]:
    """The derived features of a row from its others; what is not finite is missing, as in the stream."""
    row, made = _Row(), []
    row.__dict__.update({f.name: np.float64(v) for f, v in zip(view.features, found, strict=True)})
    for item in view.derived:
        number = _number(item, row, event)
        row.__dict__[item.name] = np.float64(number)
        made.append(number)
    return made


def _number(item: Derived[float], row: object, event: Any) -> float:
    try:
        with np.errstate(all="ignore"):
            number = derived_of(item, row, event)
    except (ArithmeticError, ValueError, TypeError):  # a division by zero, a column that is None
        return math.nan
    return number if math.isfinite(number) else math.nan


# -- many rows at once -------------------------------------------------------------------------------------------------

_REDUCE: Final[dict[str, Any]] = {"sum": np.add.reduce, "min": np.minimum.reduce, "max": np.maximum.reduce}
_KINDS: Final = ("count", "sum", "mean", "min", "max", "last", "since_last")
_SAID: Final = ("kind", "event", "column", "over", "owner", "name", "view")


def plain(feature: Feature[float]) -> bool:
    """Whether `cut` knows the aggregate: its kind, a numeric column, and nothing more said of it (a filter, buckets)."""
    more = any(said for name, said in vars(feature).items() if name not in _SAID)
    return feature.kind in _KINDS and not more and (feature.column is None or feature.column.kind == "number")


def cut(past: Past, history: History, feature: Feature[float], whose: Ints, before: Ints, moments: Ints) -> Floats:
    """A plain aggregate for rows of the entities `whose` (-1: none), over what lies before the places `before` in the order of
    time; windows end at `moments`. All (n,)."""
    start, recorded = past.starts[feature.event], past.recorded[feature.event]
    kind = slice(start, start + len(recorded))
    numbers = recorded.numbers(feature.column)
    there = (history.entities[kind] >= 0) & ~np.isnan(numbers)
    lines = history.entities[kind][there] * len(past) + past.by_time[kind][there]
    order = np.argsort(lines)
    lines, numbers, times = lines[order], numbers[there][order], past.times[kind][there][order]
    since = np.zeros(len(whose), np.int64)
    if feature.over:
        hop = hop_of(feature.over)
        since = past.first_since((moments - feature.over) // hop * hop)
    base = whose * len(past)  # below 0 where there is no entity: that finds nothing
    high = np.searchsorted(lines, base + before)
    low = np.minimum(np.searchsorted(lines, base + since), high)
    if feature.kind == "count":
        return np.asarray(high - low, np.float64)
    if feature.kind in ("last", "since_last"):
        newest = np.maximum(high - 1, 0)
        found = np.append(numbers if feature.kind == "last" else times, np.nan)[newest]
        return np.where(high > low, found if feature.kind == "last" else (moments - found) / 1e6, np.nan)
    reduce, empty = _REDUCE.get(feature.kind, np.add.reduce), 0.0 if feature.kind == "sum" else math.nan
    made = np.array([reduce(numbers[a:b]) if b > a else empty for a, b in zip(low.tolist(), high.tolist(), strict=True)])
    return np.asarray(made / np.maximum(high - low, 1) if feature.kind == "mean" else made, np.float64)
