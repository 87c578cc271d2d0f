"""Estimates: how good answers will turn out to be whose labels have not come yet, and how wrong such estimates have been. Pure.

    scores of a cohort by version -> each version's calibration curve -> expected outcomes -> area, log loss, accuracy, label rate

That is confidence-based performance estimation (CBPE of NannyML; Bialek et al. 2024, arXiv 2401.08348), from counts alone. A
version's curve is the label rate in each of 200 bins of its scores (isotonic regression; Zadrozny and Elkan 2002), of the newest
some 5,000 labels of cohorts that are complete; it is learnt on as they come, and where few have it stays near the score itself.

An estimate is made once, at the end of its cohort, and never mended: when the cohort is complete, it is held against what came
true. Its interval is as wide as these errors justify: their 0.9 quantile, newer ones counting more (split conformal prediction
with weights that fade; Barber et al. 2023), so that it holds the truth 9 times in 10 while cohorts stay as hard to estimate as
they were lately, and widens soon after they do not. With fewer than some 12 errors no interval is justified, and none is said.

What it cannot see. It knows the inputs only by the scores that they were given. Where the meaning of a score changes (concept
drift) or regions come that no label has shown, it goes on to say what used to be true, for a whole horizon, until the first
labels contradict it; only then does the interval widen. It learns from answers that were labelled, and is held against these
alone: of those that nobody labels it knows nothing. So it is a forecast to read beside the others, and no gate asks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.records import Estimate, Quality
from penstock.statistics.binary import MIDDLES
from penstock.statistics.loss import log_losses
from penstock.statistics.quality import BINS, added, area, mean_loss

__all__ = ["LEVEL", "MEASURES", "Curve", "Estimator", "came", "expected", "margin"]

Floats = npt.NDArray[np.float64]

MEASURES: Final = ("accuracy", "auc", "label_rate", "log_loss")
LEVEL: Final = 0.9
"""How often the interval holds what comes true."""
FADES: Final = 0.95
"""What an error counts less with each one after it: those of the newest 14 are half of all, and two bad ones in a row widen the
interval."""
REMEMBERED: Final = 90
"""Errors; the weight of what is older is below 1 %."""
LABELS: Final = 5_000
"""Labels in a curve, older ones fading as newer come: the rate of all is known to 0.7 points then."""
DOUBT: Final = 0.5
"""Labels that the score itself is worth, in each bin."""
LEAST: Final = 30
"""Answers in a cohort below which nothing is expected of it, and labels below which nothing is compared with."""
LEADS: Final = 0.9
"""The share of answers from which on a cohort's served answers are a version's. What a mixture served is calibrated as served;
while several versions answer, each learns from its own scores."""
VERSIONS: Final = 4
"""Versions whose curves are kept, those that learnt last: a few back, as answers may be rolled back to them."""
ANSWERED: Final = ("none", "served")
"""Names in quality that are no version (window.NOBODY, window.SERVED)."""


class Curve(msgspec.Struct):
    """The outcomes of a version by its score, faded: what it is worth is `rates`."""

    true: list[float] = []
    false: list[float] = []

    def learn(self, quality: Quality) -> None:
        """Add the outcomes of a cohort; what corrections took back too much counts as nothing."""
        kept = min(1.0, LABELS / max(sum(self.true) + sum(self.false), 1.0))
        for name, more in (("true", quality.bins_true), ("false", quality.bins_false)):
            known = added(getattr(self, name), [0.0] * BINS)
            setattr(self, name, [kept * a + max(b, 0) for a, b in zip(known, added(more, [0] * BINS), strict=True)])

    def rates(self) -> Floats:
        """The label rate of each bin, (BINS,), which never falls with the score."""
        from scipy.optimize import isotonic_regression

        true, false = (np.array(added(each, [0.0] * BINS)) for each in (self.true, self.false))
        weights = true + false + DOUBT
        found: Floats = isotonic_regression((true + DOUBT * MIDDLES) / weights, weights=weights).x
        return found


class Estimator(msgspec.Struct):
    """What is learnt from the complete cohorts of a model: curves by version, those that learnt last at the end, and by measure
    what came true minus what was expected, the newest last."""

    curves: dict[str, Curve] = {}
    errors: dict[str, list[float]] = {}

    def estimate(self, scores: Mapping[str, Sequence[int]], above: float = 0.5) -> dict[str, Estimate]:
        """What is to be expected of answers, by measure; of too few nothing. `scores`: what was answered, in BINS bins, by the
        version that answered; `above`: from which score on an answer says yes."""
        if sum(map(sum, scores.values())) < LEAST:
            return {}
        true, false = np.zeros(BINS), np.zeros(BINS)
        for version, counts in sorted(scores.items()):
            n, rates = np.array(counts, np.float64), self.curves.get(version, Curve()).rates()
            true, false = true + n * rates, false + n * (1 - rates)
        return {name: self._measure(name, value) for name, value in expected(true, false, above).items()}

    def _measure(self, name: str, value: float) -> Estimate:
        errors = self.errors.get(name, [])
        half = margin(errors)
        if half is None:
            return Estimate(value=value, compared=len(errors), error=_usual(errors))
        low, high = max(value - half, 0.0), value + half if name == "log_loss" else min(value + half, 1.0)
        return Estimate(value=value, low=low, high=high, error=_usual(errors), compared=len(errors))

    def learn(
        self,
        quality: Mapping[str, Quality],
        scores: Mapping[str, Sequence[int]],
        estimated: Mapping[str, Estimate],
        above: float = 0.5,
    ) -> None:
        """A cohort is complete: its estimate is compared with what came true, and the curves learn from its outcomes."""
        served = quality.get("served", Quality())
        for name, truth in came(served, above).items():
            if name in estimated:
                self.errors[name] = [*self.errors.get(name, []), truth - estimated[name].value][-REMEMBERED:]
        whole = sum(map(sum, scores.values()))
        leader = next((version for version, counts in scores.items() if sum(counts) >= LEADS * whole), None)
        for version in sorted(quality.keys() - set(ANSWERED)):
            curve = self.curves.pop(version, Curve())
            curve.learn(served if version == leader else quality[version])
            self.curves[version] = curve
        for version in list(self.curves)[:-VERSIONS]:
            del self.curves[version]


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


def came(served: Quality, above: float = 0.5) -> dict[str, float]:
    """The same measures of what came true; nothing of fewer than LEAST outcomes, or where corrections took back too much."""
    true, false = added(served.bins_true, [0] * BINS), added(served.bins_false, [0] * BINS)
    loss, under, cut = mean_loss(served), area(served), round(above * BINS)
    if served.n < LEAST or loss is None or min(*true, *false) < 0:
        return {}
    found = {
        "accuracy": (sum(true[cut:]) + sum(false[:cut])) / served.n,
        "label_rate": served.positives / served.n,
        "log_loss": loss,
    }
    return found | ({} if under is None else {"auc": under})


def margin(errors: Sequence[float]) -> float | None:
    """How far the next truth lies at most from its estimate, at LEVEL, after these errors (the newest last); None where they are
    too few to say.

    >>> margin([0.1] * 11), margin([0.1] * 12), margin([0.1] * 30 + [0.3] * 2)
    (None, 0.1, 0.3)
    """
    sizes, weights = np.abs(np.array(errors, np.float64)), FADES ** np.arange(len(errors), 0, -1) / FADES
    order = np.argsort(sizes, kind="stable")
    reached = np.flatnonzero(np.cumsum(weights[order]) >= LEVEL * (weights.sum() + 1.0))  # 1: the truth to come, however far
    return float(sizes[order[reached[0]]]) if len(reached) else None


def _usual(errors: Sequence[float]) -> float | None:
    """The mean size of the errors, newer ones counting more."""
    if not errors:
        return None
    weights: Any = FADES ** np.arange(len(errors), 0, -1)
    return float(np.abs(errors) @ weights / weights.sum())
