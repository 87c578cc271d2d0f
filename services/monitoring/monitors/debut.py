"""Debut: the first periods of a version in charge, as the reference of what its training rows say nothing honest of.

score           the version's own scores, in bins: a model is surer of rows that it was fitted on than of any others
label           outcomes that became known, false and true: known within a period is not what is known when the horizon is over
contributions   what moved the answers, by input: each explained answer counts one in all

A debut is LEAST periods and LASTS in all, without thin ones. What comes after is compared with all of it. Its custom (see
penstock.statistics.shift) is how far each of its periods lies from the others, so what differs from day to day is no drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.duration import DAY
from penstock.policy import ANSWERS, CONTRIBUTIONS, LABEL
from penstock.records import Contributed, Quality
from penstock.statistics.shift import LEAST_VALUES, beyond, distances, raised_by

__all__ = ["Debut", "Measured", "Told", "contributions", "labels", "material", "measured", "told"]

LASTS, LEAST = 7 * DAY, 7
"""A week has all of its days; of fewer periods no custom can be told."""

Floats = npt.NDArray[np.float64]


class Debut(msgspec.Struct):
    """Of one of ANSWERS. `periods` has the counts of each while it lasts, then of all in one."""

    first: int
    periods: list[list[int]] = []
    over: bool = False

    def add(self, name: str, counts: list[int], index: int, every: int) -> list[float]:
        """One more period, of `every` microseconds. The last returns the spread that each of them speaks for."""
        self.periods = [*self.periods, counts]
        if len(self.periods) < LEAST or (index + 1 - self.first) * every < LASTS:
            return []
        table = np.array(self.periods, np.float64)
        others = table.sum(0) - table
        noise = 1 / table.sum(-1) + 1 / others.sum(-1)
        self.over, self.periods = True, [[int(n) for n in table.sum(0)]]
        return [round(spread, 6) for spread in beyond(*measured(name, table, others, noise)).tolist()]


class Told(NamedTuple):
    """What can be judged of a period as inputs are: counts and reference by name; of what cannot yet, why; and the custom of what
    can be from the next period on."""

    now: dict[str, list[int]]
    then: dict[str, list[int]]
    missing: dict[str, str]
    earlier: dict[str, list[float]]


def told(debuts: dict[str, Debut], found: Mapping[str, list[int]], index: int, every: int) -> Told:
    """Take a period's counts by name of ANSWERS; a name that is absent has none in this period."""
    said = Told({}, {}, {}, {})
    for name in ANSWERS:
        counts = found.get(name, [])
        enough = sum(counts) >= LEAST_VALUES and min(counts) >= 0
        debut = debuts.get(name)
        if debut is None:
            if not enough:
                continue
            debut = debuts[name] = Debut(index)
        if not debut.over:
            if enough and (earlier := debut.add(name, counts, index, every)):
                said.earlier[name] = earlier
            else:
                needed = max(LASTS // every, LEAST)
                said.missing[name] = f"{len(debut.periods)} of at least {needed} periods of its reference"
        elif counts and min(counts) >= 0 and len(counts) == len(debut.periods[0]):
            said.now[name], said.then[name] = counts, debut.periods[0]
    return said


def labels(quality: Quality) -> list[int]:
    """Outcomes as counts of false and true; corrections may leave one below 0, of which nothing can be said."""
    return [quality.n - quality.positives, quality.positives]


def contributions(contributed: Contributed) -> list[int]:
    """What moved answers as counts by input, in order of names, that add up to the answers (but for rounding)."""
    whole = sum(contributed.absolute.values())
    if whole <= 0:
        return []
    return [round(contributed.n * share / whole) for _, share in sorted(contributed.absolute.items())]


class Measured(NamedTuple):
    """Of counts (..., bins): how far apart, the noise, and what the distance is raised by (see penstock.statistics.shift)."""

    distance: Floats
    noise: Floats
    raised: Floats


def measured(name: str, now: Floats, then: Floats, noise: Floats) -> Measured:
    """Scores are measured as inputs are. Contributions have no order: their distance is the total variation, the share that went
    to others. Of two classes there is nothing between bins, and a rate has the noise of a rate: 4 p (1 - p) of that of a
    distribution, p over both with one more of each (Agresti & Caffo 2000).
    """
    if name == LABEL:
        rate = (now[..., 1] + then[..., 1] + 1) / (now.sum(-1) + then.sum(-1) + 2)
        return Measured(distances(now, then), noise * 4 * rate * (1 - rate), np.zeros_like(noise))
    if name != CONTRIBUTIONS:
        return Measured(distances(now, then), noise, raised_by(then))
    p, q = (counts / np.maximum(counts.sum(-1, keepdims=True), 1) for counts in (now, then))
    variation = np.where((now.sum(-1) > 0) & (then.sum(-1) > 0), np.abs(p - q).sum(-1) / 2, 0.0)
    return Measured(variation, noise, raised_by(then))


def material(name: str, floor: float, then: list[int]) -> float:
    """The distance that matters. Of labels in units of their standard deviation, as one true in a hundred that becomes three is
    much: `floor` times 2 sqrt(rate (1 - rate)), which is `floor` where half are true.

    >>> material("label", 0.1, [50, 50]), round(material("label", 0.1, [99, 1]), 3), material("score", 0.1, [99, 1])
    (0.1, 0.02, 0.1)
    """
    if name != LABEL:
        return floor
    rate = then[1] / max(sum(then), 1)
    return floor * 2 * float(np.sqrt(rate * (1 - rate)))
