"""Reference: what one column was like, as cells into which later values are counted.

    Numbers   bins at the quantiles of the reference, both ends open, and a cell of missing values
    Levels    a cell for each level, one for the levels that have no name here, and one of missing values

Counts are one vector of int64 per column: `a + b` joins two batches, partitions or days, `a - b` takes one back, both
exactly, so no border of a batch or partition shows in a result. A vector of Numbers is at most 100 words, 800 bytes.

A level is named because the reference holds it, which makes it look more frequent there than it is (the winner's
curse), and what is not named looks rare. Where that matters, because some levels occur fewer than LEAST_LEVEL times or
there are more than MOST_LEVELS, names are chosen on the even rows and counted on the odd ones: then what has no name has
its true share on both sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import PenstockError

__all__ = ["BINS", "FEW_BINS", "LEAST_LEVEL", "MOST_LEVELS", "Cells", "Counts", "Levels", "Moments", "Numbers", "Reference",
           "edges_of", "pack", "unpack"]  # fmt: skip

Counts: TypeAlias = npt.NDArray[np.int64]
"""Of a batch, in the layout of its reference."""
Cells: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]
"""Counts without what follows the cells; weighted ones (like with like) are no integers."""
Floats: TypeAlias = npt.NDArray[np.float64]

VERSION: Final = 1
"""Of the packed form and of the layout of counts."""
BINS: Final = 96
"""With missing, infinite and two sums: 100 words. A distance read from 96 bins is low by at most 1/96 of the mass."""
MOST_LEVELS: Final = 1_000
LEAST_LEVEL: Final = 5
"""A level that is expected five times is seen in 99 of 100 references: being named says nothing about it."""
FEW_BINS: Final = 20
"""Of inputs and scores on the stream: a fifth of the bytes in each record, and measured (a shift of the mean, of the scale, of a
tail; many zeros): with the mean rank asked beside the distance, no later and no more false alarms than 32 or 96 bins have."""
FINE: Final = 256.0
"""Steps in one standard deviation: sums are of steps, integers, and so exact. A mean is right to 1/512 of a deviation."""
LIMIT: Final = 65_536.0
"""Steps that a value counts in sums at most, 256 deviations: 2**31 values of the greatest square fit in a word."""
NEAR: Final = 8_192
"""Values that are counted at once: 64 kB, which the allocator still has at hand; shows in no result."""


class Moments(NamedTuple):
    """Of the finite values, those beyond 256 deviations held there."""

    n: int
    mean: float | None
    std: float | None


class Numbers(msgspec.Struct, frozen=True, tag="numbers", kw_only=True, dict=True):
    """Counts: a bin for x < edges[0], for edges[i] <= x < edges[i + 1], for edges[-1] <= x; missing (NaN); then how many
    were infinite (they are in the end bins, too), the sum and the squares of (x - centre) / unit, rounded.

    >>> year = Numbers.of(np.arange(1000.0))
    >>> week = year.count(np.array([3.0, 500.0, np.nan, np.inf]))
    >>> len(year.edges), int(week[year.missing_cell]), int(week.sum() == year.body(week).sum())
    (95, 1, 0)
    >>> round(year.moments(week).mean or 0), year.moments(week).n
    (251, 2)
    """

    edges: tuple[float, ...]
    centre: float
    unit: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: npt.ArrayLike, bins: int = BINS) -> Numbers:
        """Of the values of a column, (rows,), any real dtype; NaN is missing. No finite value at all: one open bin."""
        wide = np.asarray(values, np.float64)
        edges = edges_of(wide, bins)
        centre, unit = _grid(wide)
        made = cls(edges=tuple(edges), centre=centre, unit=unit, counts=())
        return msgspec.structs.replace(made, counts=tuple(made.count(wide).tolist()))

    @property
    def missing_cell(self) -> int:
        return len(self.edges) + 1

    @property
    def width(self) -> int:
        """Words of a vector of counts."""
        return len(self.edges) + 5

    @cached_property
    def own(self) -> Counts:
        """The counts of the reference itself."""
        return np.array(self.counts, np.int64)

    @cached_property
    def _borders(self) -> Floats:
        return np.array(self.edges, np.float64)

    def cells(self, values: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """The cell of each value."""
        wide = np.asarray(values, np.float64)
        found = np.searchsorted(self._borders, wide, "right")  # NaN comes last, beside the last bin
        gone = np.isnan(wide)
        if gone.any():
            found[gone] = self.missing_cell
        return found

    def steps(self, finite: Floats) -> Floats:
        """What each finite value counts in sums: whole numbers."""
        with np.errstate(over="ignore"):
            found = (finite - self.centre) / self.unit
        np.rint(found, out=found)
        return np.clip(found, -LIMIT, LIMIT, out=found)

    def count(self, values: npt.ArrayLike) -> Counts:
        """The counts of a batch, (rows,)."""
        wide = np.asarray(values, np.float64)
        made = np.zeros(self.width, np.int64)
        for start in range(0, len(wide), NEAR):
            near = wide[start : start + NEAR]
            made[: self.missing_cell + 1] += np.bincount(self.cells(near), minlength=self.missing_cell + 1)
            finite = np.isfinite(near)
            if not finite.all():
                made[-3] += np.count_nonzero(np.isinf(near))
                near = near[finite]
            steps = self.steps(near)
            made[-2] += int(steps.sum())  # whole numbers below 2**53: floats add them exactly
            made[-1] += int(steps @ steps)
        return made

    def body(self, counts: Cells) -> Cells:
        """The cells of what is present."""
        return counts[: self.missing_cell]

    def missing(self, counts: Cells) -> float:
        return float(counts[self.missing_cell])

    def infinite(self, counts: Counts) -> int:
        return int(counts[-3])

    def moments(self, counts: Counts) -> Moments:
        n = int(self.body(counts).sum()) - self.infinite(counts)
        if n <= 0:
            return Moments(0, None, None)
        mean, squares = int(counts[-2]) / n, int(counts[-1]) / n
        spread = max(squares - mean * mean, 0.0) * n / (n - 1) if n > 1 else None
        return Moments(n, self.centre + self.unit * mean, None if spread is None else self.unit * float(np.sqrt(spread)))


class Levels(msgspec.Struct, frozen=True, tag="levels", kw_only=True, dict=True):
    """Counts: a cell for each named level, the most frequent first; one for all others; missing (None).

    >>> colours = Levels.of(["red"] * 60 + ["blue"] * 30 + [None] * 10)
    >>> colours.names, colours.counts, colours.count(["blue", "green", None]).tolist()
    (('red', 'blue'), (60, 30, 0, 10), [0, 1, 1, 1])
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    distinct: int
    """Different levels in all rows of the reference."""
    halved: bool = False
    """Whether `counts` are of the odd rows only."""

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Levels:
        """Of the values of a column; None is missing."""
        places: dict[str, int] = {}
        codes = [-1 if value is None else places.setdefault(value, len(places)) for value in values]
        return cls.of_codes(np.array(codes, np.int64), list(places))

    @classmethod
    def of_codes(cls, codes: npt.NDArray[np.integer[Any]], levels: Sequence[str]) -> Levels:
        """Of places in `levels`, -1 where missing, as pandas.factorize and Arrow dictionaries have them."""
        often = np.bincount(codes[codes >= 0], minlength=len(levels))
        there = np.count_nonzero(often)
        rare = bool(there > MOST_LEVELS or (there and often[often > 0].min() < LEAST_LEVEL))
        if rare:
            often = np.bincount(codes[::2][codes[::2] >= 0], minlength=len(levels))
        ranked = sorted(np.flatnonzero(often).tolist(), key=lambda at: (-int(often[at]), levels[at]))[:MOST_LEVELS]
        made = cls(names=tuple(levels[at] for at in ranked), counts=(), distinct=int(there), halved=rare)
        return msgspec.structs.replace(made, counts=tuple(made.count_codes(codes[made.rows], levels).tolist()))

    @property
    def rows(self) -> slice:
        """The rows of the reference that `counts` are of."""
        return slice(1, None, 2) if self.halved else slice(None)

    @property
    def other_cell(self) -> int:
        return len(self.names)

    @property
    def missing_cell(self) -> int:
        return len(self.names) + 1

    @property
    def width(self) -> int:
        return len(self.names) + 2

    @cached_property
    def own(self) -> Counts:
        """The counts of the reference itself."""
        return np.array(self.counts, np.int64)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: at for at, name in enumerate(self.names)}

    def cells(self, codes: npt.NDArray[np.integer[Any]], levels: Sequence[str]) -> npt.NDArray[np.intp]:
        """The cell of each code; see `of_codes`."""
        places, other = self._places, self.other_cell
        cell_of = np.array([*(places.get(level, other) for level in levels), self.missing_cell], np.intp)
        return np.asarray(cell_of[codes], np.intp)  # -1 is the last of them

    def count_codes(self, codes: npt.NDArray[np.integer[Any]], levels: Sequence[str]) -> Counts:
        often = np.bincount(np.where(codes < 0, len(levels), codes), minlength=len(levels) + 1)
        cells = self.cells(np.append(np.arange(len(levels)), -1), levels)
        return np.bincount(cells, often, self.width).astype(np.int64)

    def count(self, values: Iterable[str | None]) -> Counts:
        """The counts of a batch."""
        made, places = np.zeros(self.width, np.int64), self._places
        for value, times in Counter(values).items():
            made[self.missing_cell if value is None else places.get(value, self.other_cell)] += times
        return made

    def body(self, counts: Cells) -> Cells:
        """The cells of what is present."""
        return counts[: self.missing_cell]

    def missing(self, counts: Cells) -> float:
        return float(counts[self.missing_cell])


