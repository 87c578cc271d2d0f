"""Values computed plainly from archived events: by `replay`, the written-down meaning, and for many rows by binary search.

`value` and `derive` are the meaning. `cut` is quick and knows the plain aggregates only; the tests compare it with `value`,
and whoever uses it takes what differs from a served value to `value`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..aggregate import EVERY, Aggregate, code, hop_of
from ..feature import View
from ..replay import derive as derived_of
from ..replay import value as value_of
from ..windows.sketch import COMMON_LEAST, DISTINCT_EXACT, QUANTILE_EXACT, REGISTERS
from .history import History, Past

__all__ = [
    "ESTIMATED", "TOLERANCE", "agrees", "close", "cut", "derive", "effective_of", "expired", "held", "inside", "nearly",
    "parts_of", "plain", "start_of", "timely", "tolerance_of", "value", "values",
]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-9
"""Relative to the value, or to the numbers that went into it: float64 sums of up to a million of them, in another order."""
_ADDED: Final = ("sum", "mean", "var", "std", "decayed_count", "decayed_sum", "decayed_mean", "ratio")
RANK_ERROR: Final = 0.03
"""Of quantiles of many values, as the tests of the sketch bound it."""


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


def expired(past: Past, view: View, processed: Ints, effective: int) -> bool:
    """Whether the view has forgotten anything: the newest that some aggregate has values of is older than its `ttl`."""
    if view.ttl is None:
        return False
    counted = processed[timely(past, view, processed)]
    ever = [replace(each, over=0) for part in parts_of(view).values() for each in part.of or (part,)]
    newest = [int(past.times[seen].max()) for part in ever if len(seen := inside(past, part, counted, effective))]
    return bool(newest) and min(newest) < effective - view.ttl


def agrees(past: Past, view: View, told: Mapping[str, float], processed: Ints, event: int) -> bool:
    """Whether served values are those of the events in `processed`, up to the order in which numbers were added. Stops at the
    first that is not: many guesses are asked about."""
    moment = int(past.times[event])
    effective = effective_of(past, processed, moment)
    counted = processed[timely(past, view, processed)]
    found: dict[str, float] = {}
    widest, parts = 0.0, parts_of(view)
    for name, part in sorted(parts.items(), key=lambda named: named[1].over or math.inf):  # the quick ones first
        found[name] = value(past, part, counted, effective, view.ttl)
        said = told.get(name, found[name])
        if not close(said, found[name], part=part) and not nearly(past, part, said, found[name], counted, effective):
            return False
    for name, meant in derive(view, found, past.typed(event)).items():
        said = told.get(name, meant)
        if not close(said, meant):
            widest = widest or max(_scale(past, part, counted, effective) for part in parts.values())
            if not close(said, meant, widest):
                return False
    return True


def close(said: float, meant: float, scale: float = 0.0, part: Aggregate | None = None) -> bool:
    """Whether two numbers are the same, up to TOLERANCE of the greater of them or of `scale`, and exactly where `part` adds
    nothing up; missing is missing."""
    if math.isnan(said) or math.isnan(meant):
        return math.isnan(said) and math.isnan(meant)
    return said == meant or abs(said - meant) <= tolerance_of(part) * max(abs(said), abs(meant), scale)


def tolerance_of(part: Aggregate | None) -> float:
    """How far a number may be off relatively: not at all unless it is added up, or derived (None) from what may be. (Texts are
    52-bit numbers, of which TOLERANCE would take many for one.)"""
    return TOLERANCE if part is None or part.kind in _ADDED else 0.0


def nearly(past: Past, part: Aggregate, said: float, meant: float, processed: Ints, effective: int) -> bool:
    """Whether a served number can be the exact one: up to the order of addition, or within the error of an estimate."""
    scale = _scale(past, part, processed, effective)
    if part.kind == "var":  # as exact as the deviation times the numbers themselves (Chan, Golub, LeVeque 1983)
        scale *= max(math.sqrt(meant), TOLERANCE * scale)
    if part.kind not in ESTIMATED:
        return close(said, meant, scale, part)
    seen = [held(past, part, event) for event in inside(past, part, processed, effective).tolist()]
    return ESTIMATED[part.kind](part, said, meant, [code(v) if isinstance(v, str) else float(v) for v in seen])


def _distinct(part: Aggregate, said: float, meant: float, seen: list[float]) -> bool:
    """Five standard errors of HyperLogLog with 1,024 registers: one value in two million is farther off."""
    return meant > DISTINCT_EXACT and abs(said - meant) <= 5 * 1.04 / math.sqrt(REGISTERS) * meant


def _quantile(part: Aggregate, said: float, meant: float, seen: list[float]) -> bool:
    """The share of the values below it may be off by what the sketch promises."""
    below, within = sum(v < said for v in seen) / len(seen), sum(v <= said for v in seen) / len(seen)
    return len(seen) > QUANTILE_EXACT and below - RANK_ERROR <= part.argument <= within + RANK_ERROR


def _top(part: Aggregate, said: float, meant: float, seen: list[float]) -> bool:
    """With m counters a count is too small by n / (m + 1) at most (Misra, Gries 1982)."""
    counters = max(COMMON_LEAST, 4 * part.length)
    inexact = len(set(seen)) > counters
    return inexact and said in seen and abs(seen.count(said) - seen.count(meant)) <= len(seen) / (counters + 1)


ESTIMATED: Final = {"distinct": _distinct, "quantile": _quantile, "top": _top}
"""Aggregates that are exact up to a number of values, and beyond it estimates."""


def _scale(past: Past, part: Aggregate, processed: Ints, effective: int) -> float:
    """How great the numbers are that were added up: a sum of great ones that cancel is as exact as they are."""
    if part.of:
        over, under = part.of
        return _scale(past, over, processed, effective) / abs(value(past, under, processed, effective) or 1.0)
    if part.column is None or part.column.kind != "number":
        return 0.0
    sizes = [abs(float(held(past, part, event))) for event in inside(past, part, processed, effective).tolist()]
    greatest = max(sizes, default=0.0)
    return math.fsum(sizes) if part.kind in ("sum", "decayed_sum") else greatest


def derive(view: View, found: Mapping[str, float], event: Any) -> dict[str, float]:
    """The derived features of a row by column, from its others."""
    row, made = SimpleNamespace(), {}
    for feature in view.features:
        feature.put(row.__dict__, [found[name] for name in feature.columns])
    for item in view.derived:
        made[repr(item)] = row.__dict__[item.name] = derived_of(item, row, event)
    return made


# -- many rows at once -------------------------------------------------------------------------------------------------

_REDUCE: Final[dict[str, Any]] = {"sum": np.add.reduce, "min": np.minimum.reduce, "max": np.maximum.reduce}
_KINDS: Final = ("count", "sum", "mean", "min", "max", "last", "since_last")


def plain(part: Aggregate) -> bool:
    """Whether `cut` knows the aggregate: its kind, a numeric column, and no condition."""
    return part.kind in _KINDS and part.condition == EVERY and (part.column is None or part.column.kind == "number")


def cut(past: Past, history: History, part: Aggregate, whose: Ints, before: Ints, moments: Ints) -> Floats:
    """A plain aggregate for rows of the entities `whose` (-1: none), over what lies before the places `before` in the order of
    time; windows end at `moments`. All (n,)."""
    start, recorded = past.starts[part.event], past.recorded[part.event]
    kind = slice(start, start + len(recorded))
    numbers = recorded.numbers(part.column)
    there = (history.entities[kind] >= 0) & ~np.isnan(numbers)
    lines = history.entities[kind][there] * len(past) + past.by_time[kind][there]
    order = np.argsort(lines)
    lines, numbers, times = lines[order], numbers[there][order], past.times[kind][there][order]
    since = np.zeros(len(whose), np.int64)
    if part.over:
        since = past.first_since(start_of(part.over, moments))
    base = whose * len(past)  # below 0 where there is no entity: that finds nothing
    high = np.searchsorted(lines, base + before)
    low = np.minimum(np.searchsorted(lines, base + since), high)
    if part.kind == "count":
        return np.asarray(high - low, np.float64)
    if part.kind in ("last", "since_last"):
        newest = np.maximum(high - 1, 0)
        found = np.append(numbers if part.kind == "last" else times, np.nan)[newest]
        return np.where(high > low, found if part.kind == "last" else (moments - found) / 1e6, np.nan)
    reduce, empty = _REDUCE.get(part.kind, np.add.reduce), 0.0 if part.kind == "sum" else math.nan
    made = np.array([reduce(numbers[a:b]) if b > a else empty for a, b in zip(low.tolist(), high.tolist(), strict=True)])
    return np.asarray(made / np.maximum(high - low, 1) if part.kind == "mean" else made, np.float64)
