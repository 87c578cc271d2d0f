"""What is to be expected of answers whose labels have not come, from what they say alone: a curve for each version. Pure.

    way      learns                                                 expects
    yes, no  the label rate by score                                accuracy, area, label rate, log loss
    classes  how often the class named is true, and the log loss    accuracy, log loss
             by its probability
    numbers  the size of errors, and the loss, by answer            mean absolute error; root mean square, or pinball loss

Yes, no and classes: confidence-based performance estimation (CBPE of NannyML; Bialek et al. 2024, arXiv 2401.08348). Of classes
it is the probability of the one named that is calibrated ("top label", Gupta and Ramdas 2022), which is all that accuracy needs.
The calibration is isotonic regression (Zadrozny and Elkan 2002) over 200 bins, of the newest some 5,000 labels; where few have
come it stays near the probability itself.

Losses: direct loss estimation (DLE of NannyML), with what was answered as its only input, as inputs are not kept until labels
come: the mean loss of answers of like size, in groups with as many labels each (a regressogram, Tukey 1961). Answers greater than
any with a label are taken for the greatest ones. Of classes without labels the loss is the entropy of the probability, as if the
other classes shared the rest alike. A number says nothing of how sure it is, so of numbers without labels nothing is expected.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.model import Model
from penstock.records import Confusion, Errors, Quality, Scored
from penstock.statistics.binary import MIDDLES
from penstock.statistics.exact import valued
from penstock.statistics.loss import log_losses
from penstock.statistics.quality import BINS, added, area, mean_loss

__all__ = ["LEAST", "YES_NO", "Answered", "Classes", "Curve", "Numbers", "Way", "YesNo", "expected", "way_of"]

Floats = npt.NDArray[np.float64]
Answered = Mapping[str, Mapping[int, int]]
"""Answers by version and bin, or step, of what was answered."""

LABELS: Final = 5_000
"""Labels in a curve, older ones fading as newer come: the rate of all is known to 0.7 points then."""
DOUBT: Final = 0.5
"""Labels that the score itself is worth, in each bin."""
LEAST: Final = 30
"""Answers in a cohort below which nothing is expected of it, and labels below which nothing is compared with, or lost."""
LEADS: Final = 0.9
"""The share of answers from which on a cohort's answers are those of the versions that are known."""
GROUPS: Final = 20
"""Of answers of like size, with LEAST labels each or more."""


class Curve(msgspec.Struct):
    """The outcomes of a version by what it answered, faded: what it is worth is `rates`, or the mean of `losses`."""

    true: list[float] = []
    false: list[float] = []
    counts: dict[int, float] = {}
    losses: dict[str, dict[int, float]] = {}
    """By name of the loss, where it is learnt itself; of `counts`."""

    def learn(self, quality: Quality) -> None:
        """Add the outcomes of a cohort; what corrections took back too much counts as nothing."""
        kept = min(1.0, LABELS / max(sum(self.true) + sum(self.false), 1.0))
        for name, more in (("true", quality.bins_true), ("false", quality.bins_false)):
            known = added(getattr(self, name), [0.0] * BINS)
            setattr(self, name, [kept * a + max(b, 0) for a, b in zip(known, added(more, [0] * BINS), strict=True)])

    def lose(self, counts: Mapping[int, float], losses: Mapping[str, Mapping[int, float]]) -> None:
        """Add the losses of a cohort, by what was answered."""
        kept = min(1.0, LABELS / max(sum(self.counts.values()), 1.0))
        sound = {place: n for place, n in counts.items() if n > 0}
        self.counts = _faded(self.counts, kept, sound)
        for name, found in losses.items():
            more = {place: max(found.get(place, 0.0), 0.0) for place in sound}
            self.losses[name] = _faded(self.losses.get(name, {}), kept, more)

    def rates(self) -> Floats:
        """The label rate of each bin, (BINS,), which never falls with the score."""
        from scipy.optimize import isotonic_regression

        true, false = (np.array(added(each, [0.0] * BINS)) for each in (self.true, self.false))
        weights = true + false + DOUBT
        found: Floats = isotonic_regression((true + DOUBT * MIDDLES) / weights, weights=weights).x
        return found

    def expect(self, answers: Mapping[int, int]) -> dict[str, float]:
        """The summed losses of answers, by name; nothing where too few labels are known."""
        if sum(self.counts.values()) < LEAST:
            return {}
        uppers, places, labels = _groups(self.counts)
        found = {}
        for name, losses in self.losses.items():
            means = [sum(losses.get(p, 0.0) for p in group) / n for group, n in zip(places, labels, strict=True)]
            found[name] = sum(n * means[min(bisect_left(uppers, place), len(means) - 1)] for place, n in sorted(answers.items()))
        return found


