"""Exact sums of floats: no rounding, so any order and any grouping gives the same bits.

A float64 is an integer times a power of two, and so is a product of two. `dot` adds these integers, grouped by their power,
in arrays; what it returns is a Python integer in units of 2**-UNIT and adds without limit. Only the last division rounds.
(The idea is Kulisch's long accumulator, 1976; the arrays are ours.)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK", "UNIT", "Moments", "Pairs", "dot", "ratio", "total"]

UNIT = 2_300
"""The least product of two float64, 2**-2148, shifted by the 53 bits of each factor, lies above 2**-UNIT."""
CHUNK = 1 << 26
"""Values that one call may add (weights included): then partial sums of 27-bit parts stay below 2**53, exact in float64."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LOW = (1 << 27) - 1


def dot(x: Floats, y: Floats, weights: Ints | None = None) -> int:
    """The exact sum of x[i] * y[i] * weights[i], in units of 2**-UNIT; all finite, weights positive, sum of them <= CHUNK.

    >>> ratio(dot(np.array([1e100, 1.0, -1e100]), np.ones(3)), 3)
    0.3333333333333333
    """
    (a, p), (b, q) = _parts(x), _parts(y)
    power = p + q
    times = np.ones(len(x), np.int64) if weights is None else weights
    a_high, a_low, b_high, b_low = a >> 27, a & _LOW, b >> 27, b & _LOW
    return (
        (_sum(a_high * b_high, power, times) << 54)
        + (_sum(a_high * b_low + a_low * b_high, power, times) << 27)
        + _sum(a_low * b_low, power, times)
    )


def total(x: Floats, weights: Ints | None = None) -> int:
    """The exact sum of x[i] * weights[i], as `dot` gives it."""
    parts, power = _parts(x)
    return _sum(parts, power, np.ones(len(x), np.int64) if weights is None else weights)


def _parts(x: Floats) -> tuple[Ints, Ints]:
    """Integers of at most 53 bits and powers of two: x = integer * 2**power."""
    fraction, power = np.frexp(x)
    return (fraction * 2.0**53).astype(np.int64), power.astype(np.int64) - 53


def _sum(values: Ints, power: Ints, times: Ints) -> int:
    """The sum of values * times * 2**power in units of 2**-UNIT, for |values| <= 2**54."""
    if not len(values):
        return 0
    least = int(power.min())
    place = power - least
    high = np.bincount(place, (values >> 27) * times).tolist()
    low = np.bincount(place, (values & _LOW) * times).tolist()
    found = 0
    for i, (h, l) in enumerate(zip(high, low, strict=True)):  # noqa: E741
        if h or l:
            found += ((int(h) << 27) + int(l)) << i
    return found << (least + UNIT)


def ratio(added: int, n: int) -> float:
    """An exact sum divided by a number, rounded once; infinite where it is beyond float64."""
    try:
        return added / (n << UNIT)
    except OverflowError:
        return math.inf if added > 0 else -math.inf


class Moments:
    """Count, sum and sum of squares; exact, so `merge` is associative and commutative to the bit."""

    __slots__ = ("n", "squares", "sum")

    def __init__(self, n: int = 0, sum: int = 0, squares: int = 0) -> None:  # noqa: A002
        self.n, self.sum, self.squares = n, sum, squares

    def add(self, x: Floats, weights: Ints) -> None:
        self.n += int(weights.sum())
        self.sum += total(x, weights)
        self.squares += dot(x, x, weights)

    def merge(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.sum + other.sum, self.squares + other.squares)

    @property
    def mean(self) -> float | None:
        return ratio(self.sum, self.n) if self.n else None

    @property
    def std(self) -> float | None:
        """Of a sample (divided by n - 1), as pandas has it; None below two values."""
        if self.n < 2:
            return None
        spread = ((self.n * self.squares) << UNIT) - self.sum * self.sum
        return _root(spread, self.n * (self.n - 1) << 2 * UNIT)

    def state(self) -> list[bytes]:
        return [_bytes(part) for part in (self.n, self.sum, self.squares)]

    @classmethod
    def of_state(cls, state: list[bytes]) -> Moments:
        return cls(*map(_int, state))


class Pairs:
    """Two columns where both are present: their correlation (Pearson, 1895), from exact sums."""

    __slots__ = ("n", "x", "xx", "xy", "y", "yy")

    def __init__(self, n: int = 0, x: int = 0, y: int = 0, xx: int = 0, yy: int = 0, xy: int = 0) -> None:
        self.n, self.x, self.y, self.xx, self.yy, self.xy = n, x, y, xx, yy, xy

    def add(self, x: Floats, y: Floats) -> None:
        self.n += len(x)
        self.x += total(x)
        self.y += total(y)
        self.xx += dot(x, x)
        self.yy += dot(y, y)
        self.xy += dot(x, y)

    def merge(self, other: Pairs) -> Pairs:
        return Pairs(*(getattr(self, name) + getattr(other, name) for name in ("n", "x", "y", "xx", "yy", "xy")))

    @property
    def correlation(self) -> float | None:
        """-1 to 1; None where one of the two does not vary."""
        both = ((self.n * self.xy) << UNIT) - self.x * self.y
        one, two = ((self.n * self.xx) << UNIT) - self.x * self.x, ((self.n * self.yy) << UNIT) - self.y * self.y
        if one <= 0 or two <= 0:
            return None
        found = _root(both * both, one * two)
        return None if found is None else min(found, 1.0) * (1 if both > 0 else -1)

    def state(self) -> list[bytes]:
        return [_bytes(part) for part in (self.n, self.x, self.y, self.xx, self.yy, self.xy)]

    @classmethod
    def of_state(cls, state: list[bytes]) -> Pairs:
        return cls(*map(_int, state))


def _root(above: int, below: int) -> float | None:
    """The square root of a fraction; None when it is beyond float64."""
    try:
        return math.sqrt(above / below)
    except OverflowError:
        return None


def _bytes(number: int) -> bytes:
    """An integer of any size, its trailing zeros counted in the first two bytes."""
    zeros = (number & -number).bit_length() - 1 if number else 0
    short = number >> zeros
    return zeros.to_bytes(2, "big") + short.to_bytes(short.bit_length() // 8 + 1, "big", signed=True)


def _int(stored: bytes) -> int:
    return int.from_bytes(stored[2:], "big", signed=True) << int.from_bytes(stored[:2], "big")
