"""Inputs: what a learner sees of a row, the same in training, serving and monitoring.

A row of inputs is a JSON object of numbers by name (null: missing), a matrix is float32 (rows, inputs) with NaN.

    InputsDecoder(names)       JSON objects -> matrix
    squashed(matrix)           what online learners see
    edges_of, counted          bins of one input at the quantiles of its reference
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "Floats", "InputsDecoder", "Matrix", "counted", "edges_of", "places_of", "squashed"]

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

BINS = 20
"""Bins of one input. Distances between distribution functions read from 20 bins are low by at most 1/20 of the mass."""


class InputsDecoder:
    """Decodes rows of inputs in bulk: 2 microseconds a row of 20."""

    def __init__(self, names: Sequence[str]) -> None:
        self.width = len(names)
        fields: list[Any] = [(f"c{i}", float | bool | None, None) for i in range(self.width)]
        row = msgspec.defstruct("Inputs", fields, rename={f"c{i}": name for i, name in enumerate(names)})
        self._rows = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]

    def matrix(self, rows: Sequence[bytes | memoryview | msgspec.Raw]) -> Matrix:
        """The rows in order, float32 (rows, inputs); raises msgspec.MsgspecError when one of them is no row of
        inputs."""
        decoded = self._rows.decode(b"[" + b",".join(rows) + b"]")
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            return np.array([msgspec.structs.astuple(row) for row in decoded], np.float32).reshape(-1, self.width)


def squashed(matrix: Matrix) -> Floats:
    """sign(v) log(1 + |v|), missing as 0, so that heavy tails do not throw a linear learner off.

    >>> squashed(np.array([[0.0, -1.0, np.nan]], np.float32)).round(3).tolist()
    [[0.0, -0.693, 0.0]]
    """
    wide = np.nan_to_num(matrix.astype(np.float64), nan=0.0)
    return np.asarray(np.copysign(np.log1p(np.abs(wide)), wide), np.float64)


def edges_of(values: npt.NDArray[np.floating[Any]]) -> list[float]:
    """Edges between bins of about equal count, at most BINS - 1 and ascending; none without values.

    A value that many rows share has a bin, and what is left is divided evenly among the bins that are left: of an input that is
    zero in 99 rows of 100 the hundredth row is seen too. Where all values are equal, one edge on each side of that value, so that
    any other will show. Else an edge lies half-way between two values that occur, never on one, so that rounding a value (float32
    in training, the JSON number in monitoring) does not move it to another bin.
    """
    present, counts = np.unique(np.asarray(values[np.isfinite(values)], np.float64), return_counts=True)
    if not len(present):
        return []
    if len(present) == 1:
        beside = max(abs(present[0]) * 1e-6, float(np.finfo(np.float32).tiny))  # more than rounding to float32 moves it
        return [float(present[0] - beside), float(present[0] + beside)]
    heaps = _heaps(counts)
    single = np.where(heaps, 0, counts)
    upto, following = np.cumsum(single), [*np.flatnonzero(heaps).tolist(), len(present)]
    edges: list[float] = []
    first = before = 0
    for left in range(BINS, 1, -1):
        if first == following[0]:
            last = following.pop(0)
        else:
            goal = before + (upto[-1] - before) / max(left - (len(following) - 1), 1)
            last = min(int(np.searchsorted(upto, goal)), following[0] - 1)
            if last > first and upto[last] - goal > goal - upto[last - 1]:
                last -= 1
        if last + 1 >= len(present):
            break
        edges.append(float((present[last] + present[last + 1]) / 2))
        first, before = last + 1, int(upto[last])
    return edges


def _heaps(counts: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Which values are so many that they fill a bin, once those that are more still have theirs."""
    heaps = np.zeros(len(counts), np.bool_)
    while True:
        found = counts >= np.sum(counts, where=~heaps) / max(BINS - heaps.sum(), 1)
        if not (found & ~heaps).any():
            return heaps
        heaps |= found


def places_of(values: npt.NDArray[np.floating[Any]], edges: Sequence[float] | Floats) -> npt.NDArray[np.int64]:
    """The bin of each value: with edges e0 < e1 < ..., x falls to bin i where e(i-1) <= x < e(i), ends open; what is missing to
    one more at the end."""
    wide = np.asarray(values, np.float64)
    places = np.searchsorted(np.asarray(edges, np.float64), wide, "right")
    places[np.isnan(wide)] = len(edges) + 1
    return places


def counted(values: npt.NDArray[np.floating[Any]], edges: Sequence[float] | Floats) -> list[int]:
    """How many values fall to each bin; the last count is of the missing.

    >>> counted(np.array([-5.0, 0.0, 0.5, 9.0, np.nan]), [0.0, 1.0])
    [1, 2, 1, 1]
    """
    return np.bincount(places_of(values, edges), minlength=len(edges) + 2).tolist()  # type: ignore[no-any-return]
