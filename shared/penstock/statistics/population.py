"""Population: have the shares of the groups moved, whatever the answers to them?"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, sqrt
from statistics import NormalDist
from typing import Final

from ..duration import DAY
from ..records import Group, Population
from ..segment import OTHERS
from .groups import bounded
from .quality import added

__all__ = ["mixed", "population", "populations"]

HALF_LIFE: Final = 14 * DAY
"""After so long an answer counts half in what is usual."""

SURE: Final = NormalDist().inv_cdf(0.95)


def population(now: Mapping[str, float], before: Mapping[str, float]) -> Population | None:
    """How far the shares of groups have moved: sum (p - q) ln(p / q), half a count added to each level (so that a new one is not
    infinitely far away); None where there is nothing on one side, or one level in all.

    Without any change it is about (1/n + 1/m) times a chi-square of as many degrees as there are levels less one (Yurdakul and
    Naranjo 2020), whose 95 % quantile is that of Wilson and Hilferty (1931).

    >>> moved = population({"a": 300, "b": 100}, {"a": 200, "b": 200})
    >>> round(moved.stability, 3), round(moved.chance, 3)
    (0.273, 0.019)
    """
    levels, n, m = now.keys() | before.keys(), sum(now.values()), sum(before.values())
    if n < 1 or m < 1 or len(levels) < 2:
        return None
    half, degrees = len(levels) / 2, len(levels) - 1
    shares = [((now.get(each, 0) + 0.5) / (n + half), (before.get(each, 0) + 0.5) / (m + half)) for each in sorted(levels)]
    beyond = degrees * (1 - 2 / (9 * degrees) + SURE * sqrt(2 / (9 * degrees))) ** 3
    return Population(
        stability=sum((p - q) * log(p / q) for p, q in shares), chance=(1 / n + 1 / m) * beyond, n=round(n), m=round(m)
    )


def populations(
    groups: Mapping[str, Mapping[str, Group]], usual: dict[str, dict[str, float]], length: int
) -> dict[str, Population]:
    """How the answers of a window of `length` microseconds fall, by segment, against what is usual, which learns from them."""
    found, fade = {}, 2.0 ** (-length / HALF_LIFE)
    for segment, levels in groups.items():
        now = {level: float(group.answers) for level, group in levels.items() if group.answers > 0}
        before = usual.get(segment, {})
        moved = population(now, before)
        if moved is not None:
            found[segment] = moved
        usual[segment] = bounded(added({level: count * fade for level, count in before.items()}, now))
    return found


def mixed(groups: Mapping[str, Mapping[str, Group]], reference: Mapping[str, Mapping[str, int]]) -> dict[str, Population]:
    """How the answers of a window fall, by segment, against the rows of a reference. Levels that one of the two counts together
    with others count so on both sides."""
    found = {}
    for segment, before in reference.items():
        now = {level: float(group.answers) for level, group in groups.get(segment, {}).items() if group.answers > 0}
        apart = bounded(dict.fromkeys({*now, *before}, 0))
        moved = population(_folded(now, apart), _folded({level: float(rows) for level, rows in before.items()}, apart))
        if moved is not None:
            found[segment] = moved
    return found


def _folded(counts: Mapping[str, float], apart: Mapping[str, object]) -> dict[str, float]:
    found: dict[str, float] = {}
    for level, count in counts.items():
        into = level if level in apart else OTHERS
        found[into] = found.get(into, 0.0) + count
    return found