def _faded(known: Mapping[int, float], kept: float, more: Mapping[int, float]) -> dict[int, float]:
    return {p: kept * known.get(p, 0.0) + more.get(p, 0.0) for p in sorted(known.keys() | more.keys())}


def _groups(counts: Mapping[int, float]) -> tuple[list[int], list[list[int]], list[float]]:
    """Neighbours together until they have their share of the labels: the last place, the places, and the labels of each.

    >>> _groups({1: 20.0, 2: 15.0, 7: 40.0, 9: 1.0})
    ([2, 9], [[1, 2], [7, 9]], [35.0, 41.0])
    """
    enough = max(LEAST, sum(counts.values()) / GROUPS)
    places, labels = list[list[int]](), list[float]()
    for place, n in sorted(counts.items()):
        if labels and labels[-1] < enough:
            places[-1].append(place)
            labels[-1] += n
        else:
            places.append([place])
            labels.append(n)
    if len(labels) > 1 and labels[-1] < enough:
        places[-2:], labels[-2:] = [places[-2] + places[-1]], [labels[-2] + labels[-1]]
    return [group[-1] for group in places], places, labels


class Way(Protocol):
    """How answers of one kind are expected to turn out."""

    def answered(self, scored: Scored) -> Answered:
        """What was answered, by version."""

    def learn(self, curve: Curve, quality: Quality) -> None:
        """From the outcomes of a cohort that is complete."""

    def expected(self, answered: Answered, curves: Mapping[str, Curve]) -> dict[str, float]:
        """Measures of answers; nothing where it cannot be had."""

    def came(self, served: Quality) -> dict[str, float]:
        """The same measures of what came true; nothing of fewer than LEAST outcomes, or where corrections took back too much."""


def way_of(model: Model) -> Way:
    """That of a model's label."""
    if model.label.task == "multiclass":
        return Classes(len(model.label.classes))
    if model.label.task == "regression":
        return Numbers(model.label.quantile)
    return YesNo(model.value.above if model.value else 0.5)


class YesNo:
    """`above`: from which score on an answer says yes."""

    def __init__(self, above: float = 0.5) -> None:
        self._above = above

    def answered(self, scored: Scored) -> Answered:
        return _binned(scored.scores)

    def learn(self, curve: Curve, quality: Quality) -> None:
        curve.learn(quality)

    def expected(self, answered: Answered, curves: Mapping[str, Curve]) -> dict[str, float]:
        true, false = np.zeros(BINS), np.zeros(BINS)
        for version, counts in sorted(answered.items()):
            n, rates = _counts(counts), curves.get(version, Curve()).rates()
            true, false = true + n * rates, false + n * (1 - rates)
        return expected(true, false, self._above)

    def came(self, served: Quality) -> dict[str, float]:
        true, false = added(served.bins_true, [0] * BINS), added(served.bins_false, [0] * BINS)
        loss, under, cut = mean_loss(served), area(served), round(self._above * BINS)
        if served.n < LEAST or loss is None or min(*true, *false) < 0:
            return {}
        found = {
            "accuracy": (sum(true[cut:]) + sum(false[:cut])) / served.n,
            "label_rate": served.positives / served.n,
            "log_loss": loss,
        }
        return found | ({} if under is None else {"auc": under})


YES_NO: Final = YesNo()


