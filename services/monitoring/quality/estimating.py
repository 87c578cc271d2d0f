"""Estimates: how good answers will turn out to be whose labels have not come yet, and how wrong such estimates have been. Pure.

    answers of a cohort by version -> each version's curve -> measures that are to be expected

All from counts: how answers of each kind are expected to turn out says expecting.py. A version's curve is learnt of the newest
some 5,000 labels of cohorts that are complete, and learnt on as they come.

An estimate is made once, at the end of its cohort, and never mended: when the cohort is complete, it is held against what came
true. Its interval is as wide as these errors justify: their 0.9 quantile, newer ones counting more (split conformal prediction
with weights that fade; Barber et al. 2023), so that it holds the truth 9 times in 10 while cohorts stay as hard to estimate as
they were lately, and widens soon after they do not. With fewer than some 12 errors no interval is justified, and none is said.

What it cannot see. It knows the inputs only by the answers that they were given. Where the meaning of an answer changes (concept
drift) or regions come that no label has shown, it goes on to say what used to be true, for a whole horizon, until the first
labels contradict it; only then does the interval widen. It learns from answers that were labelled, and is held against these
alone: of those that nobody labels it knows nothing. So it is a forecast to read beside the others, and no gate asks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from penstock.records import Estimate, Quality, Scored

from .expecting import LEAST, YES_NO, Answered, Curve, Way

__all__ = ["LEVEL", "Estimator", "margin"]

SHARES: Final = ("accuracy", "auc", "label_rate")
"""Measures that are at most 1."""
LEVEL: Final = 0.9
"""How often the interval holds what comes true."""
FADES: Final = 0.95
"""What an error counts less with each one after it: those of the newest 14 are half of all, and two bad ones in a row widen the
interval."""
REMEMBERED: Final = 90
"""Errors; the weight of what is older is below 1 %."""
LEADS: Final = 0.9
"""The share of answers from which on a cohort's served answers are a version's. What a mixture served is calibrated as served;
while several versions answer, each learns from its own scores."""
VERSIONS: Final = 4
"""Versions whose curves are kept, those that learnt last, of one cohort those that answered most: a few back, as answers may be
rolled back to them."""
ANSWERED: Final = ("none", "served")
"""Names in quality that are no version (window.NOBODY, window.SERVED)."""


class Estimator(msgspec.Struct):
    """What is learnt from the complete cohorts of a model: curves by version, those that learnt last at the end, and by measure
    what came true minus what was expected, the newest last."""

    curves: dict[str, Curve] = {}
    errors: dict[str, list[float]] = {}

    def estimate(self, scored: Scored, way: Way = YES_NO) -> dict[str, Estimate]:
        """What is to be expected of answers, by measure; of too few nothing, nor where it cannot be had (see expecting.py)."""
        answered = way.answered(scored)
        if _count(answered) < LEAST:
            return {}
        return {name: self._measure(name, value) for name, value in way.expected(answered, self.curves).items()}

    def _measure(self, name: str, value: float) -> Estimate:
        errors = self.errors.get(name, [])
        half = margin(errors)
        if half is None:
            return Estimate(value=value, compared=len(errors), error=_usual(errors))
        low, high = max(value - half, 0.0), min(value + half, 1.0) if name in SHARES else value + half
        return Estimate(value=value, low=low, high=high, error=_usual(errors), compared=len(errors))

    def learn(
        self,
        quality: Mapping[str, Quality],
        scored: Scored,
        estimated: Mapping[str, Estimate],
        way: Way = YES_NO,
    ) -> None:
        """A cohort is complete: its estimate is compared with what came true, and the curves learn from its outcomes."""
        served = quality.get("served", Quality())
        for name, truth in way.came(served).items():
            if name in estimated:
                self.errors[name] = [*self.errors.get(name, []), truth - estimated[name].value][-REMEMBERED:]
        answered = way.answered(scored)
        whole = _count(answered)
        leader = next((version for version, counts in answered.items() if sum(counts.values()) >= LEADS * whole), None)
        known = quality.keys() - set(ANSWERED)
        for version in sorted(known, key=lambda version: (sum(answered.get(version, {}).values()), version)):
            curve = self.curves.pop(version, Curve())
            way.learn(curve, served if version == leader else quality[version])
            self.curves[version] = curve
        for version in list(self.curves)[:-VERSIONS]:
            del self.curves[version]


def _count(answered: Answered) -> int:
    return sum(sum(counts.values()) for counts in answered.values())


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
