"""How far two independent shares, or means, are apart: the difference and the ratio with 95 % intervals, and how rarely chance
alone brings as great a difference, either way.

    newcombe, chance    of shares: hybrid score interval (Newcombe 1998, method 10); Fisher's exact test
    student             of means: Student's t with each side's own variance (Welch 1947) or with that of both together,
                        whichever says less: the former is too sure of a few numbers that are skewed, as sizes of errors are
                        (24 times too many at 0.001 with 30 of a lognormal against 1,000), the latter of a few that vary more
    ratio               of either, from their intervals (MOVER: Donner and Zou 2012)

Fisher's test is twice the smaller tail, this bounded by the geometric series of its first two terms (the hypergeometric is
log-concave), so it is never too small, and 10 % too great three standard errors out.
"""

from __future__ import annotations

from math import erfc, exp, lgamma, log1p, sqrt
from typing import NamedTuple

from ..records import Measure
from .binary import Z
from .exact import Total, whole

__all__ = ["Mean", "chance", "newcombe", "ratio", "student"]


class Mean(NamedTuple):
    """Of `n` numbers; their variance is that of what they are a sample of."""

    n: int
    value: float
    variance: float

    @classmethod
    def of(cls, n: int, total: Total, squares: Total) -> Mean:
        mean = whole(total) / n
        return cls(n, float(mean), max(float((whole(squares) / n - mean**2) * n / (n - 1)), 0.0))

    @property
    def interval(self) -> Measure:
        half = beyond_of(self.n - 1) * sqrt(self.variance / self.n)
        return Measure(value=self.value, low=self.value - half, high=self.value + half)


def newcombe(one: Measure, two: Measure) -> Measure:
    """The difference of two independent shares from their Wilson intervals (Newcombe 1998, method 10; his first example).

    >>> from penstock.statistics.binary import wilson
    >>> found = newcombe(wilson(56, 70), wilson(48, 80))
    >>> round(found.value, 4), round(found.low, 4), round(found.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    gap = one.value - two.value
    low, high = _apart(one.value - one.low, two.high - two.value), _apart(one.high - one.value, two.value - two.low)
    return Measure(value=gap, low=gap - low, high=gap + high)


def _apart(a: float, b: float) -> float:
    return sqrt(a * a + b * b)


def ratio(one: Measure, two: Measure) -> Measure | None:
    """The ratio of two independent shares, or means, from their intervals (MOVER: Donner and Zou 2012); None where the second
    may be 0.

    >>> from penstock.statistics.binary import wilson
    >>> found = ratio(wilson(56, 70), wilson(48, 80))
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (1.333, 1.078, 1.663)
    """
    if two.value <= 0 or two.low <= 0:
        return None
    product = one.value * two.value
    least, below = one.low * (2 * one.value - one.low), two.high * (2 * two.value - two.high)
    most, above = one.high * (2 * one.value - one.high), two.low * (2 * two.value - two.low)
    low = least / (product + sqrt(max(product**2 - least * below, 0.0))) if product else 0.0
    high = (product + sqrt(max(product**2 - most * above, 0.0))) / above
    return Measure(value=one.value / two.value, low=max(low, 0.0), high=high)


def chance(a: int, n: int, b: int, m: int) -> float:
    """How rarely the shares `a` of `n` and `b` of `m` are as far apart when both groups are alike: Fisher's exact test, doubled.

    >>> round(chance(50, 100, 30, 100), 4), chance(5, 10, 5, 10)
    (0.0061, 1.0)
    """
    if a * m < b * n:  # the lower tail of what is counted is the upper of what is not
        a, b = n - a, m - b
    whole, drawn = n + m, a + b
    following = (drawn - a) * (n - a) / ((a + 1) * (m - drawn + a + 1))
    if following >= 1:
        return 1.0
    log_first = _choices(n, a) + _choices(m, drawn - a) - _choices(whole, drawn)
    return min(1.0, 2 * exp(log_first) / (1 - following))


def _choices(n: int, k: int) -> float:
    """The logarithm of the number of ways to choose `k` of `n`."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def student(one: Mean, two: Mean) -> tuple[Measure, float]:
    """The difference of two independent means with its interval, and how rarely chance alone makes it as great, of Welch's test
    or Student's, whichever says less (see above).

    >>> gap, p = student(Mean(50, 3.0, 4.0), Mean(80, 2.0, 4.0))
    >>> round(gap.low, 3), round(gap.high, 3), round(p, 4)
    (0.285, 1.715, 0.0066)
    """
    value = one.value - two.value
    if abs(value) <= 1e-12 * max(abs(one.value), abs(two.value)):  # the rounding of equal means
        value = 0.0
    a, b, both = one.variance / one.n, two.variance / two.n, one.n + two.n - 2
    pooled = ((one.n - 1) * one.variance + (two.n - 1) * two.variance) / both * (1 / one.n + 1 / two.n)
    if pooled <= 0:
        return Measure(value=value, low=value, high=value), 0.0 if value else 1.0
    freedom = (a + b) ** 2 / (a**2 / (one.n - 1) + b**2 / (two.n - 1))
    errors = (sqrt(a + b), freedom), (sqrt(pooled), float(both))
    half = max(beyond_of(df) * error for error, df in errors)
    p = max(_tails(abs(value) / error, df) for error, df in errors)
    return Measure(value=value, low=value - half, high=value + half), p


def beyond_of(freedom: float) -> float:
    """How many standard errors 95 % of means lie within, by Student's t (from Z by Wallace 1959, as below)."""
    return sqrt(freedom * (exp((Z * (8 * freedom + 3) / (8 * freedom + 1)) ** 2 / freedom) - 1))


def _tails(t: float, freedom: float) -> float:
    """Both tails of Student's t beyond `t`, through the normal deviate of Wallace (1959): of 29 degrees and more within 1 % where
    it decides."""
    z = (8 * freedom + 1) / (8 * freedom + 3) * sqrt(freedom * log1p(t * t / freedom))
    return erfc(z / sqrt(2))
