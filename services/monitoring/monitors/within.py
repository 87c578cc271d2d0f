"""Within: how far inputs have moved within the levels of segments, where the whole may stand still. Pure; state goes in as
values.

A cell is an input, or the score, within a level. It is held against what it was there: of the training rows of the version, where
those of the level are enough (see penstock.statistics.segmented), else of the version's own first week, of which the first
FIRST_PERIODS with enough answers are added up. The score is always held against the first week, as that of the whole is (see
debut.py). A custom is that of the training rows, else of the periods since; until one is known a cell is not judged. OTHERS, of
which no reference tells what they were, are counted only.

More hypotheses must not raise more alarms. The false discovery rate is held over the inputs of the whole and all cells at once,
with half of the weight on either (weighted Benjamini & Hochberg: Genovese, Roeder & Wasserman 2006): so a project that adds
a segment of fifty levels sees drift of the whole about as soon as before. A cell is named only where its input has not moved as a
whole: what moves everywhere is one cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

import msgspec
import numpy as np

from penstock.duration import DAY
from penstock.policy import SCORE, Drift
from penstock.records import Contributed, LevelStatistic, Moments, Partial, Shift, Summed
from penstock.segment import OTHERS, at_level
from penstock.statistics.shift import LEAST_VALUES, LEAST_WINDOWS, discovered, spread_of

from ..counting.latencies import latency_of
from ..counting.moments import moments_of
from .moving import Counts, Floats, Inputs, Judged, Seen, comparable, counts_of, influences, sampling

__all__ = [
    "MOST_REMEMBERED",
    "Cell",
    "Cells",
    "First",
    "Look",
    "Sums",
    "Within",
    "leveled",
    "look",
    "sums_of",
    "told_within",
]

FIRST_PERIODS, FIRST_LASTS = 7, 7 * DAY
"""As of a debut."""
MOST_REMEMBERED = 30
"""Periods of which a cell's custom is remembered."""

Sums = dict[str, dict[str, dict[str, Summed]]]
"""By segment, level and input."""


class Cell(NamedTuple):
    """An input within a level of a segment."""

    segment: str
    level: str
    input: str

    @property
    def name(self) -> str:
        return at_level(self.input, self.segment, self.level)


class First(msgspec.Struct):
    """A cell in the first week of a version."""

    since: int
    periods: int = 0
    counts: list[int] = []
    over: bool = False

    def add(self, counts: list[int], index: int, every: int) -> None:
        self.periods += 1
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)] if self.counts else list(counts)
        self.over = self.periods >= FIRST_PERIODS and (index + 1 - self.since) * every >= FIRST_LASTS


class Within(msgspec.Struct):
    """What monitors of drift say of cells in one window, by segment, level and input."""

    shifts: dict[str, dict[str, dict[str, Shift]]] = {}
    missing: dict[str, dict[str, dict[str, str]]] = {}

    def shift(self, cell: Cell, shift: Shift) -> None:
        self.shifts.setdefault(cell.segment, {}).setdefault(cell.level, {})[cell.input] = shift

    def miss(self, cell: Cell, why: str) -> None:
        self.missing.setdefault(cell.segment, {}).setdefault(cell.level, {})[cell.input] = why


def told_within(
    newest: Counts, firsts: dict[str, First], monitor: Drift, index: int, within: Within
) -> tuple[dict[str, dict[str, Counts]], list[Cell]]:
    """The levels of a period with what each cell is held against, and the cells that can be compared; the others are said to be
    missing, and learn what they are like."""
    found: dict[str, dict[str, Counts]] = {}
    cells = []
    for segment, levels in newest.levels.items():
        for level, counts in levels.items():
            made = found.setdefault(segment, {})[level] = counts_of(counts)
            for name, now in sorted(counts.inputs.items()):
                cell = Cell(segment, level, name)
                if monitor.inputs and name not in monitor.inputs:
                    continue
                if name not in made.expected:
                    made.baseline[name] = _first(cell, now, firsts, index, monitor.every, within)
                if comparable(now, made.reference[name]):
                    cells.append(cell)
    return found, cells


