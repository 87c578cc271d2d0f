"""Quality: sums over outcomes that add exactly, in any order and over any partitions.

Every loss is rounded to a multiple of 2**-26 (1.5e-8) before it is added. Multiples of one power of two add without
rounding while the sum stays below 2**27 (some 10**8 outcomes a window), so one partition or sixteen give the same bits.
Probabilities are clipped to [1e-6, 1 - 1e-6] first: one confident error costs at most 13.8 nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, zip_longest
from math import log

from penstock.records import Paired, Quality

__all__ = ["BINS", "CLIP", "GRAIN", "Sums", "area", "mean_loss", "pair", "prior_loss", "total", "total_paired"]

CLIP = 1e-6
BINS = 200
GRAIN = float(1 << 26)


def clipped(score: float) -> float:
    """A probability that a logarithm can take."""
    return min(max(score, CLIP), 1.0 - CLIP)


def loss_of(score: float, label: bool) -> float:
    """The log loss of one (clipped) answer in nats, on the grain.

    >>> round(loss_of(0.5, True), 6), loss_of(1e-6, True) < 13.9
    (0.693147, True)
    """
    return round(-log(score if label else 1.0 - score) * GRAIN) / GRAIN


class Sums:
    """The sums of one version in one window. `sign` -1 takes an outcome back, when a correction replaces its label."""

    __slots__ = ("bins_false", "bins_true", "loss", "n", "positives", "squares")

    def __init__(self, quality: Quality | None = None) -> None:
        self.n = quality.n if quality else 0
        self.positives = quality.positives if quality else 0
        self.loss = quality.loss if quality else 0.0
        self.squares = quality.squares if quality else 0.0
        self.bins_true = list(quality.bins_true) if quality and quality.bins_true else [0] * BINS
        self.bins_false = list(quality.bins_false) if quality and quality.bins_false else [0] * BINS

    def add(self, score: float, label: bool, sign: int = 1) -> float:
        """Count one answer against its truth; returns its loss."""
        score = clipped(score)
        loss = loss_of(score, label)
        miss = score - label
        self.n += sign
        self.loss += sign * loss
        self.squares += sign * (round(miss * miss * GRAIN) / GRAIN)
        if label:
            self.positives += sign
            self.bins_true[int(score * BINS)] += sign
        else:
            self.bins_false[int(score * BINS)] += sign
        return loss

    def frozen(self) -> Quality:
        return Quality(
            n=self.n,
            positives=self.positives,
            loss=self.loss,
            squares=self.squares,
            bins_true=self.bins_true,
            bins_false=self.bins_false,
        )


def pair(known: Paired, difference: float, sign: int = 1) -> Paired:
    """One more difference in loss on the same event."""
    square = round(difference * difference * GRAIN) / GRAIN
    return Paired(n=known.n + sign, sum=known.sum + sign * difference, squares=known.squares + sign * square)


def total(parts: Iterable[Mapping[str, Quality]]) -> dict[str, Quality]:
    """Sums by version over partitions or windows, versions in order of name."""
    found: dict[str, Quality] = {}
    for part in parts:
        for version, q in part.items():
            known = found.get(version)
            found[version] = q if known is None else _added(known, q)
    return dict(sorted(found.items()))


def _added(a: Quality, b: Quality) -> Quality:
    return Quality(
        n=a.n + b.n,
        positives=a.positives + b.positives,
        loss=a.loss + b.loss,
        squares=a.squares + b.squares,
        bins_true=_columns(a.bins_true, b.bins_true),
        bins_false=_columns(a.bins_false, b.bins_false),
    )


def _columns(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [x + y for x, y in zip_longest(a, b, fillvalue=0)]


def total_paired(parts: Iterable[Mapping[str, Paired]]) -> dict[str, Paired]:
    """Paired differences by version over partitions or windows."""
    found: dict[str, Paired] = {}
    for part in parts:
        for version, p in part.items():
            known = found.get(version, Paired())
            found[version] = Paired(n=known.n + p.n, sum=known.sum + p.sum, squares=known.squares + p.squares)
    return dict(sorted(found.items()))


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
