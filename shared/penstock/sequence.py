"""What the cursors of rows tell about the order in which one hop processed its events. Pure.

Row R of a hop partition has n events of it before it. So the *rows* that precede R are known (those with smaller cursors), and
how many other events, m, do. Which these are follows from two facts: a source is first in, first out, and sources are merged in
the order of positions (see `past`), unless one is late as a whole: its publisher had closed a time and then published
earlier events, or it was silent and passed. So R has all others that lie before it, less some of the newest of some sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from .past import History, Past

__all__ = ["Passage"]

Ints = npt.NDArray[np.int64]

CHOICES: Final = 5_000
"""So many guesses at which events a row missed; below ten have been seen, as sources are late by few events."""


class Passage:
    """One hop. `known` is, by event, how many events the hop partition had processed before it, -1 where no row tells."""

    def __init__(self, past: Past, history: History, known: Ints) -> None:
        self._past, self._history = past, history
        self._known = np.where(history.entities >= 0, known, -1)
        self._cursors = known
        self._rows: dict[int, tuple[Ints, Ints]] = {}
        """Per partition the cursors of its rows, sorted, and the greatest place by position up to each."""
        self._others: dict[int, Ints] = {}
        """Per partition the places of the other events, sorted."""
        self._sources: dict[int, dict[int, Ints]] = {}
        """Likewise, by source."""
        for number in np.unique(history.partitions[history.partitions >= 0]).tolist():
            here = history.partitions == number
            told, silent = np.flatnonzero(here & (self._known >= 0)), np.flatnonzero(here & (self._known < 0))
            order = told[np.argsort(self._known[told])]
            self._rows[number] = self._known[order], np.maximum.accumulate(past.by_position[order])
            silent = silent[np.argsort(past.by_position[silent])]
            self._others[number] = past.by_position[silent]
            self._sources[number] = {
                source: past.by_position[silent[past.sources[silent] == source]]
                for source in np.unique(past.sources[silent]).tolist()
            }

    def _before(self, event: int) -> tuple[int, int, int, int]:
        """Of a row's event: its partition, its cursor n, how many others are before it (m), and its place in the order of
        positions, or that of the last row before it, if that is later: a late row is processed when it comes."""
        n, number = int(self._cursors[event]), int(self._history.partitions[event])
        cursors, places = self._rows[number]
        rows = int(np.searchsorted(cursors, n))
        place = int(self._past.by_position[event])
        return number, n, n - rows, max(place, int(places[rows - 1])) if rows else place

    def missing(self, event: int) -> int:
        """How many events its cursor counts that are not archived; 0 when all are, or no cursor tells."""
        if self._cursors[event] < 0 or self._history.entities[event] < 0:
            return 0
        number, _, m, place = self._before(event)
        return max(0, m - int(np.searchsorted(self._others[number], place)))

    def choices(self, entity: int, event: int) -> Iterator[Ints]:
        """What of an entity may have been processed before the row of `event`, in order; the likeliest first."""
        places, own = self._past.by_position, self._history.of(entity)
        yield own[places[own] < places[event]]
        if entity < 0 or self._cursors[event] < 0:
            return
        number, n, m, place = self._before(event)
        rows = (self._known[own] >= 0) & (self._known[own] < n)
        others = (self._known[own] < 0) & (places[own] < place)
        yield from self._deferred(own, rows, others, number, m, place)
        yield own[rows | (self._known[own] < 0) & (np.searchsorted(self._others[number], places[own]) < m)]

    def _deferred(
        self, own: Ints, rows: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_], number: int, m: int, place: int
    ) -> Iterator[Ints]:
        """The rows and the others before `place`, less `late` of these, taken from the ends of sources in every way that makes
        a difference to this entity."""
        late = int(np.searchsorted(self._others[number], place)) - m
        if late < 0:
            return
        waiting: list[Ints] = []
        """Per source, which of the entity's events may be deferred, the newest first."""
        bounds: list[list[tuple[int, int]]] = []
        """Per source, how many of its events are deferred, least and most, when 0, 1, ... of the entity's are."""
        for source, queue in self._sources[number].items():
            own_here = own[others & (self._past.sources[own] == source)][::-1]
            length = int(np.searchsorted(queue, place))
            behind = length - np.searchsorted(queue, self._past.by_position[own_here])
            steps = [0, *behind[behind <= late].tolist()]
            following = [*(int(b) - 1 for b in behind[: len(steps)]), length][: len(steps)]
            waiting.append(own_here[: len(steps) - 1])
            bounds.append([(a, min(b, late, length)) for a, b in zip(steps, following, strict=True)])
        guesses = itertools.product(*(range(len(steps)) for steps in bounds))
        for guess in itertools.islice(guesses, CHOICES):
            chosen = [steps[i] for steps, i in zip(bounds, guess, strict=True)]
            if sum(least for least, _ in chosen) <= late <= sum(most for _, most in chosen):
                left = [events[:i] for events, i in zip(waiting, guess, strict=True)]
                keep = rows | others & ~np.isin(own, np.concatenate([np.empty(0, np.int64), *left]))
                yield own[keep]
