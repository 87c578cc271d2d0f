"""Tests: how rarely chance alone would bring what two vectors of counts show. All two-sample: the reference is a sample, too,
and its own noise is never taken for drift.

`now` and `then` are counts of what is present, in the same cells. A p-value is None where the data could not have shown
anything; it is never NaN. All are valid for independent rows; for rows that depend on their neighbours see `drift`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy import special

from . import distances
from .reference import Cells, Floats

__all__ = ["ENOUGH", "Tested", "adjusted", "chi_square", "ks_test", "least_p", "missing_test", "new_test", "rate_test"]

ENOUGH: Final = 5.0
"""The count that a cell should have in the smaller sample for the chi-square distribution to hold (Cochran 1954)."""


class Tested(NamedTuple):
    """How far, and how rarely by chance; None where nothing can be said."""

    effect: float | None
    p: float | None


def ks_test(now: Cells, then: Cells) -> Tested:
    """Kolmogorov-Smirnov, two samples (Smirnov 1948), over ordered bins. The asymptotic p-value, which holds for continuous
    values; distances read from bins are shorter, so it is never too small.

    >>> ks_test(np.array([10, 30]), np.array([200, 200])).effect
    0.25
    """
    effect = distances.ks(now, then)
    if effect is None:
        return Tested(None, None)
    n, m = float(now.sum()), float(then.sum())
    return Tested(effect, float(special.kolmogorov(effect * np.sqrt(n * m / (n + m)))))


def least_p(n: float, m: float) -> float:
    """The p-value of two samples of these sizes that have nothing in common.

    >>> least_p(1, 10_000) > 0.2, least_p(5, 10_000) < 0.001
    (True, True)
    """
    return float(special.kolmogorov(np.sqrt(n * m / (n + m)))) if n > 0 and m > 0 else 1.0


def chi_square(now: Cells, then: Cells) -> Tested:
    """Homogeneity of two samples, a contingency table 2 x k (Pearson 1900; Fisher 1922), as scipy.stats.chi2_contingency. Cells
    in which fewer than ENOUGH are expected are pooled, those next to each other in frequency; frequency in both samples together,
    so that the choice of pools favours neither. The effect is `distances.excess`.

    >>> chi_square(np.array([30, 10]), np.array([200, 200])).p < 0.01
    True
    """
    effect = distances.excess(now, then)
    if effect is None:
        return Tested(None, None)
    a, b = _pooled(np.asarray(now, np.float64), np.asarray(then, np.float64))
    if len(a) < 2:  # all in one cell: as alike as can be; else too thin
        return Tested(effect, 1.0 if np.count_nonzero(now + then) == 1 else None)
    n, m = a.sum(), b.sum()
    both = a + b
    statistic = float(np.sum((a - both * (n / (n + m))) ** 2 / both) * (n + m) ** 2 / (n * m))
    return Tested(effect, float(special.chdtrc(len(a) - 1, statistic)))


def _pooled(a: Floats, b: Floats) -> tuple[Cells, Cells]:
    both = a + b
    order = np.argsort(-both, kind="stable")
    order = order[both[order] > 0]
    expected = both[order] * (min(a.sum(), b.sum()) / both.sum())
    thin = expected < ENOUGH
    if not thin.any():
        return a[order], b[order]
    alone = int(np.argmax(thin))  # in order of frequency, so all behind are thin
    reached = np.cumsum(expected[alone:]) / ENOUGH
    pool = np.ceil(reached - 1e-9).astype(np.int64) - 1
    last = int(reached[-1])  # whole pools
    pool = np.minimum(pool, max(last - 1, 0))
    group = np.concatenate((np.arange(alone), alone + pool))
    group = np.unique(group, return_inverse=True)[1]
    now, then = np.bincount(group, a[order]), np.bincount(group, b[order])
    if not last and alone:  # all thin ones together are still thin: they join the rarest that is not
        return np.append(now[:-2], now[-2:].sum()), np.append(then[:-2], then[-2:].sum())
    return now, then


def rate_test(a: float, n: float, b: float, m: float, more: bool = False) -> Tested:
    """Whether `a` of n and `b` of m happen at one rate (`more`: or a at a lower one): given their sum, a is binomial, of a + b in
    n / (n + m) (Przyborowski, Wilenski 1940). Exact for rare things and else conservative, at any size and for weighted counts;
    what is commoner is counted by its absence. The effect is the difference of the shares.

    >>> round(rate_test(1, 100, 0, 10_000).p, 4), rate_test(30, 100, 900, 10_000).p < 1e-6
    (0.0198, True)
    """
    if n <= 0 or m <= 0:
        return Tested(None, None)
    share = a / n - b / m
    if (a + b) * 2 > n + m:
        fewer, greater = _tails(n - a, n, m - b, m)
    else:
        greater, fewer = _tails(a, n, b, m)
    return Tested(max(share, 0.0), greater) if more else Tested(abs(share), min(1.0, 2 * min(greater, fewer)))


def _tails(a: float, n: float, b: float, m: float) -> tuple[float, float]:
    """The chance of at least `a`, and of at most `a`, of a + b, each in n / (n + m)."""
    least = float(special.betainc(a, b + 1, n / (n + m))) if a > 0 else 1.0
    most = float(special.betainc(b, a + 1, m / (n + m))) if b > 0 else 1.0
    return least, most


def missing_test(missing_now: float, now: float, missing_then: float, then: float) -> Tested:
    """Whether values are missing as often as before, of so many rows; `rate_test`.

    >>> missing_test(0, 500, 0, 500)
    Tested(effect=0.0, p=1.0)
    """
    return rate_test(missing_now, now, missing_then, then)


def new_test(other_now: float, now: float, other_then: float, then: float) -> Tested:
    """Whether levels without a name have become more frequent, of so many present values. A level that the reference has not
    met by chance brings n/m rows at once when the batch is the larger one, so rows are counted as n / (1 + n/m) of them.

    >>> new_test(12, 100, 0, 10_000).p < 1e-9, new_test(0, 100, 0, 10_000)
    (True, Tested(effect=0.0, p=1.0))
    """
    if now <= 0 or then <= 0:
        return Tested(None, None)
    clump = 1 + now / then
    return rate_test(other_now / clump, now / clump, other_then, then, more=True)


def adjusted(p: Sequence[float]) -> list[float]:
    """q-values: the false discovery rate at which each would be called significant (Benjamini, Hochberg 1995). Under no drift
    anywhere it bounds the chance of any alarm, too.

    >>> [round(q, 3) for q in adjusted([0.01, 0.04, 0.5])]
    [0.03, 0.06, 0.5]
    """
    if not p:
        return []
    from scipy import stats

    return stats.false_discovery_control(p).tolist()  # type: ignore[no-any-return]
