"""Quality: sums over outcomes that add exactly, in any order and over any partitions.

Every loss is rounded to a multiple of 2**-26 (1.5e-8) before it is added. Multiples of one power of two add without
rounding while the sum stays below 2**27 (some 10**8 outcomes a window), so one partition or sixteen give the same bits.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, zip_longest
from math import log, sqrt
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..records import Confusion, Errors, Measure, Paired, Quality
from .loss import clipped, log_loss

__all__ = ["BINS", "GRAIN", "Sums", "added", "apart", "area", "difference", "mean_loss", "pair", "place_of", "prior_loss"]

T = TypeVar("T")

BINS = 200
GRAIN = float(1 << 26)
Z = 1.959963984540054
_EDGES = [at / BINS for at in range(1, BINS)]


def loss_of(score: float, label: bool) -> float:
    """The log loss of one answer in nats, on the grain.

    >>> round(loss_of(0.5, True), 6), loss_of(1e-6, True) < 13.9
    (0.693147, True)
    """
    return round(log_loss(score, label) * GRAIN) / GRAIN


def place_of(score: float) -> int:
    """The step of a score: one on the border between two is of the upper, as an answer says yes from its threshold on.

    >>> place_of(0.29), int(0.29 * BINS)
    (58, 57)
    """
    return bisect_right(_EDGES, score)


class Sums(msgspec.Struct):
    """The Quality of one version in a window under way."""

    n: int = 0
    positives: int = 0
    loss: float = 0.0
    squares: float = 0.0
    bins_true: list[int] = msgspec.field(default_factory=lambda: [0] * BINS)
    bins_false: list[int] = msgspec.field(default_factory=lambda: [0] * BINS)
    errors: Errors | UnsetType = UNSET
    confusion: Confusion | UnsetType = UNSET

    def add(self, score: float, label: bool, sign: int = 1) -> float:
        """Count one answer against its truth; returns its loss. `sign` -1 takes an outcome back, when a correction
        replaces its label."""
        score = clipped(score)
        loss = loss_of(score, label)
        miss = score - label
        self.n += sign
        self.positives += sign * label
        self.loss += sign * loss
        self.squares += sign * (round(miss * miss * GRAIN) / GRAIN)
        (self.bins_true if label else self.bins_false)[place_of(score)] += sign
        return loss

    def frozen(self) -> Quality:
        return Quality(**msgspec.structs.asdict(self))


def pair(known: Paired, difference: float, sign: int = 1) -> Paired:
    """One more difference in loss on the same event."""
    square = round(difference * difference * GRAIN) / GRAIN
    return Paired(n=known.n + sign, sum=known.sum + sign * difference, squares=known.squares + sign * square)


def apart(n: int, loss: float, squares: float, other: float, other_squares: float) -> Paired:
    """The sums of two losses on the same `n` > 0 events, of which only the sums of each and of its squares are known: as if they
    varied apart. Losses of answers to one event mostly rise together, so what is sure by these is sure."""
    mean, spread = (loss - other) / n, squares - loss * loss / n + other_squares - other * other / n
    return Paired(n=n, sum=loss - other, squares=max(spread, 0.0) + n * mean * mean)


def difference(paired: Paired) -> Measure | None:
    """The mean difference, with the 95 % interval of its standard error; None of fewer than two.

    >>> difference(Paired(n=4, sum=2.0, squares=1.0)), difference(Paired(n=1, sum=2.0, squares=4.0))
    (Measure(value=0.5, low=0.5, high=0.5), None)
    """
    if paired.n < 2:
        return None
    mean = paired.sum / paired.n
    half = Z * sqrt(max(paired.squares / paired.n - mean**2, 0.0) / paired.n)
    return Measure(value=mean, low=mean - half, high=mean + half)


def added(a: T, b: T) -> T:
    """Two shares of a window as one: records field by field, mappings key by key (in order of keys), lists place by
    place.

    >>> added({"v1": [1, 2]}, {"v1": [10, 20, 30], "v0": [5]})
    {'v0': [5], 'v1': [11, 22, 30]}
    """
    one: Any = a
    other: Any = b
    if one is UNSET or other is UNSET:
        return other if one is UNSET else one  # type: ignore[no-any-return]
    if isinstance(a, dict):
        found = {**one, **other, **{key: added(one[key], other[key]) for key in one.keys() & other.keys()}}
        return dict(sorted(found.items()))  # type: ignore[return-value]
    if isinstance(a, list):
        return [x + y for x, y in zip_longest(one, other, fillvalue=0)]  # type: ignore[return-value]
    if isinstance(a, msgspec.Struct):
        fields = {name: added(getattr(one, name), getattr(other, name)) for name in a.__struct_fields__}
        return type(a)(**fields)
    return one + other  # type: ignore[no-any-return]


def mean_loss(quality: Quality) -> float | None:
    """Mean log loss; None where nothing is known, or where corrections took back more than the window holds."""
    return quality.loss / quality.n if quality.n > 0 and quality.loss >= 0 else None


def area(quality: Quality) -> float | None:
    """Area under the ROC curve by trapezoids over the score bins (Hanley and McNeil 1982): the chance that a true
    outcome was scored above a false one, ties within a bin counted half. None without both kinds, or where corrections
    of earlier windows leave a negative count.

    >>> area(Quality(bins_true=[0, 2], bins_false=[2, 0])), area(Quality(bins_true=[1], bins_false=[3]))
    (1.0, 0.5)
    """
    true, false = quality.bins_true, quality.bins_false
    hits, misses = sum(true), sum(false)
    if hits <= 0 or misses <= 0 or min(*true, *false) < 0:
        return None
    below = accumulate(false, initial=0)
    twice = sum(t * (2 * under + f) for t, f, under in zip(true, false, below, strict=False))
    return twice / (2 * hits * misses)


def prior_loss(rate: float, n: int, positives: int) -> float:
    """The summed log loss of answering always with `rate`."""
    rate = clipped(rate)
    return -(positives * log(rate) + (n - positives) * log(1.0 - rate))
