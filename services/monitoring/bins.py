"""Bins: how often each input fell where, against one version's reference edges (see penstock.inputs.counted), and what the
reference makes expect of the same answers.

Counts add across partitions and batches exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from penstock.inputs import InputsDecoder, counted
from penstock.statistics.hours import Hours, Ints, hour_of_week

__all__ = ["Binner"]


class Binner:
    """Counts batches of inputs, still as JSON objects. Inputs whose reference does not fit their edges are left out:
    there is nothing to compare them with."""

    def __init__(
        self,
        edges: Mapping[str, Sequence[float]],
        reference: Mapping[str, Sequence[int]],
        hours: Hours | None = None,
        spread: Mapping[str, float] | None = None,
        customs: Mapping[int, Mapping[str, float]] | None = None,
    ) -> None:
        fit = [name for name in sorted(edges) if len(reference.get(name, ())) == len(edges[name]) + 2]
        self._edges = {name: np.asarray(edges[name], np.float64) for name in fit}
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

    def count(self, rows: Sequence[Any], times: Sequence[int]) -> tuple[dict[str, list[int]], dict[int, int], int]:
        """Of rows with the times of their events: counts per bin by input, rows per part of the week (none without a reference by
        hours), and how many rows could not be read (they are counted nowhere else)."""
        readable = list(range(len(rows)))
        try:
            matrix = self._decoder.matrix(rows)
        except msgspec.MsgspecError:
            readable = [at for at, row in enumerate(rows) if self._fits(row)]
            matrix = self._decoder.matrix([rows[at] for at in readable])
        columns = zip(self._edges.items(), matrix.T, strict=True)
        counts = {name: counted(column, edges) for (name, edges), column in columns}
        return counts, self._parts(np.asarray(times, np.int64)[readable]), len(rows) - len(readable)

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

    def _fits(self, row: Any) -> bool:
        try:
            self._decoder.matrix([row])
        except msgspec.MsgspecError:
            return False
        return True
