"""Agreement of reviewers beyond that of chance, on answers that were given to two of them. Pure.

Krippendorff's alpha ("Computing Krippendorff's alpha-reliability", 2011): 1 - observed / expected disagreement, whoever judged
what, and whatever is judged. Two words disagree by 0 or 1 (yes and no, classes: the nominal metric), or by the square of their
distance (numbers: the interval metric). Of yes and no it is Scott's pi (1955), corrected for few answers; 1 is perfect agreement,
0 that of chance.

The interval is the jackknife over answers (Efron and Tibshirani 1993). It sees no spread in a few answers on which all agree, so
each end is that or the one that follows from the observed disagreement with the expected held fixed, whichever is wider: of a
share Wilson's interval (1927), of squares that of a variance, by the chi-square distribution (approximated as by Wilson and
Hilferty 1931).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import Final

import msgspec

from ..label import Truth

__all__ = ["Agreement", "Pair", "agreement"]

Z: Final = 1.959963984540054

Pair = tuple[tuple[str, Truth], tuple[str, Truth]]
"""What the two reviewers of an answer said, in the order in which they did."""


class Agreement(msgspec.Struct, frozen=True):
    """How far reviewers agree. `low` and `high` are a 95 % interval; what says nothing is None, and `missing` says why."""

    answers: int
    reviewers: int
    metric: str = "nominal"
    """nominal: words are the same, or not; interval: numbers, by the square of their distance."""
    observed: float | None = None
    """Share of the answers on which both said the same; of numbers, those no further apart than declared."""
    alpha: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""


def agreement(pairs: Sequence[Pair], within: float | None = None) -> Agreement:
    """The agreement of pairs of reviewers. `within`: how far apart numbers may lie to be the same; None where words are none.

    >>> both = [(("ada", True), ("bob", True))] * 20 + [(("bob", False), ("ada", False))] * 15
    >>> split = [(("ada", True), ("bob", False))] * 5 + [(("bob", True), ("ada", False))] * 10
    >>> found = agreement([*both, *split])
    >>> found.observed, round(found.alpha, 2), round(found.low, 2), round(found.high, 2)
    (0.7, 0.4, 0.12, 0.66)
    >>> hours = [(("ada", 10.0 + n), ("bob", 10.5 + n)) for n in range(20)]
    >>> round(agreement(hours, within=1.0).alpha, 3)
    0.996
    """
    n, who = len(pairs), len({name for pair in pairs for name, _ in pair})
    metric = "nominal" if within is None else "interval"
    if not n:
        return Agreement(0, 0, metric, missing="no answer was decided by two reviewers yet")
    words = [(a, b) for (_, a), (_, b) in pairs]
    if within is None:
        same, (alpha, error, expected) = sum(a == b for a, b in words) / n, _nominal(words)
        low, high = _wilson(same, n)
        ends = 1 - low, 1 - high
    else:
        numbers = [(float(a), float(b)) for a, b in words]
        same, (alpha, error, expected) = sum(abs(a - b) <= within for a, b in numbers) / n, _interval(numbers)
        squares = sum((a - b) ** 2 for a, b in numbers)
        ends = squares / _chi_square(n, -Z), squares / _chi_square(n, Z)
    if alpha is None:
        return Agreement(n, who, metric, same, missing="all said the same of all: there is no chance to compare with")
    low, high = (1 - end / expected for end in ends)
    return Agreement(n, who, metric, same, alpha, max(min(low, alpha - Z * error), -1.0), min(max(high, alpha + Z * error), 1.0))


Found = tuple[float | None, float, float]
"""Alpha (None where all words are the same), its standard error, and the expected disagreement."""


def _nominal(words: Sequence[tuple[Truth, Truth]]) -> Found:
    """Answers on which the same two words were said are alike, so that leaving one of them out has the same result."""
    n, apart = len(words), sum(a != b for a, b in words)
    said = Counter(word for pair in words for word in pair)
    squares = sum(count * count for count in said.values())
    whole, expected = _alpha(apart, n, (4 * n * n - squares) / (2 * n * (2 * n - 1)))
    if whole is None:
        return None, 0.0, 0.0
    left_out = []
    for (a, b), times in Counter(words).items() if n > 1 else ():
        fewer = squares - (4 * said[a] - 4 if a == b else 2 * said[a] + 2 * said[b] - 2)
        rest, _ = _alpha(apart - (a != b), n - 1, (4 * (n - 1) ** 2 - fewer) / ((2 * n - 2) * (2 * n - 3)))
        left_out.append((1.0 if rest is None else rest, times))
    return whole, _jackknife(left_out, n), expected


def _interval(words: Sequence[tuple[float, float]]) -> Found:
    n, mean = len(words), sum(a + b for a, b in words) / (2 * len(words))
    pairs = [(a - mean, b - mean) for a, b in words]
    apart, total, squares = (
        sum((a - b) ** 2 for a, b in pairs),
        sum(a + b for a, b in pairs),
        sum(a * a + b * b for a, b in pairs),
    )
    whole, expected = _alpha(apart, n, _spread(total, squares, 2 * n))
    if whole is None:
        return None, 0.0, 0.0
    left_out = []
    for a, b in pairs if n > 1 else ():
        rest, _ = _alpha(apart - (a - b) ** 2, n - 1, _spread(total - a - b, squares - a * a - b * b, 2 * n - 2))
        left_out.append((1.0 if rest is None else rest, 1))
    return whole, _jackknife(left_out, n), expected


def _alpha(apart: float, n: int, expected: float) -> tuple[float | None, float]:
    return (1 - apart / n / expected, expected) if expected > 0 else (None, 0.0)


def _spread(total: float, squares: float, words: int) -> float:
    """The mean square of the distance of two different words: twice their variance."""
    return 2 * max(squares - total * total / words, 0.0) / (words - 1)


def _jackknife(left_out: Sequence[tuple[float, int]], n: int) -> float:
    mean = sum(alpha * times for alpha, times in left_out) / n
    return sqrt((n - 1) / n * sum(times * (alpha - mean) ** 2 for alpha, times in left_out))


def _wilson(share: float, n: int) -> tuple[float, float]:
    middle, spread = share + Z * Z / (2 * n), Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (middle - spread) / (1 + Z * Z / n), (middle + spread) / (1 + Z * Z / n)


def _chi_square(n: int, z: float) -> float:
    """The quantile of n degrees of freedom at that of the normal distribution."""
    return float(n * max(1 - 2 / (9 * n) + z * sqrt(2 / (9 * n)), 1e-3) ** 3)