def _first(cell: Cell, now: list[int], firsts: dict[str, First], index: int, every: int, within: Within) -> list[int]:
    """What the cell was like in its first week; nothing while that lasts."""
    if cell.level == OTHERS and cell.input != SCORE:
        within.miss(cell, "no reference of enough rows, and others are not the same ones from week to week")
        return []
    first = firsts.get(cell.name)
    if first is None or (first.counts and len(first.counts) != len(now)):
        first = firsts[cell.name] = First(index)
    if first.over:
        return first.counts
    if sum(now) >= LEAST_VALUES:
        first.add(now, index, every)
    within.miss(cell, f"{first.periods} of at least {max(FIRST_LASTS // every, FIRST_PERIODS)} periods of its reference")
    return []


class Cells(Inputs):
    """The cells over the newest periods, as one table."""

    def __init__(
        self,
        monitor: Drift,
        cells: Sequence[Cell],
        spans: Sequence[Counts],
        contributed: Contributed,
        earlier: Mapping[str, list[float]],
        whole: Mapping[str, float],
    ) -> None:
        """`earlier`: the spread that each period so far speaks for, by name; `whole`: the custom of each input as a whole."""
        self.cells, self._by_period = cells, spans
        super().__init__(
            monitor, [cell.name for cell in cells], [_flat(span, cells) for span in spans], Contributed(), lambda _: {}
        )
        inputs = sorted({cell.input for cell in cells})
        of = dict(zip(inputs, influences(inputs, contributed), strict=True))
        self.influence = np.array([of[cell.input] for cell in cells])
        self.floor = np.minimum(monitor.material / self.influence, (1 + monitor.material) / 2)
        self._lived = np.array([len(earlier.get(name, ())) >= LEAST_WINDOWS for name in self.names])
        own = {cell: spread_of(earlier[cell.name]) for cell in cells if len(earlier.get(cell.name, ())) >= LEAST_WINDOWS}
        alike: dict[tuple[str, str], list[float]] = {}
        for cell, spread in own.items():  # of few periods and rows a custom is known badly: see segmented.py
            alike.setdefault((cell.segment, cell.input), []).append(spread)
        usual = {key: sqrt(sum(each**2 for each in spreads) / len(spreads)) for key, spreads in alike.items()}
        least = [max(usual.get((cell.segment, cell.input), 0.0), whole.get(cell.input, 0.0)) for cell in cells]
        self._own = np.array([max(own.get(cell, 0.0), floor) for cell, floor in zip(cells, least, strict=True)])
        self._levels = sorted({(cell.segment, cell.level) for cell in cells})

    def spread(self, periods: int) -> tuple[Floats, Any]:
        """Of the training rows, of windows as long as this span or shorter; else of single periods since, which is more."""
        of_level = {}
        for segment, level in self._levels:
            customs = self._by_period[-1].levels[segment][level].customs
            known = [length for length in customs if length <= periods * self._every]
            of_level[segment, level] = customs[max(known)] if known else None
        of = [of_level[cell.segment, cell.level] for cell in self.cells]
        spread = np.array([found.get(cell.input, 0.0) if found else 0.0 for cell, found in zip(self.cells, of, strict=True)])
        trained = np.array([found is not None and cell.input != SCORE for cell, found in zip(self.cells, of, strict=True)])
        return np.where(trained, spread, self._own), trained | self._lived

    def sampling(self, periods: int) -> Floats:
        found: dict[Cell, float] = {}
        for segment, level in self._levels:
            inside = [cell for cell in self.cells if (cell.segment, cell.level) == (segment, level)]
            spans = [span.levels.get(segment, {}).get(level, Counts()) for span in self._by_period[-periods:]]
            found |= dict(zip(inside, sampling(spans, [cell.input for cell in inside]).tolist(), strict=True))
        return np.array([found[cell] for cell in self.cells])

    def seen(self, periods: int) -> Seen:
        """As of inputs; what cannot be judged has no chance to be discovered."""
        seen = super().seen(periods)
        known = seen.known & (seen.n >= LEAST_VALUES)
        return seen._replace(p=np.where(known, seen.p, 1.0), known=known)