def expected(true: Floats, false: Floats, above: float = 0.5) -> dict[str, float]:
    """Measures of outcomes that are expected, by score: (BINS,) each, no whole numbers. The area only with both kinds.

    >>> half = np.full(BINS, 0.5)
    >>> found = expected(half * MIDDLES, half * (1 - MIDDLES))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'accuracy': 0.75, 'label_rate': 0.5, 'log_loss': 0.5, 'auc': 0.833}
    """
    positives, negatives, cut = float(true.sum()), float(false.sum()), round(above * BINS)
    n = positives + negatives
    losses = [log_losses(np.full(BINS, label), MIDDLES) for label in (True, False)]
    found = {
        "accuracy": float(true[cut:].sum() + false[:cut].sum()) / n,
        "label_rate": positives / n,
        "log_loss": float(true @ losses[0] + false @ losses[1]) / n,
    }
    if positives > 0 and negatives > 0:
        found["auc"] = float(true @ (np.cumsum(false) - false / 2)) / (positives * negatives)
    return found


class Classes:
    """Of `classes` so many. Areas and F-scores, which need the probability of every class, are not expected."""

    def __init__(self, classes: int) -> None:
        self._others = max(classes - 1, 1)

    def answered(self, scored: Scored) -> Answered:
        return _binned(scored.scores)

    def learn(self, curve: Curve, quality: Quality) -> None:
        curve.learn(quality)
        losses = quality.confusion.losses if isinstance(quality.confusion, Confusion) else []
        counts = dict(enumerate(added(quality.bins_true, quality.bins_false)))
        if losses:  # none in a cohort that an older release has counted
            curve.lose(counts, {"log_loss": dict(enumerate(losses))})

    def expected(self, answered: Answered, curves: Mapping[str, Curve]) -> dict[str, float]:
        n = right = loss = 0.0
        rest = 1 - MIDDLES
        entropies = -(MIDDLES * np.log(MIDDLES) + rest * np.log(rest / self._others))
        for version, each in sorted(answered.items()):
            counts, curve = _counts(each), curves.get(version, Curve())
            n, right = n + float(counts.sum()), right + float(counts @ curve.rates())
            loss += curve.expect(each).get("log_loss", float(counts @ entropies))
        return {"accuracy": right / n, "log_loss": loss / n}

    def came(self, served: Quality) -> dict[str, float]:
        loss = mean_loss(served)
        if served.n < LEAST or loss is None or not 0 <= served.positives <= served.n:
            return {}
        return {"accuracy": served.positives / served.n, "log_loss": loss}


class Numbers:
    """`quantile`: the one that the label declares."""

    def __init__(self, quantile: float | None = None) -> None:
        self._quantile = quantile

    def answered(self, scored: Scored) -> Answered:
        return scored.sizes if isinstance(scored.sizes, dict) else {}

    def learn(self, curve: Curve, quality: Quality) -> None:
        if isinstance(errors := quality.errors, Errors):
            losses = {"missed": errors.missed, "lost": errors.lost}
            curve.lose(
                {step: float(n) for step, n in errors.answers.items()},
                {name: {step: valued(sums) for step, sums in found.items()} for name, found in losses.items()},
            )

    def expected(self, answered: Answered, curves: Mapping[str, Curve]) -> dict[str, float]:
        n = missed = lost = 0.0
        for version, counts in sorted(answered.items()):
            if found := curves.get(version, Curve()).expect(counts):
                n, missed, lost = n + sum(counts.values()), missed + found["missed"], lost + found["lost"]
        if n < LEADS * sum(sum(counts.values()) for counts in answered.values()):
            return {}
        return self._named(missed / n, lost / n)

    def came(self, served: Quality) -> dict[str, float]:
        errors = served.errors
        if served.n < LEAST or not isinstance(errors, Errors):
            return {}
        lost = valued(errors.squares if self._quantile is None else errors.pinball)
        missed = valued(errors.absolute)
        return self._named(missed / served.n, lost / served.n) if min(missed, lost) >= 0 else {}

    def _named(self, missed: float, lost: float) -> dict[str, float]:
        return {"mae": missed, **({"rmse": sqrt(lost)} if self._quantile is None else {"pinball": lost})}


def _binned(scores: Mapping[str, Sequence[int]]) -> Answered:
    return {version: {at: n for at, n in enumerate(counts) if n} for version, counts in scores.items()}


def _counts(counts: Mapping[int, int]) -> Floats:
    found = np.zeros(BINS)
    found[list(counts)] = list(counts.values())
    return found
