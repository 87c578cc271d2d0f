"""Apart: what is counted of the inputs and answers of each level of a model's segments, and what a version's reference makes
expect of them (see penstock.statistics.segmented).

Which levels and inputs are counted follows from the version alone, or where it says nothing from the declaration: so counts add
over batches and partitions, and are bounded whatever comes. Levels that a reference does not name count as OTHERS; without one
they are learnt (see penstock.statistics.groups).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.policy import SCORE
from penstock.records import LevelCounts, Summed
from penstock.segment import MISSING, OTHERS, Segment
from penstock.statistics.groups import bounded
from penstock.statistics.hours import Hours, Ints, hour_of_week
from penstock.statistics.quality import added
from penstock.statistics.reference import Numbers
from penstock.statistics.segmented import Segmented, affordable, most_levels

from .moments import added_sums

__all__ = ["Apart", "Aside", "Column", "folded", "joined"]

T = TypeVar("T")
By = dict[str, dict[str, T]]
"""By segment and level."""


class Column(NamedTuple):
    """An input, or the score, of a batch: `values` (rows,), NaN where missing; `summed`: whether its grid is known."""

    name: str
    numbers: Numbers
    values: npt.NDArray[np.floating[Any]]
    summed: bool


class Apart(msgspec.Struct):
    """Of one level: counts per bin and sums by input, and answers by part of the week (none without a reference)."""

    inputs: dict[str, list[int]] = {}
    parts: dict[int, int] = {}
    summed: dict[str, Summed] = {}

    def __add__(self, other: Apart) -> Apart:
        sums = added_sums(self.summed, other.summed)
        return Apart(added(self.inputs, other.inputs), added(self.parts, other.parts), sums)


def folded(levels: Mapping[str, T], add: Callable[[T, T], T]) -> dict[str, T]:
    """At most as many levels as are counted apart, and the others."""
    kept, found = bounded(dict.fromkeys(levels, 0)), dict[str, T]()
    for level, each in levels.items():
        into = level if level in kept and level != OTHERS else OTHERS
        found[into] = add(found[into], each) if into in found else each
    return dict(sorted(found.items()))


def joined(a: Mapping[str, Mapping[str, T]], b: Mapping[str, Mapping[str, T]], add: Callable[[T, T], T]) -> By[T]:
    """Two shares as one, by segment and level."""
    found: By[T] = {segment: dict(levels) for segment, levels in a.items()}
    for segment, levels in b.items():
        mine = found.setdefault(segment, {})
        for level, each in levels.items():
            mine[level] = add(mine[level], each) if level in mine else each
    return {segment: folded(levels, add) for segment, levels in sorted(found.items())}


class _Level(NamedTuple):
    """What the reference says of a level: the part of the week of each hour, rows by part, shares (parts, bins) by input."""

    group: Ints
    rows: Ints
    shares: dict[str, npt.NDArray[np.int32]]
    customs: dict[int, dict[str, float]]


class Aside:
    """Counts the answers of one version by level, of a model with `segments` and `inputs`."""

    def __init__(self, segments: Sequence[Segment], inputs: Sequence[str], reference: Segmented | None = None) -> None:
        cut = {segment.name: segment for segment in segments}
        known = {
            name: levels
            for name, levels in (reference.levels if reference else {}).items()
            if name in cut and all(level == OTHERS or cut[name].counted(level) == level for level in levels)
        }  # without segments that were cut otherwise when it was made
        self.mix = {segment: {level: of.rows for level, of in levels.items()} for segment, levels in known.items()}
        self._named = {segment: levels.keys() | {OTHERS, MISSING} for segment, levels in known.items()}
        self._levels: By[_Level] = {
            segment: {level: _opened(of.hours, of.customs) for level, of in levels.items() if of.hours}
            for segment, levels in known.items()
        }
        self._segments = [segment.name for segment in segments]
        self._inputs = {
            *(reference.inputs if reference and len(known) == len(cut) else affordable(inputs, most_levels(segments))),
            SCORE,
        }

    def count(self, columns: Sequence[Column], times: Ints, levels: Sequence[Mapping[str, str]]) -> By[Apart]:
        """Of a batch of rows at `times` (microseconds); `levels`: of each row by segment."""
        counted = [column for column in columns if column.name in self._inputs]
        found: By[Apart] = {}
        for segment in self._segments:
            named = self._named.get(segment)
            said = [each[segment] for each in levels]
            if named is not None:
                said = [level if level in named else OTHERS for level in said]
            known = {level: at for at, level in enumerate(sorted(set(said)))}
            codes = np.array([known[level] for level in said], np.int64)
            apart = [Apart() for _ in known]
            for column in counted:
                _count(column, codes, apart)
            for level, at in known.items():
                of = self._levels.get(segment, {}).get(level)
                if of is not None:
                    parts, n = np.unique(of.group[hour_of_week(times[codes == at])], return_counts=True)
                    apart[at].parts = dict(zip(parts.tolist(), n.tolist(), strict=True))
            found[segment] = folded(dict(zip(known, apart, strict=True)), lambda a, b: a + b)
        return found

    def told(self, found: Mapping[str, Mapping[str, Apart]]) -> By[LevelCounts]:
        """As it is reported: with what the reference makes expect of the same answers."""
        return {
            segment: {level: self._told(self._levels.get(segment, {}).get(level), apart) for level, apart in levels.items()}
            for segment, levels in sorted(found.items())
        }

    def _told(self, of: _Level | None, apart: Apart) -> LevelCounts:
        if of is None or not apart.parts:
            return LevelCounts(inputs=apart.inputs, summed=apart.summed)
        places, n = np.fromiter(apart.parts.keys(), np.int64), np.fromiter(apart.parts.values(), np.int64)
        return LevelCounts(
            inputs=apart.inputs,
            summed=apart.summed,
            expected={name: (n @ shares[places]).tolist() for name, shares in of.shares.items()},
            hours={part: [count, int(of.rows[part])] for part, count in sorted(apart.parts.items())},
            customs=of.customs,
        )


def _opened(hours: bytes, customs: dict[int, dict[str, float]]) -> _Level:
    found = Hours.opened(hours)
    return _Level(found.group, found.rows, {name: found.shares(name).astype(np.int32) for name in found.counts}, customs)


def _count(column: Column, codes: Ints, into: Sequence[Apart]) -> None:
    """Count a column by the codes (rows,) of its rows, all levels at once."""
    name, numbers, values, summed = column
    width, n = numbers.missing_cell + 1, len(into)
    table = np.bincount(codes * width + numbers.cells(values), minlength=n * width).reshape(n, width)
    for apart, counts in zip(into, table.tolist(), strict=True):
        apart.inputs[name] = counts
    if not summed:
        return
    finite = np.isfinite(values)
    values, codes = values[finite].astype(np.float64), codes[finite]
    steps = numbers.steps(values)
    rows = np.bincount(codes, minlength=n)
    sums, squares = np.bincount(codes, steps, n), np.bincount(codes, steps * steps, n)  # whole numbers: exact
    least, greatest = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(least, codes, values)
    np.maximum.at(greatest, codes, values)
    for at, apart in enumerate(into):
        there = rows[at] > 0
        apart.summed[name] = Summed(
            n=int(rows[at]),
            steps=int(sums[at]),
            squares=int(squares[at]),
            least=float(least[at]) if there else None,
            greatest=float(greatest[at]) if there else None,
            centre=numbers.centre,
            unit=numbers.unit,
        )