def _flat(span: Counts, cells: Sequence[Cell]) -> Counts:
    """The cells of a period as inputs."""
    found, none = Counts(), Counts()
    for cell in cells:
        level = span.levels.get(cell.segment, {}).get(cell.level, none)
        found.inputs[cell.name] = level.inputs.get(cell.input, [])
        found.baseline[cell.name] = level.expected.get(cell.input) or level.baseline.get(cell.input, [])
    return found


class Look(NamedTuple):
    """The newest periods as one: of the inputs of the whole, and of cells where there are any. `excess` is by name of both; of
    cells whose input has moved as a whole it is 0."""

    whole: Judged
    cells: Judged | None
    excess: dict[str, float]

    @property
    def periods(self) -> int:
        return self.whole.periods

    @property
    def worst(self) -> float:
        return max(self.excess.values())


def look(inputs: Inputs, cells: Cells | None, periods: int, level: float, near: float) -> Look:
    """Judge so many periods at the `level` of false alarms. `near`: the share of its limits from which on an input of the whole
    has moved as far as its cells are concerned."""
    seen = inputs.seen(periods)
    if cells is None:
        judged = inputs.judged(seen, discovered(seen.p, level)[0])
        return Look(judged, None, dict(zip(inputs.names, judged.excess.tolist(), strict=True)))
    inside = cells.seen(periods)
    every = len(seen.p) + len(inside.p)
    weights = every / (2 * len(seen.p)), every / (2 * len(inside.p))
    threshold = discovered(np.concatenate([seen.p / weights[0], inside.p / weights[1]]), level)[0]
    judged, of_cells = inputs.judged(seen, threshold * weights[0]), cells.judged(inside, threshold * weights[1])
    excess = dict(zip(inputs.names, judged.excess.tolist(), strict=True))
    moved = {name for name, beyond in excess.items() if beyond > near}
    hidden = np.array([cell.input in moved for cell in cells.cells])
    of_cells = of_cells._replace(excess=np.where(hidden, 0.0, of_cells.excess))
    return Look(judged, of_cells, excess | dict(zip(cells.names, of_cells.excess.tolist(), strict=True)))


def sums_of(partial: Partial) -> Sums:
    """The sums of a shard, by level."""
    return {s: {level: of.summed for level, of in levels.items()} for s, levels in (partial.levels or {}).items()}


def leveled(
    sums: Mapping[str, Sums], latencies: Mapping[str, Mapping[str, Mapping[str, Mapping[int, int]]]], within: Within
) -> dict[str, dict[str, LevelStatistic]]:
    """What is said of each level of a closed window; `sums` are by version."""
    moments: dict[tuple[str, str], dict[str, dict[str, Moments]]] = {}
    for version, segments in sorted(sums.items()):
        for segment, levels in segments.items():
            for level, summed in levels.items():
                found = {name: told for name, each in summed.items() if (told := moments_of(each))}
                if found:
                    moments.setdefault((segment, level), {})[version] = found
    took = {(segment, level): of for segment, levels in latencies.items() for level, of in levels.items()}
    said: dict[str, dict[str, LevelStatistic]] = {}
    for segment, level in sorted(moments.keys() | took.keys()):
        said.setdefault(segment, {})[level] = LevelStatistic(
            drift=within.shifts.get(segment, {}).get(level, {}),
            moments=moments.get((segment, level), {}),
            latency={v: of_time for v, of in sorted(took.get((segment, level), {}).items()) if (of_time := latency_of(of))},
            missing=within.missing.get(segment, {}).get(level, {}),
        )
    return said
