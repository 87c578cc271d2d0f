"""Fairness: how the groups of a segment differ in what the answers are to them. Sums in, gaps out; whatever window or cohorts
the sums are of.

    selection_rate          answers that say yes, of all answers; needs no labels
    true_positive_rate      answers that say yes, of true outcomes (equal opportunity: Hardt, Price and Srebro 2016)
    false_positive_rate     answers that say yes, of false outcomes (with the former: equalised odds)
    precision               true outcomes, of answers that say yes
    calibration             share of true outcomes less mean score: 0 where scores mean what they say

Of answers that name a class, each of these but the last is of one class against the rest, and there are

    accuracy                answers that are right, of all outcomes
    calibration             the same less the mean probability of the class that was named

Of answers that are numbers, in the unit of the label, an error being the answer less the truth:

    mean_answer             mean of all answers; needs no labels (equal means: Calders et al. 2013)
    bias                    mean error (balanced residuals: the same)
    mae                     mean size of an error (bounded group loss: Agarwal, Dudik and Wu 2019)
    pinball, coverage       of a quantile: its mean loss; truths that are not above the answer, of all outcomes

A gap is that of the group less that of whom it is compared with. Its 95 % interval, of shares, is the hybrid score interval
(Newcombe 1998, method 10, from Wilson's limits); so is that of their ratio (Donner and Zou 2012), the "four-fifths rule" of
selection rates. Of calibration it is normal, with the spread seen or that which the scores tell, whichever is greater. Of means
of numbers it is that of Student or of Welch, whichever is wider.

How rarely chance gives as great a gap, either way: of shares Fisher's exact test, of means the tests of Student and Welch (see
apart.py). Of calibration Bernstein's inequality, which holds where few true outcomes make the normal tail too thin.

What there is too little of to be judged says so: below LEAST the interval is wide, and one person is a percentage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, inf, sqrt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from ..fairness import BY_CLASS, MEASURES, Fairness, measures_of, named
from ..records import Classed, Errors, Group, Measure
from .apart import Mean, chance, newcombe, ratio, student
from .binary import Z, confusion, wilson
from .exact import whole
from .loss import CLIP
from .quality import BINS, added
from .shift import discovered

if TYPE_CHECKING:
    from ..model import Model
    from ..segment import Segment

__all__ = ["LEAST", "Gap", "Gaps", "Treated", "gaps", "gaps_of", "treated", "wide"]

LEAST: Final = 30
"""Fewer of what a share is of are not judged; nor is calibration with fewer true outcomes, or fewer false ones."""
MATERIAL: Final = 0.1
"""Without a monitor, as `ps.fairness` has it by default."""
DISCOVERY: Final = 0.05
_MIDDLES: Final = [min(max((at + 0.5) / BINS, CLIP), 1 - CLIP) for at in range(BINS)]
_SPREADS: Final = [p * (1 - p) for p in _MIDDLES]


class Treated(msgspec.Struct, frozen=True, kw_only=True):
    """A group at a threshold: all that gaps are made of; of windows and of groups they add. Of classes, the true and false
    positives are the answers that are right and wrong. Sums of numbers are exact, as in Errors."""

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
    n: int = 0
    """Outcomes, of numbers; the rest is of these, too, but for classes."""
    given: dict[int, int] = {}
    given_squares: dict[int, int] = {}
    errors: Errors = Errors()
    classes: dict[str, Classed] = {}

    @property
    def positives(self) -> int:
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> int:
        return self.true_negatives + self.false_positives

    @property
    def covered(self) -> int:
        """Truths that were not above the answers, where these are a quantile."""
        return self.errors.covered.get(1, 0)

    @property
    def sound(self) -> bool:
        """Whether corrections have taken back no more than there is."""
        cells = (self.true_positives, self.false_positives, self.true_negatives, self.false_negatives, self.n, self.covered)
        sums = (self.errors.absolute, self.errors.squares, self.errors.pinball, self.errors.pinball_squares)
        shares = 0 <= self.selected <= self.answers and self.covered <= self.n
        return shares and min(cells) >= 0 and self.squares >= 0 and all(whole(each) >= 0 for each in sums)

    def share(self, measure: str) -> tuple[int, int]:
        """What a share counts, and of how many."""
        said = self.true_positives + self.false_positives
        return {
            "selection_rate": (self.selected, self.answers),
            "true_positive_rate": (self.true_positives, self.positives),
            "false_positive_rate": (self.false_positives, self.negatives),
            "precision": (self.true_positives, said),
            "accuracy": (self.true_positives, said),
            "coverage": (self.covered, self.n),
        }[measure]

    def mean(self, measure: str) -> Mean | None:
        """What a mean of numbers is of; None of fewer than two."""
        errors = self.errors
        n, total, squares = {
            "mean_answer": (self.answers, self.given, self.given_squares),
            "bias": (self.n, errors.signed, errors.squares),
            "mae": (self.n, errors.absolute, errors.squares),
            "pinball": (self.n, errors.pinball, errors.pinball_squares),
        }[measure]
        return Mean.of(n, total, squares) if n > 1 else None

    def against_rest(self, name: str) -> Treated:
        """One class against all others together, as yes and no."""
        found, n = self.classes.get(name, Classed()), self.true_positives + self.false_positives
        return Treated(
            answers=self.answers,
            selected=found.chosen,
            true_positives=found.right,
            false_positives=found.said - found.right,
            false_negatives=found.true - found.right,
            true_negatives=n - found.true - found.said + found.right,
        )


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
    of: str = ""
    """The class, of what is of one against the rest."""
    scale: float | None = None
    """Of numbers: what is material is a part of it, in their unit."""

    @property
    def name(self) -> str:
        """The measure, with its class."""
        return named(self.measure, self.of)

    @property
    def size(self) -> float:
        """How far apart, either way: of shares as they are, of numbers as a part of their scale; 0 where that cannot be said."""
        if self.gap is None or not self.gap.value:
            return 0.0
        return abs(self.gap.value) / (1.0 if self.scale is None else self.scale) if self.scale != 0 else inf

    @property
    def evidence(self) -> dict[str, Any]:
        """For records, and for `penstock.fairness.told`: what is known of it."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value not in (None, "")}


