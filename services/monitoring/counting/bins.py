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

from .apart import Apart, Aside, Column
from .moments import summed

__all__ = ["Binned", "Binner"]


class Binned(NamedTuple):
    """Of some answers: counts per bin by input, answers per part of the week (none without a reference by hours), sums by input,
    how many rows could not be read (they are counted nowhere else), and the same by segment and level."""

    counts: dict[str, list[int]]
    parts: dict[int, int]
    summed: dict[str, Summed]
    unread: int
    levels: dict[str, dict[str, Apart]]


class Binner:
    """Counts batches of inputs, still as JSON objects. Inputs whose reference does not fit their edges are left out:
    there is nothing to compare them with. `scores`: edges between bins of the version's answers; `aside` counts them by level."""

    def __init__(
        self,
        edges: Mapping[str, Sequence[float]],
        reference: Mapping[str, Sequence[int]],
        hours: Hours | None = None,
        spread: Mapping[str, float] | None = None,
        grid: Mapping[str, Sequence[float]] = MappingProxyType({}),
        scores: Sequence[float] = (),
        customs: Mapping[int, Mapping[str, float]] | None = None,
        aside: Aside | None = None,
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
        self._aside = aside
        self.read: tuple[Matrix, list[int]] = self._decoder.readable([])
        """What was counted last, in the order of `reference`: the rows that could be read, and their places."""

    def _bins(self, name: str, edges: Sequence[float]) -> Numbers:
        centre, unit = self._grid.get(name, (0.0, 1.0))
        return Numbers(edges=tuple(edges), centre=centre, unit=unit, counts=())

    def count(
        self,
        rows: Sequence[Any],
        times: Sequence[int],
        scores: Sequence[float | None] = (),
        levels: Sequence[Mapping[str, str]] = (),
    ) -> Binned:
        """Of rows with the times of their events, the version's own scores, and their levels by segment."""
        matrix, readable = self.read = self._decoder.readable(rows)
        columns = [Column(name, of, matrix[:, at], name in self._grid) for at, (name, of) in enumerate(self._numbers.items())]
        apart = columns
        if self._scores is not None and len(scores):
            said = np.array(scores, np.float64)
            columns = [*columns, Column(SCORE, self._scores, said, SCORE in self._grid)]
            apart = [*apart, Column(SCORE, self._scores, said[readable], SCORE in self._grid)]
        counts, sums = dict[str, list[int]](), dict[str, Summed]()
        for name, numbers, values, known in columns:
            vector = numbers.count(values)
            counts[name] = vector[: numbers.missing_cell + 1].tolist()
            if known:
                sums[name] = summed(numbers, vector, values)
        when = np.asarray(times, np.int64)[readable]
        by = self._aside.count(apart, when, [levels[at] for at in readable]) if self._aside and levels else {}
        return Binned(counts, self._parts(when), sums, len(rows) - len(readable), by)

    def told(self, found: Mapping[str, Mapping[str, Apart]]) -> dict[str, Any]:
        """What was counted by level, as fields of a Partial; none where no segment is declared."""
        return {"levels": self._aside.told(found), "mix": self._aside.mix} if self._aside else {}

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
