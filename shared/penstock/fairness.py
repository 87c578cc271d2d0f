"""Fairness: is a model as good to one group as to the others? The monitor of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from . import duration
from .label import Label
from .mistake import mistake, nearest
from .segment import Segment, called

__all__ = ["BY_CLASS", "MEASURES", "Fairness", "fairness", "measures_of", "named", "told"]

BY_CLASS = ("selection_rate", "true_positive_rate", "false_positive_rate", "precision")
"""Of answers that name a class, what is of one class against the rest."""
MEASURES = (*BY_CLASS, "calibration")
"""What is compared, of answers yes and no; which is which says `penstock.statistics.fairness`."""
_CLASSES = ("accuracy", *MEASURES)
_NUMBERS, _QUANTILES = ("mean_answer", "bias", "mae"), ("mean_answer", "coverage", "pinball")
_ALL = tuple(dict.fromkeys((*MEASURES, *_CLASSES, *_NUMBERS, *_QUANTILES)))


def measures_of(label: Label) -> tuple[str, ...]:
    """What can be compared of the answers to a label."""
    if label.task == "binary":
        return MEASURES
    return _CLASSES if label.task == "multiclass" else _NUMBERS if label.quantile is None else _QUANTILES


@dataclass(frozen=True)
class Fairness:
    """Are the groups of a segment treated alike? Each is compared with the level `against` ("": with all others together), one
    verdict a period of `every`. Alarms when some gap in some of the `measures` is significant (`false_alarms_per_month`, over all
    groups and measures) and greater than `gap`. The measures of a model's monitor are never none: see `of`."""

    segment: Segment
    against: str
    gap: float
    measures: tuple[str, ...]
    every: int
    false_alarms_per_month: float
    signal: ClassVar[str] = "fairness"

    def of(self, label: Label, said: str) -> Fairness:
        """That of a model with such a label: without measures it watches all that there are. DefinitionError (of what `said`
        names) where it asks for one of answers of another kind."""
        known = measures_of(label)
        for name in self.measures:
            if name not in known:
                kinds = {"binary": "yes and no", "multiclass": "classes", "regression": "numbers"}
                what = kinds[label.task] if label.quantile is None else f"a quantile of {kinds[label.task]}"
                mistake(f"{said}: fairness measures {name}, and the answers are {what}", f"choose of: {', '.join(known)}")
        return replace(self, measures=tuple(name for name in known if not self.measures or name in self.measures))


def fairness(
    by: object,
    against: str = "",
    *,
    gap: float = 0.1,
    measures: Sequence[str] | None = None,
    every: str = "1d",
    false_alarms_per_month: float = 1.0,
) -> Fairness:
    """Watch the gaps between the groups of a segment (a column of the scored event, or `ps.segment(...)`).

        monitors=[ps.fairness(Applicant.sex, gap=0.05, measures=["true_positive_rate"])]

    The selection rate needs no labels: its gap is known at once. Groups whose shares of true outcomes differ cannot be alike in
    all measures (Chouldechova 2017), so name those that matter; without any named it watches all that there are:

        yes and no      selection_rate, true_positive_rate, false_positive_rate, precision, calibration
        classes         accuracy, calibration, and the others above of each class against the rest
        numbers         mean_answer (needs no labels), bias, mae
        their quantile  mean_answer, coverage, pinball

    `gap` is material: a difference of shares; of numbers a part of the mean loss of those whom a group is compared with (of their
    mean absolute error for `bias`), or of the standard deviation of their answers (`mean_answer`). So at 0.1 errors that are a
    tenth greater are.

    Groups of fewer than 30 are said to be too small, and not judged. An alarm of this monitor starts no refit: another fit on the
    same data need not be fairer.
    """
    if not 0 < gap < 1 or false_alarms_per_month <= 0:
        mistake(
            f"fairness(gap={gap}, false_alarms_per_month={false_alarms_per_month})",
            "gap lies between 0 and 1, false_alarms_per_month above 0",
        )
    for name in measures or ():
        if name not in _ALL:
            mistake(f"fairness(measures=...): {name!r} is none", nearest(str(name), _ALL))
    if measures is not None and (not measures or isinstance(measures, str)):
        mistake("fairness(measures=...) names none", f"write a list of some of: {', '.join(_ALL)}")
    known = tuple(name for name in _ALL if name in (measures or ()))
    return Fairness(called(by), against, gap, known, duration.micros(every), false_alarms_per_month)


def told(gap: Mapping[str, Any]) -> str:
    """A gap in the evidence of an alarm, in words; "" of what is none.

    >>> told({"group": "b", "measure": "precision", "value": 0.31, "other": 0.55, "gap": {"low": -0.3, "high": -0.18}, "n": 90})
    'precision of b is 0.310, of all others 0.550 (-0.300 to -0.180 apart, of 90)'
    """
    if not isinstance(gap.get("gap"), dict) or not gap.keys() >= {"measure", "group", "value", "other", "n"}:
        return ""
    measure, against, apart = named(str(gap["measure"]), str(gap.get("of", ""))), gap.get("against", "all others"), gap["gap"]
    form = ".3f" if gap.get("scale") is None else ".4g"
    shares = f"{measure} of {gap['group']} is {gap['value']:{form}}, of {against} {gap['other']:{form}}"
    return f"{shares} ({apart['low']:{form}} to {apart['high']:{form}} apart, of {gap['n']})"


def named(measure: str, of: str = "") -> str:
    """A measure in words, with the class that it is of.

    >>> named("true_positive_rate", "bug"), named("mean_answer")
    ('true positive rate (bug)', 'mean answer')
    """
    words = measure.replace("_", " ")
    return f"{words} ({of})" if of else words