Reference: TypeAlias = Numbers | Levels


def edges_of(values: Floats, bins: int = BINS) -> list[float]:
    """Edges between at most `bins` bins of about equal count, ascending; none without finite values.

    A value that fills more than one bin has one of its own, and so has every value where there are few, with an empty bin
    beyond each end. An edge lies half-way between two values that occur, never on one, so that rounding a value (float32
    in training, the JSON number in monitoring) does not move it to another bin.

    >>> edges_of(np.array([1.0, 1.0, 2.0, 4.0]))
    [0.5, 1.5, 3.0, 5.0]
    """
    present = np.sort(values[np.isfinite(values)])
    if not len(present):
        return []
    first = np.flatnonzero(np.concatenate(([True], present[1:] > present[:-1])))  # where another value begins
    if len(first) <= bins - 2:
        found = present[first]
        least, greatest = float(found[0]), float(found[-1])
        below, above = _beside(found[:2], least), _beside(found[-2:], greatest)
        return [least - below, *(found[:-1] / 2 + found[1:] / 2).tolist(), greatest + above]
    cuts, times = np.unique(present[np.arange(1, bins) * len(present) // bins], return_counts=True)
    borders = np.unique(
        np.concatenate((np.searchsorted(present, cuts, "left"), np.searchsorted(present, cuts[times > 1], "right")))
    )
    borders = borders[(borders > 0) & (borders < len(present))]
    return np.unique(present[borders - 1] / 2 + present[borders] / 2).tolist()  # type: ignore[no-any-return]


def _beside(pair: Floats, value: float) -> float:
    """How far from an outermost value its bin ends: half-way as far as its neighbour, else more than float32 rounds."""
    if len(pair) == 2:
        return float(pair[1] / 2 - pair[0] / 2)
    return max(abs(value) * 1e-6, float(np.finfo(np.float32).tiny))


def _grid(values: Floats) -> tuple[float, float]:
    """Centre and unit of the sums: the median, and a fraction of the standard deviation; of the values but the outermost
    thousandths, as one of 1e9 would leave nothing of the others, or of all where those do not vary."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, centre, high = (float(q) for q in np.quantile(finite, (0.001, 0.5, 0.999)))
    with np.errstate(over="ignore", invalid="ignore"):
        found = (float(held.std()) for held in (np.clip(finite, low, high), finite))
        spread = next((each for each in found if 0 < each < np.inf), abs(centre) or 1.0)
    return centre, max(spread / FINE, float(np.finfo(np.float64).tiny))


def pack(reference: Reference) -> bytes:
    """As bytes; `unpack` is the inverse. Equal references give equal bytes."""
    return msgspec.msgpack.encode([VERSION, reference])


def unpack(stored: bytes) -> Reference:
    """PenstockError where another version of Penstock packed them."""
    version, rest = msgspec.msgpack.decode(stored, type=tuple[int, msgspec.Raw])
    if version != VERSION:
        raise PenstockError(f"this reference has version {version}, and this Penstock reads version {VERSION}", "make it anew")
    found: Reference = msgspec.msgpack.decode(rest, type=Reference)
    return found
