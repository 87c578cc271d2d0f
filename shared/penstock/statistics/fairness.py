"""Fairness: how the groups of a segment differ in what the answers are to them. Sums in, gaps out; whatever window or cohorts
the sums are of.

    selection_rate          answers that say yes, of all answers; needs no labels
    true_positive_rate      answers that say yes, of true outcomes (equal opportunity: Hardt, Price and Srebro 2016)
    false_positive_rate     answers that say yes, of false outcomes (with the former: equalised odds)
    precision               true outcomes, of answers that say yes
    calibration             share of true outcomes less mean score: 0 where scores mean what they say

A gap is that of the group less that of whom it is compared with. Its 95 % interval, of shares, is the hybrid score interval
(Newcombe 1998, method 10, from Wilson's limits); so is that of their ratio (Donner and Zou 2012), the "four-fifths rule" of
selection rates. Of calibration it is normal, with the spread seen or that which the scores tell, whichever is greater.

How rarely chance gives as great a gap, either way: of shares Fisher's exact test, twice the smaller tail, this bounded by the
geometric series of its first two terms (the hypergeometric is log-concave), so it is never too small, and 10 % too great three
standard errors out. Of calibration Bernstein's inequality, which holds where few true outcomes make the normal tail too thin.

What there is too little of to be judged says so: below LEAST the interval is wide, and one person is a percentage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, lgamma, sqrt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from ..fairness import MEASURES, Fairness
from ..records import Group, Measure
from .binary import Z, confusion, wilson
from .loss import CLIP
from .quality import BINS, added
from .shift import discovered

if TYPE_CHECKING:
    from ..model import Model
    from ..segment import Segment

__all__ = ["LEAST", "Gap", "Gaps", "Treated", "chance", "gaps", "gaps_of", "newcombe", "ratio", "treated", "wide"]

LEAST: Final = 30
"""Fewer of what a share is of are not judged; nor is calibration with fewer true outcomes, or fewer false ones."""
MATERIAL: Final = 0.1
"""Without a monitor, as `ps.fairness` has it by default."""
DISCOVERY: Final = 0.05
_SPREADS: Final = [p * (1 - p) for p in (min(max((at + 0.5) / BINS, CLIP), 1 - CLIP) for at in range(BINS))]


class Treated(msgspec.Struct, frozen=True, kw_only=True):
    """A group at a threshold: all that gaps are made of; of windows and of groups they add."""

    answers: int = 0
    selected: int = 0
    true_positives: int = 0
    false_positives: int = 0
    true_negatives: int = 0
    false_negatives: int = 0
    scores: float = 0.0
    squares: float = 0.0
    spread: float = 0.0
    """Sum of score x (1 - score): the variance of the true outcomes, were the scores right."""

    def __sub__(self, other: Treated) -> Treated:
        return Treated(**{name: getattr(self, name) - getattr(other, name) for name in self.__struct_fields__})

    @property
    def positives(self) -> int:
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> int:
        return self.true_negatives + self.false_positives

    @property
    def sound(self) -> bool:
        """Whether corrections have taken back no more than there is."""
        cells = (self.true_positives, self.false_positives, self.true_negatives, self.false_negatives)
        return min(cells) >= 0 and self.squares >= 0 and 0 <= self.selected <= self.answers

    def share(self, measure: str) -> tuple[int, int]:
        """What a share counts, and of how many."""
        said = self.true_positives + self.false_positives
        return {
            "selection_rate": (self.selected, self.answers),
            "true_positive_rate": (self.true_positives, self.positives),
            "false_positive_rate": (self.false_positives, self.negatives),
            "precision": (self.true_positives, said),
        }[measure]


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of a group beside that of whom it is compared with (`against`; "" are all others). What is None cannot be said:
    `value` and `other` of nothing, the gap where one of these is None, the ratio to nothing, p where it is not judged."""

    group: str
    against: str
    measure: str
    value: float | None
    other: float | None
    n: int
    m: int
    """What the shares are of: in the group, and in the other."""
    gap: Measure | None = None
    ratio: Measure | None = None
    p: float | None = None
    """How rarely chance gives as great a gap."""
    unjudged: str = ""
    """Why p is None."""

    @property
    def size(self) -> float:
        """How far apart, either way; 0 where that cannot be said."""
        return abs(self.gap.value) if self.gap else 0.0

    @property
    def evidence(self) -> dict[str, Any]:
        """For records, and for `penstock.fairness.told`: what is known of it."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value not in (None, "")}


def treated(group: Group, threshold: float = 0.5) -> Treated:
    """A group at the threshold at which its answers were counted as saying yes, a multiple of 0.005."""
    quality = group.quality
    tp, fp, tn, fn = confusion(quality, threshold)
    return Treated(
        answers=group.answers,
        selected=group.selected,
        true_positives=tp,
        false_positives=fp,
        true_negatives=tn,
        false_negatives=fn,
        scores=group.scores,
        squares=quality.squares,
        spread=sum(s * (a + b) for s, a, b in zip(_SPREADS, quality.bins_true, quality.bins_false, strict=False)),
    )


def gaps(groups: Mapping[str, Treated], against: str = "", measures: Sequence[str] = MEASURES) -> list[Gap]:
    """Each measure of each level beside that of the level `against`, or of all others together; the same sums give the same bits.

    >>> found = gaps({"a": Treated(answers=100, selected=50), "b": Treated(answers=100, selected=30)}, against="b")
    >>> [round(x, 3) for x in (found[0].gap.value, found[0].gap.low, found[0].gap.high, found[0].ratio.value, found[0].p)]
    [0.2, 0.064, 0.326, 1.667, 0.006]
    """
    whole = Treated()
    for group in groups.values():
        whole = added(whole, group)
    found = []
    for level, group in sorted(groups.items()):
        if level == against or len(groups) < 2:
            continue
        other = groups.get(against, Treated()) if against else whole - group
        found += [
            (_calibration if measure == "calibration" else _share)(level, against, measure, group, other) for measure in measures
        ]
    return found


class Gaps(NamedTuple):
    """The gaps of a segment, in the order in which they are shown; `against` "": all others. `wide` are those that are both
    beyond chance and greater than is material."""

    against: str
    all: list[Gap]
    wide: list[Gap]


def gaps_of(model: Model, segment: Segment, groups: Mapping[str, Group], against: str | None = None) -> Gaps:
    """The gaps of a model, as its monitor has it: which measures, against whom (unless said), and what is material (MATERIAL
    where no monitor says). Chance is a false discovery rate of DISCOVERY over all of them."""
    monitor = next((m for m in model.monitors if isinstance(m, Fairness) and m.segment.column is segment.column), None)
    beside = against if against is not None else monitor.against if monitor else ""
    measures, material = (monitor.measures, monitor.gap) if monitor else (MEASURES, MATERIAL)
    threshold = model.value.above if model.value else 0.5
    found, order = (
        gaps({level: treated(group, threshold) for level, group in groups.items()}, beside, measures),
        segment.ordered(groups),
    )
    found.sort(key=lambda gap: (measures.index(gap.measure), order.index(gap.group)))
    return Gaps(beside, found, wide(found, DISCOVERY, material))


def wide(found: Sequence[Gap], level: float, limit: float) -> list[Gap]:
    """Those that are both beyond chance (false discovery rate `level` over all that are judged) and greater than `limit`."""
    judged = [(gap, gap.p) for gap in found if gap.p is not None]
    if not judged:
        return []
    critical, n = discovered(np.array([p for _, p in judged], np.float64), level)
    return [gap for gap, p in judged if n and p <= critical and gap.size > limit]


def _share(level: str, against: str, measure: str, group: Treated, other: Treated) -> Gap:
    (a, n), (b, m) = group.share(measure), other.share(measure)
    known = Gap(
        group=level, against=against, measure=measure, n=n, m=m,
        value=a / n if 0 <= a <= n > 0 else None, other=b / m if 0 <= b <= m > 0 else None,
    )  # fmt: skip
    if not (group.sound and other.sound):
        return msgspec.structs.replace(known, unjudged=_TAKEN_BACK)
    one, two = wilson(a, n), wilson(b, m)
    if one is None or two is None:
        return msgspec.structs.replace(known, unjudged=_few(n, m))
    few = _few(n, m) if min(n, m) < LEAST else ""
    return msgspec.structs.replace(
        known, gap=newcombe(one, two), ratio=ratio(one, two), p=None if few else chance(a, n, b, m), unjudged=few
    )


def _calibration(level: str, against: str, measure: str, group: Treated, other: Treated) -> Gap:
    n, m = group.positives + group.negatives, other.positives + other.negatives
    known = Gap(group=level, against=against, measure=measure, n=n, m=m, value=_residual(group, n), other=_residual(other, m))
    if not (group.sound and other.sound):
        return msgspec.structs.replace(known, unjudged=_TAKEN_BACK)
    if known.value is None or known.other is None:
        return msgspec.structs.replace(known, unjudged=_few(n, m))
    value, variance = known.value - known.other, _variance(group, n, known.value) + _variance(other, m, known.other)
    half = Z * sqrt(variance)
    few = _few(min(group.positives, group.negatives), min(other.positives, other.negatives))
    p = None if few else min(1.0, 2 * exp(-(value**2) / (2 * (variance + abs(value) / min(n, m) / 3))))
    gap = Measure(value=value, low=max(value - half, -2.0), high=min(value + half, 2.0))
    return msgspec.structs.replace(known, gap=gap, p=p, unjudged=few)


_TAKEN_BACK: Final = "corrections took back more than there is"


def _few(n: int, m: int) -> str:
    """Why so many are too few, if they are."""
    return f"too small: {min(n, m)} of {LEAST}" if min(n, m) < LEAST else ""


def _residual(group: Treated, n: int) -> float | None:
    return (group.positives - group.scores) / n if n > 0 else None


def _variance(group: Treated, n: int, residual: float) -> float:
    """Of the mean of n residuals."""
    return max(group.squares / n - residual**2, group.spread / n, 0.0) / n


def newcombe(one: Measure, two: Measure) -> Measure:
    """The difference of two independent shares from their Wilson intervals (Newcombe 1998, method 10; his first example).

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
    """The ratio of two independent shares from their Wilson intervals (MOVER: Donner and Zou 2012); None where the second
    is 0.

    >>> found = ratio(wilson(56, 70), wilson(48, 80))
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (1.333, 1.078, 1.663)
    """
    if two.value <= 0:
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
