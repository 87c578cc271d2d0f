"""Distances between two columns that were counted into the same cells: how far, not how surely (see `tests`).

All take the counts of what is present, now and then, in the order of the cells, of any two totals. None where one side
holds nothing. Those in units of the values take the edges between the bins, too: a value counts as the middle of its bin, in
an open end bin as the outermost edge (winsorised), so one value of 1e9 moves nothing. Their unit is the standard deviation
of the reference so counted; None where it does not vary and the other side differs, or is beyond float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from . import shift
from .reference import Cells, Floats

__all__ = ["OF_CELLS", "OF_VALUES", "energy", "excess", "hellinger", "jensen_shannon", "ks", "largest", "psi", "total_variation",
           "wasserstein"]  # fmt: skip


def _shares(now: Cells, then: Cells) -> tuple[Floats, Floats] | None:
    if len(now) != len(then):
        raise ValueError(f"{len(now)} cells now, {len(then)} then: not counted against one reference")
    n, m = float(now.sum()), float(then.sum())
    return (now / n, then / m) if n > 0 and m > 0 else None


def ks(now: Cells, then: Cells) -> float | None:
    """The greatest distance between the distribution functions, 0 to 1 (Kolmogorov 1933, Smirnov 1948); read at the borders
    of bins, and so never above that of the values.

    >>> ks(np.array([0, 10]), np.array([5, 5]))
    0.5
    """
    return None if _shares(now, then) is None else float(shift.distances(now, then))


def total_variation(now: Cells, then: Cells) -> float | None:
    """The share of rows that would have to change their cell, 0 to 1.

    >>> total_variation(np.array([3, 1]), np.array([2, 2]))
    0.25
    """
    both = _shares(now, then)
    return None if both is None else float(np.abs(both[0] - both[1]).sum() / 2)


def excess(now: Cells, then: Cells) -> float | None:
    """Total variation beyond what chance brings without any drift, which with many levels is much: half the sum of
    sqrt(2/pi p (1 - p) (1/n + 1/m)), the mean size of a normal difference of shares; not below 0.

    >>> round(excess(np.array([12, 8]), np.array([50, 50])), 3), excess(np.array([10, 10]), np.array([50, 50]))
    (0.002, 0.0)
    """
    both = _shares(now, then)
    if both is None:
        return None
    pooled = (now + then) / (now.sum() + then.sum())
    chance = np.sqrt(2 / np.pi * pooled * (1 - pooled) * (1 / now.sum() + 1 / then.sum()))
    return max(float((np.abs(both[0] - both[1]) - chance).sum() / 2), 0.0)


def largest(now: Cells, then: Cells) -> float | None:
    """The greatest change in the share of one cell, L-infinity, 0 to 1.

    >>> largest(np.array([3, 1, 0]), np.array([2, 1, 1]))
    0.25
    """
    both = _shares(now, then)
    return None if both is None else float(np.max(np.abs(both[0] - both[1])))


def psi(now: Cells, then: Cells) -> float | None:
    """Population stability index, sum (p - q) ln(p / q) (Karakoulas 2004; it is Jeffreys' divergence, 1946), with half a count
    added to each cell. Without drift about (cells - 1)(1/n + 1/m) (Yurdakul 2018): no floor fits all sizes.

    >>> round(psi(np.array([8, 2]), np.array([5, 5])), 3)
    0.334
    """
    if _shares(now, then) is None:
        return None
    return float(shift.stability(np.array([now], np.float64), np.array([then], np.float64), np.array([len(now)]))[0])


def jensen_shannon(now: Cells, then: Cells) -> float | None:
    """The square root of the divergence of both from their mean, in bits: a metric, 0 to 1 (Lin 1991; Endres, Schindelin
    2003). As scipy.spatial.distance.jensenshannon with base 2.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    both = _shares(now, then)
    if both is None:
        return None
    mean = (both[0] + both[1]) / 2
    bits = sum(float(np.sum(p[p > 0] * np.log2(p[p > 0] / mean[p > 0]))) for p in both)
    return float(np.sqrt(max(bits / 2, 0.0)))


def hellinger(now: Cells, then: Cells) -> float | None:
    """The Euclidean distance of the square roots of the shares, 0 to 1 (Hellinger 1909).

    >>> hellinger(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    both = _shares(now, then)
    return None if both is None else float(np.sqrt(np.sum((np.sqrt(both[0]) - np.sqrt(both[1])) ** 2) / 2))


def wasserstein(now: Cells, then: Cells, edges: Sequence[float]) -> float | None:
    """How far the mass has to be moved on average, in standard deviations of the reference (Kantorovich 1942, Vaserstein
    1969).

    >>> wasserstein(np.array([0, 5, 5]), np.array([5, 5, 0]), [0.0, 1.0])
    2.0
    """
    gap = _gaps(now, then, edges)
    if gap is None:
        return None
    apart, steps, deviation = gap
    far = float(np.abs(apart) @ steps)
    return 0.0 if not far else far / deviation if deviation else None


def energy(now: Cells, then: Cells, edges: Sequence[float]) -> float | None:
    """sqrt(2 integral (F - G)^2), the values in standard deviations of the reference (Cramér 1928; Székely, Rizzo 2013).

    >>> round(energy(np.array([0, 5, 5]), np.array([5, 5, 0]), [0.0, 1.0]), 4)
    1.4142
    """
    gap = _gaps(now, then, edges)
    if gap is None:
        return None
    apart, steps, deviation = gap
    far = float((apart * apart) @ steps)
    return 0.0 if not far else float(np.sqrt(2 * far / deviation)) if deviation else None


def _gaps(now: Cells, then: Cells, edges: Sequence[float]) -> tuple[Floats, Floats, float] | None:
    """F - G between one place of values and the next, how far these are apart, and the deviation of the reference."""
    both = _shares(now, then)
    if both is None:
        return None
    if not edges:
        return np.zeros(0), np.zeros(0), 0.0
    borders = np.asarray(edges, np.float64)
    places = np.concatenate((borders[:1], borders[:-1] / 2 + borders[1:] / 2, borders[-1:]))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(both[1] @ places)
        deviation = float(np.sqrt(both[1] @ (places - mean) ** 2))
    return (np.cumsum(both[0] - both[1])[:-1], np.diff(places), deviation) if np.isfinite(deviation) else None


OF_CELLS: Final = {
    "ks": ks,
    "total_variation": total_variation,
    "largest": largest,
    "psi": psi,
    "jensen_shannon": jensen_shannon,
    "hellinger": hellinger,
}
"""By name. `ks` needs cells in an order."""
OF_VALUES: Final = {"wasserstein": wasserstein, "energy": energy}
