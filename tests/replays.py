"""Columns of numbers under a drift monitor, as monitoring would see them answered: reference, windows, verdicts, alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.alarm import Watch
from penstock.duration import DAY
from penstock.policy import Drift
from penstock.services.monitoring.monitors.drifting import Counts, Habits, Period, drift
from penstock.services.trainer.reference import reference
from penstock.statistics.hours import Hours, hour_of_week
from penstock.statistics.reference import FEW_BINS, Numbers

Columns = npt.NDArray[Any]


def counted(values: npt.ArrayLike, edges: Sequence[float]) -> list[int]:
    """How many values fall to each bin, the last count of the missing."""
    column = Numbers(edges=tuple(edges), centre=0.0, unit=1.0, counts=())
    return column.count(values)[: column.missing_cell + 1].tolist()


@dataclass
class Watched:
    """One version's reference, and a monitor of it that goes from window to window."""

    monitor: Drift
    names: Sequence[str]
    X: Columns
    """(rows, inputs) of the reference."""
    times: npt.NDArray[np.int64]
    said: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    """State, end of the window, evidence."""

    def __post_init__(self) -> None:
        self.columns = {name: Numbers.of(self.X[:, i].astype(np.float32), FEW_BINS) for i, name in enumerate(self.names)}
        self.hours, self.customs = reference(self.X, self.times, self.columns, [self.monitor.every])
        self.shares = {name: self.hours.shares(name) for name in self.names}
        self.watch, self.habits = Watch(), Habits()

    def counts(self, window: Columns, times: npt.NDArray[np.int64]) -> Counts:
        """What a window of answers adds up to (see Binner)."""
        parts, n = np.unique(self.hours.group[hour_of_week(times)], return_counts=True)
        inputs, expected = {}, {}
        for i, name in enumerate(self.names):
            inputs[name] = counted(window[:, i], self.columns[name].edges)
            expected[name] = (n @ self.shares[name][parts]).tolist()
        hours = {int(part): [int(k), int(self.hours.rows[part])] for part, k in zip(parts, n, strict=True)}
        return Counts(inputs, expected, hours, customs=self.customs)

    def see(self, counts: Mapping[str, Counts] | Counts, end: int) -> None:
        """One period that ends then."""
        by = {"v1": counts} if isinstance(counts, Counts) else dict(counts)
        verdict, _ = drift(self.monitor, Period(0, by), self.habits, self.watch.active)
        if verdict.bad is not None and (word := self.watch.hear({0: verdict.bad}, end, verdict.again)):
            self.said.append((word, end, verdict.evidence))
            if word == "cleared":
                self.habits.forget()

    def replay(self, X: Columns, times: npt.NDArray[np.int64]) -> None:  # noqa: N803
        """All windows of rows in order of time."""
        window = times // self.monitor.every
        starts = np.flatnonzero(np.diff(window, prepend=window[0] - 1))
        for first, last in zip(starts, [*starts[1:], len(times)], strict=True):
            end = (int(window[first]) + 1) * self.monitor.every
            self.see(self.counts(X[first:last], times[first:last]), end)

    @property
    def raised(self) -> list[tuple[int, dict[str, Any]]]:
        return [(at, evidence) for state, at, evidence in self.said if state == "raised"]


def alarms_a_month(raised: Sequence[tuple[int, Any]], start: int, end: int) -> float:
    return sum(start < at <= end for at, _ in raised) * 30 * DAY / (end - start)


__all__ = ["Columns", "Hours", "Watched", "alarms_a_month", "counted"]
