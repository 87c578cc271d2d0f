"""Novelty: how far out an answer's inputs lie in the tails of what a version was fitted on, from counts alone.

Of one input, each halving of a tail of the reference is a bit: a value beyond which lies less than a quarter of the rows has one,
beyond which lies less than an eighth of them two, and so on; beyond every row it is outside, and has all. A missing value has the
bits of its rarity. An answer's score is the sum over its inputs (ECOD: Li, Zhao, Hu, Botta, Ionescu, Chen 2022, with tails in
halvings); its level is by how many halvings of the reference's own scores it is beyond, so that it is known how often an answer
like the reference reaches each level: level 7 once in 128 answers. Whole numbers throughout: counts of levels add.

A single value, however great, has no more bits than one just outside: it neither hides nor invents a shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..inputs import Matrix
from ..records import Oddity, Profile, Tails, Unseen
from .quality import added

__all__ = ["HALVINGS", "MOST_ODD", "NOVEL", "Novelty", "added_unseen", "novel", "profile_of"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

HALVINGS: Final = 12
"""A tail is divided down to one row in 4096: below, 22 numbers an input tell enough."""
NOVEL: Final = 7
"""The level from which an answer is novel: one in 128 of the reference."""
MOST_ODD: Final = 5
"""Answers that are kept as examples, and inputs that are named of each."""


def profile_of(names: Sequence[str], X: Matrix) -> Profile:  # noqa: N803
    """Of the rows that a version is fitted on, float32 (rows, inputs). Infinite values are of no row: they are outside."""
    tails = {name: _tails(X[:, i]) for i, name in enumerate(names)}
    bare = Novelty(Profile(rows=len(X), tails=tails, scores=[], levels=[]))
    scores = np.sort(bare.bits(X).sum(1))
    upper = [int(scores[len(scores) - _rows(len(scores), j)]) for j in range(1, _depth(len(X)) + 1)] if len(X) else []
    levels = np.bincount(np.searchsorted(upper, scores, "left"), minlength=len(upper) + 1)
    return Profile(rows=len(X), tails=tails, scores=upper, levels=levels.tolist())


def _depth(rows: int) -> int:
    """How many halvings of so many rows leave some."""
    return min(max(int(rows - 1).bit_length(), 2), HALVINGS)


def _rows(rows: int, halvings: int) -> int:
    """How many are left; the last halving always leaves one, so that what is beyond it is beyond all."""
    return 1 if halvings == _depth(rows) else -(-rows >> halvings)


def _tails(values: npt.NDArray[np.floating[Any]]) -> Tails:
    present = np.sort(values[np.isfinite(values)].astype(np.float64))
    left = [_rows(len(present), j) for j in range(2, _depth(len(present)) + 1)] if len(present) else []
    return Tails(
        low=[float(present[n - 1]) for n in reversed(left)],
        high=[float(present[len(present) - n]) for n in left],
        missing=int(np.isnan(values).sum()),
    )


class Novelty:
    """The novelty of answers against the profile of a version.

    >>> rows = np.arange(1000, dtype=np.float32)[:, None]
    >>> year = Novelty(profile_of(["speed"], rows))
    >>> year.bits(np.array([[500.0], [200.0], [998.0], [1e9], [np.nan]], np.float32)).ravel().tolist()
    [0, 1, 7, 9, 9]
    """

    def __init__(self, profile: Profile) -> None:
        self.profile, self.names = profile, tuple(profile.tails)
        self._tails = [(np.array(t.low, np.float64), np.array(t.high, np.float64)) for t in profile.tails.values()]
        self._most = max(_depth(profile.rows) - 1, 1)
        self._missing = [self._rarity(tails.missing) for tails in profile.tails.values()]
        self._least = np.array([low[0] if len(low) else np.inf for low, _ in self._tails])[:, None]
        self._greatest = np.array([high[-1] if len(high) else np.inf for _, high in self._tails])[:, None]
        self._always = np.array([not tails.missing for tails in profile.tails.values()], bool)

    def _rarity(self, missing: int) -> int:
        rows = self.profile.rows
        return self._most if not missing else min(max((rows // missing).bit_length() - 1, 0), self._most)

    def bits(self, X: Matrix) -> Ints:  # noqa: N803
        """Of rows float32 (rows, inputs): the bits of each value, int64 of the same shape."""
        return self._bits(np.ascontiguousarray(X.T, np.float64)).T

    def _bits(self, columns: Floats) -> Ints:
        found = np.empty(columns.shape, np.int64)
        for values, bits, (low, high), missing in zip(columns, found, self._tails, self._missing, strict=True):
            if len(low):
                np.subtract(np.searchsorted(high, values, "left"), np.searchsorted(low, values, "right") - len(low), out=bits)
            else:
                bits[:] = self._most  # no row had a value
            bits[np.isnan(values)] = missing
        return found

    def levels(self, scores: Ints) -> Ints:
        """The level of each score (rows,)."""
        return np.searchsorted(self.profile.scores, scores, "left")

    def unseen(self, ids: Sequence[str], X: Matrix) -> Unseen:  # noqa: N803
        """The counts of answers `ids` to rows float32 (rows, inputs)."""
        columns = np.ascontiguousarray(X.T, np.float64)
        bits = self._bits(columns)
        scores = bits.sum(0)
        levels = self.levels(scores)
        below, above = columns < self._least, columns > self._greatest
        odd = np.flatnonzero((levels >= NOVEL) | below.any(0) | above.any(0))
        gone = np.isnan(columns).sum(1) * self._always
        counts = zip(self.names, below.sum(1).tolist(), above.sum(1).tolist(), gone.tolist(), strict=True)
        return Unseen(
            answers=len(X),
            levels=np.bincount(levels, minlength=len(self.profile.levels)).tolist(),
            expected=list(self.profile.levels),
            outside={name: each for name, *each in sorted(counts) if any(each)},
            oddest=self._oddest(odd, ids, columns, bits, scores, levels),
            inputs=len(self.names),
        )

    def _oddest(self, odd: Ints, ids: Sequence[str], columns: Floats, bits: Ints, scores: Ints, levels: Ints) -> list[Oddity]:
        if len(odd) > MOST_ODD:
            least = np.partition(scores[odd], -MOST_ODD)[-MOST_ODD]
            odd = odd[scores[odd] >= least]
        found = []
        for row in sorted(odd.tolist(), key=lambda row: (-scores[row], ids[row]))[:MOST_ODD]:
            of = bits[:, row]
            first = [at for at in np.lexsort((np.arange(len(of)), -of)).tolist() if of[at]][:MOST_ODD]
            values = {self.names[at]: [_plain(columns[at, row]), int(of[at])] for at in first}
            found.append(Oddity(id=ids[row], level=int(levels[row]), bits=int(scores[row]), inputs=values))
        return found


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def added_unseen(a: Mapping[str, Unseen], b: Mapping[str, Unseen]) -> dict[str, Unseen]:
    """Two shares of a window as one, by version."""
    both = {version: _together(a[version], b[version]) for version in a.keys() & b.keys()}
    return dict(sorted({**a, **b, **both}.items()))


def _together(a: Unseen, b: Unseen) -> Unseen:
    oddest = sorted((*a.oddest, *b.oddest), key=lambda odd: (-odd.bits, odd.id))[:MOST_ODD]
    levels, outside = added(a.levels, b.levels), added(a.outside, b.outside)
    answers, inputs = a.answers + b.answers, max(a.inputs, b.inputs)
    return Unseen(answers=answers, levels=levels, expected=a.expected, outside=outside, oddest=oddest, inputs=inputs)


def novel(levels: Sequence[int]) -> int:
    """How many answers are novel, of counts by level."""
    return sum(levels[NOVEL:])
