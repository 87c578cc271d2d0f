"""Exact sums of float64: whole numbers by place, which add without rounding, in any order and over any partitions.

A sum is {place: number} and means the sum of number x 2**(24 x place). One float64 falls on at most four places, and a place
holds the digits of 5 x 10**11 terms before it leaves 64 bits (a superaccumulator: Kulisch 2011). Where it is read it is rounded
once.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import frexp

__all__ = ["Total", "add", "add_square", "total", "valued", "whole"]

Total = dict[int, int]

BITS = 24
_MASK = (1 << BITS) - 1


def add(into: Total, term: float, sign: int = 1) -> None:
    """Add a finite number; `sign` -1 takes it away.

    >>> sums = {}
    >>> for term in (1e16, 1.0, -1e16): add(sums, term)
    >>> valued(sums)
    1.0
    """
    mantissa, exponent = frexp(term)
    number = int(mantissa * 9007199254740992.0)
    if number < 0:
        number, sign = -number, -sign
    place, shift = divmod(exponent - 53, BITS)
    number <<= shift
    while number:
        if digit := number & _MASK:
            into[place] = into.get(place, 0) + sign * digit
        number >>= BITS
        place += 1


def add_square(into: Total, term: float) -> None:
    """Add the square of a number of at most 1e140, and what its rounding leaves (Dekker 1971): a variance is a small difference
    of great squares.

    >>> sums = {}
    >>> add_square(sums, 1e9 + 0.125)
    >>> whole(sums) == Fraction(1e9 + 0.125) ** 2
    True
    """
    square, split = term * term, term * 134217729.0
    high = split - (split - term)
    low = term - high
    add(into, square)
    add(into, ((high * high - square) + 2 * high * low) + low * low)


def total(terms: Iterable[float]) -> Total:
    """The sum of some finite numbers."""
    found: Total = {}
    for term in terms:
        add(found, term)
    return found


def whole(sums: Total) -> Fraction:
    """The sum itself."""
    if not sums:
        return Fraction(0)
    low = min(sums)
    number = sum(digit << BITS * (place - low) for place, digit in sums.items())
    return Fraction(number << BITS * low) if low >= 0 else Fraction(number, 1 << -BITS * low)


def valued(sums: Total) -> float:
    """The sum as the nearest float64."""
    return float(whole(sums))
