"""Bins: how often each input of a version's answers, and the answers themselves, fell where, against the version's reference (see
penstock.statistics.reference), and what the reference makes expect of the same answers.

Counts add across partitions and batches exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from penstock.inputs import InputsDecoder, Matrix
from penstock.policy import SCORE
from penstock.records import Summed
from penstock.statistics.hours import Hours, Ints, hour_of_week
from penstock.statistics.reference import Numbers

from .moments import summed

__all__ = ["Binned", "Binner"]


class Binned(NamedTuple):
    """Of some answers: counts per bin by input, answers per part of the week (none without a reference by hours), sums by input,
    and how many rows could not be read (they are counted nowhere else)."""

    counts: dict[str, list[int]]
    parts: dict[int, int]
    summed: dict[str, Summed]
    unread: int


class Binner:
    """Counts batches of inputs, still as JSON objects. Inputs whose reference does not fit their edges are left out:
    there is nothing to compare them with. `scores`: edges between bins of the version's answers."""

    def __init__(
        self,
        edges: Mapping[str, Sequence[float]],
        reference: Mapping[str, Sequence[int]],
        hours: Hours | None = None,
        spread: Mapping[str, float] | None = None,
        grid: Mapping[str, Sequence[float]] = MappingProxyType({}),
        scores: Sequence[float] = (),
        customs: Mapping[int, Mapping[str, float]] | None = None,
    ) -> None:
        fit = [name for name in sorted(edges) if len(reference.get(name, ())) == len(edges[name]) + 2]
        self._grid = grid
        self._numbers = {name: self._bins(name, edges[name]) for name in fit}
        self._scores = self._bins(SCORE, scores) if scores else None
        self.reference = {name: list(reference[name]) for name in fit}
        self.spread = {name: found for name, found in (spread or {}).items() if name in self.reference}
        self.customs = {
            length: {name: found for name, found in of.items() if name in self.reference}
            for length, of in (customs or {}).items()
        }
        if hours is not None and any(
            name not in hours.counts or hours.counts[name].shape[1] != len(reference[name]) for name in fit
        ):
            hours = None
        self._hours = hours
        self._shares: dict[str, Ints] = {name: hours.shares(name) for name in fit} if hours is not None else {}
        self._decoder = InputsDecoder(fit)
        self.read: tuple[Matrix, list[int]] = self._decoder.readable([])
        """What was counted last, in the order of `reference`: the rows that could be read, and their places."""

    def _bins(self, name: str, edges: Sequence[float]) -> Numbers:
        centre, unit = self._grid.get(name, (0.0, 1.0))
        return Numbers(edges=tuple(edges), centre=centre, unit=unit, counts=())

    def count(self, rows: Sequence[Any], times: Sequence[int], scores: Sequence[float | None] = ()) -> Binned:
        """Of rows with the times of their events and the version's own scores."""
        matrix, readable = self.read = self._decoder.readable(rows)
        columns = [(name, numbers, matrix[:, at]) for at, (name, numbers) in enumerate(self._numbers.items())]
        if self._scores is not None and len(scores):
            columns.append((SCORE, self._scores, np.array(scores, np.float64)))
        counts, sums = dict[str, list[int]](), dict[str, Summed]()
        for name, numbers, values in columns:
            vector = numbers.count(values)
            counts[name] = vector[: numbers.missing_cell + 1].tolist()
            if name in self._grid:
                sums[name] = summed(numbers, vector, values)
        return Binned(counts, self._parts(np.asarray(times, np.int64)[readable]), sums, len(rows) - len(readable))

    def _parts(self, times: Ints) -> dict[int, int]:
        if self._hours is None:
            return {}
        parts, n = np.unique(self._hours.group[hour_of_week(times)], return_counts=True)
        return dict(zip(parts.tolist(), n.tolist(), strict=True))

    def expected(self, parts: Mapping[int, int]) -> tuple[dict[str, list[int]], dict[int, list[int]]]:
        """What is expected of so many answers in each part of the week, and how many rows of the reference say so (see
        Partial)."""
        if self._hours is None or not parts:
            return {}, {}
        places, n = np.fromiter(parts.keys(), np.int64), np.fromiter(parts.values(), np.int64)
        expected = {name: (n @ shares[places]).tolist() for name, shares in self._shares.items()}
        return expected, {part: [count, int(self._hours.rows[part])] for part, count in sorted(parts.items())}
