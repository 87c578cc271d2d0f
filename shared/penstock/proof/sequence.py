"""What the cursors of rows tell about the order in which one hop processed its events. Pure.

Row R of a hop partition has n events of it before it. So the *rows* that precede R are known (those with smaller cursors), and
how many other events, m, do. As long as each source keeps to the times that it closed, events are processed in the order of
positions (see `past`), and so that says which. Where it contradicts the cursor of R, a source was late as a whole: its publisher
had closed a time and then published earlier events, or it was silent and passed. Then R has of each source what came first, some
events fewer or more than the order of positions gives, m in all; every such choice is offered, the nearest first. Where nothing
is in doubt nothing is offered but the order of positions: a value that was tampered with is not to find an excuse. In doubt it
may, where another order that agrees with the cursor gives it together with all other values of the view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from .history import History, Past

__all__ = ["Passage"]

Ints = npt.NDArray[np.int64]

CHOICES: Final = 200
"""So many guesses at what was before a row, of 0.1 ms each. Where 30 % of all events were late, the right one was among them."""
AROUND: Final = 16
"""So many rows on both sides of a contradiction are in doubt, and so many events of the entity on both sides of one that came
out of order in its own source: two that are missing on one side and too many on the other cancel in the counts."""
CONSIDERED: Final = 40_000
"""Combinations that are looked at, to find those that agree with the cursor."""


class Passage:
    """One hop. `cursors` is, by event, how many events the hop partition had processed before it, -1 where no row tells."""

    def __init__(self, past: Past, history: History, cursors: Ints) -> None:
        self._past, self._history, self._cursors = past, history, cursors
        self._told = (cursors >= 0) & (history.entities >= 0)
        """Events of which it is known how many were before them."""
        self._doubted = np.zeros(len(past), bool)
        """Of each row's event, whether cursors contradict the order of positions there or close by."""
        self._rows: dict[int, Ints] = {}
        """Per partition the cursors of its rows, sorted."""
        self._others: dict[int, Ints] = {}
        """Per partition the places of the other events, sorted."""
        self._lengths: dict[int, dict[int, int]] = {}
        """Per partition how many other events of each source it has."""
        self._nth = np.full(len(past), -1, np.int64)
        """Of every other event, how many of its source came to this partition before it."""
        for number in np.unique(history.partitions[history.partitions >= 0]).tolist():
            here = history.partitions == number
            told, others = np.flatnonzero(here & self._told), np.flatnonzero(here & ~self._told)
            told = told[np.argsort(cursors[told])]
            rows, before = np.sort(past.by_position[told]), np.sort(past.by_position[others])
            self._rows[number], self._others[number] = cursors[told], before
            places, n = past.by_position[told], np.arange(len(told))
            wrong = (np.searchsorted(rows, places) != n) | (np.searchsorted(before, places) != cursors[told] - n)
            if len(told):
                self._doubted[told] = np.convolve(wrong, np.ones(2 * AROUND + 1))[AROUND : AROUND + len(told)] > 0.5
            self._lengths[number] = {}
            for source in np.unique(past.sources[others]).tolist():
                own = others[past.sources[others] == source]
                self._nth[own[np.argsort(past.offsets[own])]] = np.arange(len(own))
                self._lengths[number][source] = len(own)

    def missing(self, event: int) -> int:
        """How many events its cursor counts beyond those that are archived and lie before it; 0 when no cursor tells."""
        if not self._told[event]:
            return 0
        others = self._others[int(self._history.partitions[event])]
        return max(0, self._silent(event) - int(np.searchsorted(others, self._past.by_position[event])))

    def _silent(self, event: int) -> int:
        """How many others its cursor counts: all less the rows."""
        rows = self._rows[int(self._history.partitions[event])]
        return int(self._cursors[event] - np.searchsorted(rows, self._cursors[event]))

    def doubted(self, entity: int, event: int) -> bool:
        """Whether something close to a row contradicts the order of positions, or came out of order."""
        own = self._history.of(entity)
        at = int(np.count_nonzero(self._past.by_position[own] < self._past.by_position[event]))
        near = own[max(0, at - AROUND) : at + AROUND]
        disordered = bool((self._past.moved[near] > self._past.times[near]).any())
        return bool(self._doubted[event]) or (disordered and bool(self._told[event]))

    def choices(self, entity: int, event: int) -> Iterator[Ints]:
        """What of an entity may have been processed before the row of `event`, in order; the likeliest first."""
        own = self._history.of(entity)
        yield own[self._past.by_position[own] < self._past.by_position[event]]
        if not self.doubted(entity, event):
            return
        rows = self._told[own] & (self._cursors[own] < self._cursors[event])
        others = ~self._told[own]
        lengths = dict(self._lengths[int(self._history.partitions[event])])
        queues = []
        for source in np.unique(self._past.sources[own[others]]).tolist():
            queue = own[others & (self._past.sources[own] == source)]
            queues.append((queue[np.argsort(self._past.offsets[queue])], lengths.pop(source)))
        elsewhere = sum(lengths.values())
        for taken in self._cuts(queues, self._silent(event), elsewhere, int(self._past.by_position[event])):
            first = [queue[:count] for (queue, _), count in zip(queues, taken, strict=True)]
            yield own[rows | np.isin(own, np.concatenate([np.empty(0, np.int64), *first]))]

    def _cuts(self, queues: list[tuple[Ints, int]], m: int, elsewhere: int, place: int) -> Iterator[tuple[int, ...]]:
        """How many events of each queue may be before a row that has m others, the nearest to the order of positions first. A
        queue is the entity's events of one source, and how many that source has here; the other sources have `elsewhere`."""
        reach = max(1, int(CONSIDERED ** (1 / max(len(queues), 1)) / 2))
        counts, least, most, usual = [], [], [], []
        for queue, length in queues:
            nominal = int(np.count_nonzero(self._past.by_position[queue] < place))
            count = np.arange(max(0, nominal - reach), min(len(queue), nominal + reach) + 1)
            nth = self._nth[queue]
            counts.append(count)
            least.append(np.append(0, nth + 1)[count])  # with `count` of the entity's, at least so many of the source's
            most.append(np.append(nth, length)[count])
            usual.append(nominal)
        if not queues:
            return
        grids, low, high = (_combined(ranges) for ranges in (counts, least, most))
        far = np.abs(grids - np.array(usual)).sum(1)
        right = np.flatnonzero((low.sum(1) <= m) & (m <= high.sum(1) + elsewhere))
        for taken in grids[right[np.argsort(far[right], kind="stable")][:CHOICES]].tolist():
            yield tuple(taken)


def _combined(ranges: list[Ints]) -> Ints:
    """Every combination of one number of each range; (combinations, ranges)."""
    return np.stack([grid.ravel() for grid in np.meshgrid(*ranges, indexing="ij")], 1)
