"""Shift: how far an input has moved from its reference, and how far chance alone would move it.

Distance   Kolmogorov-Smirnov over the bins, missing values as a last bin of their own (Smirnov 1948)
Chance     critical = c(alpha) sqrt(1/n + 1/m), c(alpha) = sqrt(-ln(alpha / 2) / 2): the asymptotic two-sample bound,
           which is conservative on binned data
Budget     alpha of one input in one window = false alarms a month / (windows a month x inputs) (Bonferroni)
Index      population stability index with half a count added to each bin; information only, since without any drift it
           already lies near (bins - 1)(1/n + 1/m)
Habit      an input that keeps moving (weather, seasons) tells nothing by moving as usual: its material floor is 1.25
           times the 0.9 quantile of its earlier distances from the same reference, from five windows on (at most
           half-way from that quantile to 1, the distance of distributions that have nothing in common)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import numpy as np

from ..duration import DAY
from ..records import Shift

__all__ = ["LEAST_VALUES", "MONTH", "MOST_WINDOWS", "alpha_of", "distance", "habit_of", "shift_of", "stability"]

MONTH = 30 * DAY
MOST_ALPHA = 0.5
"""A budget so generous that it would allow every test to fail is held here: beyond, `critical` means nothing."""

LEAST_WINDOWS, MOST_WINDOWS = 5, 365
"""How many earlier windows a habit needs, and how many are remembered."""
LEAST_VALUES = 50
"""A window of fewer values is not remembered: its distance is mostly chance, and would raise the floor."""


def alpha_of(false_alarms_per_month: float, every: int, inputs: int) -> float:
    """The chance of a false alarm that one input in one window of `every` microseconds may have.

    >>> round(alpha_of(1.0, DAY, 10), 6)
    0.003333
    """
    return min(MOST_ALPHA, false_alarms_per_month * every / (MONTH * max(inputs, 1)))


def distance(now: Sequence[int], reference: Sequence[int]) -> float:
    """The greatest distance between two distribution functions over the same bins, 0 to 1. Both hold something."""
    a, b = np.cumsum(now), np.cumsum(reference)
    return float(np.max(np.abs(a / a[-1] - b / b[-1])))


def stability(now: Sequence[int], reference: Sequence[int]) -> float:
    """Population stability index, sum (p - q) ln(p / q), on counts plus one half."""
    a, b = np.asarray(now, np.float64) + 0.5, np.asarray(reference, np.float64) + 0.5
    p, q = a / a.sum(), b / b.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def shift_of(now: Sequence[int], reference: Sequence[int], alpha: float, floor: float = 0.0) -> Shift | None:
    """The shift of one input, material above `floor`; None where either side is empty or the bins differ, hence nothing
    can be said."""
    n, m = sum(now), sum(reference)
    if n <= 0 or m <= 0 or len(now) != len(reference):
        return None
    critical = sqrt(-log(alpha / 2) / 2) * sqrt(1 / n + 1 / m)
    return Shift(ks=distance(now, reference), psi=stability(now, reference), critical=critical, n=n, floor=floor)


def habit_of(earlier: Sequence[float]) -> float:
    """The distance that this input exceeds by its own custom only rarely; 0 while there are too few windows to know.

    >>> habit_of([0.1] * 4), habit_of([0.1] * 5)
    (0.0, 0.125)
    """
    if len(earlier) < LEAST_WINDOWS:
        return 0.0
    usual = float(np.quantile(earlier, 0.9))
    return min(1.25 * usual, (1.0 + usual) / 2)
