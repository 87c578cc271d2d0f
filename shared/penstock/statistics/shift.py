"""Shift: how far an input has moved from its reference, and how far chance and its own custom would move it.

Distance   Kolmogorov-Smirnov over the bins, missing values as a last bin of their own (Smirnov 1948)
Noise      1/n + 1/m: the sampling of n values now and m of the reference. Where each value is compared with the reference of its
           own hours (see hours.py), 1/m is the sum of w^2 / m_h over groups of hours with shares w and reference rows m_h
Chance     p = 2 exp(-D^2 / (noise / 2)), the asymptotic tail of Kolmogorov's distribution. A maximum over b bins misses what lies
           between the edges: D is first raised by 0.5826 sqrt(noise / b) (the correction of Chernoff and Siegmund for
           discretely watched Brownian motion: Broadie, Glasserman & Kou 1997). Without it a tenth of the budget is used
Location   a small shift of the middle moves all ranks a little, and no one quantile much: the mean rank of the values among the
           reference (Wilcoxon 1945, ties as bins halve) sees it in half the rows that the distance needs. z = U / sqrt(v noise
           + spread^2), v the variance of the ranks; |U| is at most D, so is what custom adds to it. Either may speak, at half
           the level each
Custom     rows of one hour are not independent, and weather moves: an input has a `spread`, the standard deviation of the part of
           its distance that sampling does not explain, from windows of the reference against the rest of the reference,
           and from the windows since in which it had no part in an alarm. p = 2 exp(-D^2 / (noise / 2 + 2 spread^2)):
           variance proxies of independent parts add. What lasts for hours does not last for weeks: each length of time has a
           custom of its own, and where that is not known, that of the next shorter. Rain falls in few hours: of windows
           shorter than a day the tail is read off as well, at the quantile that as many of them exceed as of days
Discovery  of many inputs those are shifted that Benjamini & Hochberg (1995) find at the level of the window; with no drift
           anywhere this raises as many false alarms as the level says (Simes 1986), and finds more than Bonferroni when much has
           moved
Budget     level of one window = false alarms a month / windows a month: expectations add, so a month of windows raises as
           many as it may, whenever one stops to look
Index      population stability index with half a count added to each bin; information only, since without any drift it
           already lies near (bins - 1)(1/n + 1/m)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, log, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ..duration import DAY

__all__ = [
    "CAPPED", "COST", "LEAST_VALUES", "LEAST_WINDOWS", "MONTH", "MOST_REPLAYED", "MOST_WINDOWS", "SPANS", "USUAL", "beyond",
    "budget_of", "chance", "critical_of", "discovered", "distances", "either", "level_of", "limit", "located", "raised_by",
    "spread_of", "stability", "usual_of",
]  # fmt: skip

MONTH = 30 * DAY
MOST_LEVEL = 0.5
"""A budget so generous that every window may alarm is held here: beyond, `critical` means nothing."""
SPANS = (1, 2, 4, 8, 16)
"""How many of the newest windows are judged as one: a great shift shows in one, a small one in the sum of many."""
COST = 1.2
"""Judging five spans in every window, by two tests at half the level each that mostly agree, raises alarms about as often as so
many independent tests do (see the simulated years in the tests)."""

CAPPED = 7 * DAY
"""From this length on no custom may hide that everything has changed. The weather of an hour is often one that no such hour of
the reference had; that of a week is not."""
LEAST_WINDOWS, MOST_WINDOWS = 5, 365
"""How many windows a custom needs, and how many are remembered of life."""
MOST_REPLAYED = 1_440
"""How many windows of a reference tell a custom: sixty days of hours."""
LEAST_VALUES = 10
"""A window of fewer values tells nothing of a custom: its distance is mostly chance."""
USUAL = 0.9
"""A custom is read off at this quantile: a tenth of the windows may be storms, or drift, and it does not follow."""
LEAST_RARE = 5
"""A rarer quantile has at least so many windows beyond it, else it is that of an outlier."""
HALF_NORMAL = NormalDist().inv_cdf((1 + USUAL) / 2)
"""The quantile USUAL of what spread alone would give."""
WIDER = 3
SURE = 1.1
"""Sampling is held to explain a tenth more than it does: the quantile of 60 windows errs by as much, and what is no custom would
dull the test."""
MOST_COARSE = 0.125
"""The correction counts no bin as wider than this: half of the values in one bin leave nothing between edges to miss."""
CONTINUITY = 0.5826
"""-zeta(1/2) / sqrt(2 pi)."""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def budget_of(false_alarms_per_month: float, every: int) -> float:
    """The chance of a false alarm that one window of `every` microseconds may have.

    >>> round(budget_of(1.0, DAY), 6)
    0.033333
    """
    return min(MOST_LEVEL, false_alarms_per_month * every / MONTH)


def level_of(false_alarms_per_month: float, every: int) -> float:
    """That of one judgement of a window, over all inputs.

    >>> round(level_of(1.0, DAY) * COST, 6)
    0.033333
    """
    return budget_of(false_alarms_per_month / COST, every)


def distances(now: npt.NDArray[np.generic], reference: npt.NDArray[np.generic]) -> Floats:
    """The greatest distance between two distribution functions over the same bins (the last axis), 0 to 1; 0 where one is
    empty."""
    a, b = np.cumsum(now, -1, np.float64), np.cumsum(reference, -1, np.float64)
    of_a, of_b = a[..., -1:], b[..., -1:]
    apart = np.abs(a / np.maximum(of_a, 1) - b / np.maximum(of_b, 1)).max(-1)
    return np.where((of_a > 0) & (of_b > 0), apart[..., None], 0.0)[..., 0]


def stability(now: Floats, reference: Floats, widths: npt.NDArray[np.int64]) -> Floats:
    """Population stability index, sum (p - q) ln(p / q), on counts plus one half; of arrays (inputs, bins), where an input has so
    many bins as `widths` says.

    >>> stability(np.array([[9.5, 29.5, 0.0]]), np.array([[19.5, 19.5, 0.0]]), np.array([2])).round(4)
    array([0.2747])
    """
    there = np.arange(now.shape[-1]) < widths[:, None]
    a, b = np.where(there, now + 0.5, 0.0), np.where(there, reference + 0.5, 0.0)
    p, q = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    terms = (p - q) * np.log(np.where(there, p, 1.0) / np.where(there, q, 1.0))
    return np.asarray(terms.sum(-1), np.float64)


def raised_by(reference: npt.NDArray[np.generic]) -> Floats:
    """What a distance is raised by, in units of sqrt(noise), for bins (the last axis) of this reference."""
    shares = np.asarray(reference, np.float64)
    shares = shares / np.maximum(shares.sum(-1, keepdims=True), 1)
    return np.asarray(CONTINUITY * np.sqrt(np.minimum((shares * shares).sum(-1), MOST_COARSE)), np.float64)


def chance(distance: Floats, noise: Floats, spread: Floats, raised: Floats) -> Floats:
    """How rarely chance and custom give a distance as great as this: a p-value each, at most 1."""
    corrected = distance + raised * np.sqrt(noise)
    return np.asarray(np.minimum(1.0, 2.0 * np.exp(-(corrected**2) / (noise / 2 + 2 * spread**2))), np.float64)


def located(now: npt.NDArray[np.generic], reference: npt.NDArray[np.generic], noise: Floats, spread: Floats) -> Floats:
    """How many standard errors the mean rank lies from where the reference expects it; 0 where all values are alike."""
    shares, expected = _shares(now), _shares(reference)
    ranks = np.cumsum(expected, -1) - expected / 2
    off = ((shares - expected) * ranks).sum(-1)
    variance = (expected * (ranks - 0.5) ** 2).sum(-1)
    error = np.sqrt(variance * noise + spread**2)
    return np.asarray(np.abs(off) / np.where(error > 0, error, np.inf), np.float64)


def either(chances: Floats, z: Floats) -> Floats:
    """A p-value of the distance and one of the location, as one.

    >>> either(np.array([0.2, 0.2]), np.array([0.0, 3.2905])).round(4)
    array([0.4  , 0.002])
    """
    of_z = np.array([erfc(each / sqrt(2)) for each in z.ravel().tolist()]).reshape(z.shape)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(chances, of_z)), np.float64)


def limit(level: float, critical: Floats, distance: Floats, z: Floats) -> Floats:
    """The distance at which a shift like this one has the chance `level`, by distance (`critical`, of half the level) or by
    location, which a shift of the same form and another size grows with."""
    by_location = distance * (-NormalDist().inv_cdf(level / 4) / np.maximum(z, 1e-9))
    return np.asarray(np.where(distance > 0, np.minimum(critical, by_location), critical), np.float64)


def _shares(counts: npt.NDArray[np.generic]) -> Floats:
    found = np.asarray(counts, np.float64)
    return np.asarray(found / np.maximum(found.sum(-1, keepdims=True), 1), np.float64)


def critical_of(level: float, noise: Floats, spread: Floats, raised: Floats, capped: bool = True) -> Floats:
    """The distance that has this chance. `capped`: custom alone asks for no more than half-way from the usual distance to 1, so
    that no custom hides that everything has changed (see CAPPED)."""
    far = log(2 / level)
    correction = raised * np.sqrt(noise)
    sampling = np.sqrt(far * noise / 2) - correction
    both = np.sqrt(far * (noise / 2 + 2 * spread**2)) - correction
    if capped:
        both = np.minimum(both, (1 + np.minimum(spread * HALF_NORMAL, 0.98)) / 2)
    return np.asarray(np.maximum(sampling, both), np.float64)


def discovered(chances: Floats, level: float) -> tuple[float, int]:
    """The p-value up to which an input counts as shifted (Benjamini & Hochberg), and how many are.

    >>> threshold, found = discovered(np.array([0.001, 0.012, 0.9, 0.02]), 0.03)
    >>> round(threshold, 4), found
    (0.0225, 3)
    """
    ordered = np.sort(chances)
    steps = level * np.arange(1, len(ordered) + 1) / len(ordered)
    found = int(np.flatnonzero(ordered <= steps)[-1]) + 1 if (ordered <= steps).any() else 0
    return float(steps[max(found, 1) - 1]), found


def usual_of(length: int) -> float:
    """The quantile that windows of `length` microseconds exceed as often as days exceed USUAL: 3 times a month. An input that is
    mostly zero, as rain is, shows no custom at a quantile that fewer windows exceed than are not zero.

    >>> usual_of(DAY), usual_of(30 * DAY), round(usual_of(DAY // 24), 4)
    (0.9, 0.9, 0.9958)
    """
    return 1 - (1 - USUAL) * min(1.0, length / DAY)


def beyond(distance: Floats, noise: Floats, raised: Floats, usual: float = USUAL) -> Floats:
    """The spread that one window would speak for, were its distance the quantile `usual`; in units of USUAL (see spread_of)."""
    corrected = distance + raised * np.sqrt(noise)
    sampling = log(2 / (1 - usual)) / 2 * noise
    return np.asarray(np.sqrt(np.maximum(corrected**2 - SURE * sampling, 0.0)) / HALF_NORMAL, np.float64)


def spread_of(earlier: Sequence[float], usual: float = USUAL) -> float:
    """The spread that an input's windows (see beyond) speak for at their quantile `usual`; 0 while there are too few to know. Few
    windows know it badly: it is widened about as Student's t is at one in a thousand.

    >>> spread_of([0.1] * 4), round(spread_of([0.1] * 30), 3)
    (0.0, 0.11)
    >>> round(spread_of([0.0] * 950 + [0.5] * 50), 3), round(spread_of([0.0] * 950 + [0.5] * 50, 0.99), 3)
    (0.0, 0.329)
    """
    n = len(earlier)
    if n < LEAST_WINDOWS:
        return 0.0
    rare = max(USUAL, min(usual, 1 - LEAST_RARE / n))
    ordered, at = sorted(earlier), rare * (n - 1)
    low = ordered[int(at)]
    read = low + (at - int(at)) * (ordered[min(int(at) + 1, n - 1)] - low)
    widened = 1 + WIDER * (1 - USUAL) / (n * (1 - rare))
    return float(widened * read * HALF_NORMAL / NormalDist().inv_cdf((1 + rare) / 2))