def treated(group: Group, threshold: float = 0.5) -> Treated:
    """A group at the threshold at which its answers were counted as saying yes, a multiple of 0.005."""
    quality = group.quality
    spread = sum(s * (a + b) for s, a, b in zip(_SPREADS, quality.bins_true, quality.bins_false, strict=False))
    if isinstance(quality.errors, Errors) or group.given:
        errors = quality.errors if isinstance(quality.errors, Errors) else Errors()
        return Treated(answers=group.answers, n=quality.n, given=group.given, given_squares=group.given_squares, errors=errors)
    if group.classes:
        return Treated(
            answers=group.answers,
            true_positives=quality.positives,
            false_positives=quality.n - quality.positives,
            scores=group.scores,
            squares=sum(
                (1 - p) ** 2 * a + p**2 * b for p, a, b in zip(_MIDDLES, quality.bins_true, quality.bins_false, strict=False)
            ),
            spread=spread,
            classes=group.classes,
        )
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
        spread=spread,
    )


def gaps(groups: Mapping[str, Treated], against: str = "", measures: Sequence[str] = MEASURES) -> list[Gap]:
    """Each measure of each level beside that of the level `against`, or of all others together; the same sums give the same bits.

    >>> found = gaps({"a": Treated(answers=100, selected=50), "b": Treated(answers=100, selected=30)}, against="b")
    >>> [round(x, 3) for x in (found[0].gap.value, found[0].gap.low, found[0].gap.high, found[0].ratio.value, found[0].p)]
    [0.2, 0.064, 0.326, 1.667, 0.006]
    """
    if len(groups) < 2:
        return []
    levels = sorted(groups)
    others = (
        dict.fromkeys(levels, groups.get(against, Treated())) if against else _others({each: groups[each] for each in levels})
    )
    classes = sorted({name for group in groups.values() for name in group.classes})
    found = []
    for level in levels:
        if level == against:
            continue
        group, other = groups[level], others[level]
        for measure in measures:
            if measure == "calibration":
                found.append(_calibration(level, against, measure, group, other))
            elif measure in _MEANS:
                found.append(_means(level, against, measure, group, other))
            elif classes and measure in BY_CLASS:
                for name in classes:
                    one = _share(level, against, measure, group.against_rest(name), other.against_rest(name))
                    found.append(msgspec.structs.replace(one, of=name))
            else:
                found.append(_share(level, against, measure, group, other))
    return found


def _others(groups: Mapping[str, Treated]) -> dict[str, Treated]:
    """For each group all others together, by sums from either end: what is taken away from a sum leaves its rounding behind."""
    before, after = dict[str, Treated](), dict[str, Treated]()
    for found, levels in ((before, list(groups)), (after, list(groups)[::-1])):
        total = Treated()
        for level in levels:
            found[level], total = total, added(total, groups[level])
    return {level: added(before[level], after[level]) for level in groups}


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
    measures, material = (monitor.measures, monitor.gap) if monitor else (measures_of(model.label), MATERIAL)
    threshold = model.value.above if model.value else 0.5
    found, order = (
        gaps({level: treated(group, threshold) for level, group in groups.items()}, beside, measures),
        segment.ordered(groups),
    )
    found.sort(key=lambda gap: (measures.index(gap.measure), gap.of, order.index(gap.group)))
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


_MEANS: Final = frozenset({"mean_answer", "bias", "mae", "pinball"})


def _means(level: str, against: str, measure: str, group: Treated, other: Treated) -> Gap:
    """Material is a part of the standard deviation of their answers (Glass 1976), else of their mean loss."""
    one, two = group.mean(measure), other.mean(measure)
    n, m = (group.answers, other.answers) if measure == "mean_answer" else (group.n, other.n)
    known = Gap(
        group=level,
        against=against,
        measure=measure,
        n=n,
        m=m,
        value=one.value if one else None,
        other=two.value if two else None,
    )
    if not (group.sound and other.sound):
        return msgspec.structs.replace(known, unjudged=_TAKEN_BACK)
    few = _few(n, m) if min(n, m) < LEAST else ""
    if one is None or two is None:
        return msgspec.structs.replace(known, unjudged=few)
    gap, p = student(one, two)
    size = other.mean("mae") if measure == "bias" else two
    assert size is not None
    return msgspec.structs.replace(
        known,
        gap=gap,
        ratio=ratio(_positive(one), _positive(two)) if measure in ("mae", "pinball") else None,
        p=None if few else p,
        unjudged=few,
        scale=sqrt(two.variance) if measure == "mean_answer" else size.value,
    )


def _positive(mean: Mean) -> Measure:
    found = mean.interval
    return msgspec.structs.replace(found, low=max(found.low, 0.0))


_TAKEN_BACK: Final = "corrections took back more than there is"


def _few(n: int, m: int) -> str:
    """Why so many are too few, if they are."""
    return f"too small: {min(n, m)} of {LEAST}" if min(n, m) < LEAST else ""


def _residual(group: Treated, n: int) -> float | None:
    return (group.positives - group.scores) / n if n > 0 else None


def _variance(group: Treated, n: int, residual: float) -> float:
    """Of the mean of n residuals."""
    return max(group.squares / n - residual**2, group.spread / n, 0.0) / n
