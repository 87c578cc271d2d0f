"""The rows of a reference as they are compared with the current ones: whole, and part after part as it went along."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..statistics.reference import Floats, Levels, Numbers, Reference
from .columns import Values
from .likeness import Likeness

__all__ = ["FEWEST_PARTS", "MOST_PARTS", "Past"]

FEWEST_PARTS: Final = 8
MOST_PARTS: Final = 20
"""Of the reference, from which its habit is learnt: fewer say nothing, more only cost time."""


class _Part(NamedTuple):
    """Rows from `start` to `end`, and the weights of all rows before them (None: 1)."""

    start: int
    end: int
    before: Floats | None


class Past:
    """`rows` of the reference beside `window` current rows; weights are the same for all columns, and made once."""

    def __init__(self, rows: int, window: int, likeness: Likeness | None) -> None:
        self._rows, self._window, self._likeness = rows, window, likeness
        self._whole: dict[bool, Floats | None] = {}
        self._parts: dict[bool, list[_Part]] = {}

    def counts(self, reference: Reference, then: Values) -> Floats:
        """What the current rows are compared with: the reference's own counts, or weighted ones."""
        halved = isinstance(reference, Levels) and reference.halved
        if self._likeness is None:
            return reference.own.astype(np.float64)
        if halved not in self._whole:
            self._whole[halved] = self._likeness.weights(self._slots(halved), self._likeness.now)
        return _vector(reference, *_cells(reference, then), self._whole[halved])

    def went(self, reference: Reference, then: Values) -> Iterator[tuple[Floats, Floats]]:
        """Parts as long as the current rows, from the second third on, each with all that came before it, weighted to be like the
        part: what a comparison would have seen on the way. A trend shows in it, which a part left out of the middle hides."""
        halved = isinstance(reference, Levels) and reference.halved
        cells, infinite = _cells(reference, then)
        if halved not in self._parts:
            self._parts[halved] = list(self._cut(len(cells), halved))
        for start, end, before in self._parts[halved]:
            part = slice(start, end)
            yield (
                _vector(reference, cells[part], None if infinite is None else infinite[part]),
                _vector(reference, cells[:start], None if infinite is None else infinite[:start], before),
            )

    def _cut(self, rows: int, halved: bool) -> Iterator[_Part]:
        parts = int(np.clip(self._rows // max(self._window, 1), FEWEST_PARTS, MOST_PARTS))
        borders = [part * rows // parts for part in range(parts // 3, parts + 1)]
        for start, end in pairwise(borders):
            if start < end and start:
                slots = None if self._likeness is None else self._slots(halved)
                yield _Part(start, end, None if slots is None else self._likeness.weights(slots[:start], slots[start:end]))  # type: ignore[union-attr]

    def _slots(self, halved: bool) -> npt.NDArray[np.int64]:
        assert self._likeness is not None
        return self._likeness.then[1::2] if halved else self._likeness.then


def _cells(reference: Reference, then: Values) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_] | None]:
    """The cell of each row that the reference was counted from, and which are infinite, if any."""
    if isinstance(reference, Numbers):
        infinite = np.isinf(then.numbers)
        return reference.cells(then.numbers), infinite if infinite.any() else None
    return reference.cells(then.codes[reference.rows], then.levels), None


def _vector(
    reference: Reference, cells: npt.NDArray[np.intp], infinite: npt.NDArray[np.bool_] | None, weights: Floats | None = None
) -> Floats:
    """Counts in the layout of the reference; sums of values are left out."""
    made = np.zeros(reference.width)
    made[: reference.missing_cell + 1] = np.bincount(cells, weights, reference.missing_cell + 1)
    if infinite is not None:
        made[-3] = np.count_nonzero(infinite) if weights is None else float(weights[infinite].sum())
    return made
