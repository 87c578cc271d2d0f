"""Fairness: is a model as good to one group as to the others? The monitor of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from . import duration
from .mistake import mistake, nearest
from .segment import Segment, called

__all__ = ["MEASURES", "Fairness", "fairness", "told"]

MEASURES = ("selection_rate", "true_positive_rate", "false_positive_rate", "precision", "calibration")
"""What is compared; which is which says `penstock.statistics.fairness`."""


@dataclass(frozen=True)
class Fairness:
    """Are the groups of a segment treated alike? Each is compared with the level `against` ("": with all others together), one
    verdict a period of `every`. Alarms when some gap in some of the `measures` is significant (`false_alarms_per_month`, over all
    groups and measures) and greater than `gap`."""

    segment: Segment
    against: str
    gap: float
    measures: tuple[str, ...]
    every: int
    false_alarms_per_month: float
    signal: ClassVar[str] = "fairness"


def fairness(
    by: object,
    against: str = "",
    *,
    gap: float = 0.1,
    measures: Sequence[str] = MEASURES,
    every: str = "1d",
    false_alarms_per_month: float = 1.0,
) -> Fairness:
    """Watch the gaps between the groups of a segment (a column of the scored event, or `ps.segment(...)`).

        monitors=[ps.fairness(Applicant.sex, gap=0.05, measures=["true_positive_rate"])]

    The selection rate needs no labels: its gap is known at once. Groups whose shares of true outcomes differ cannot be alike in
    all measures (Chouldechova 2017), so name those that matter. Groups of fewer than 30 are said to be too small, and not judged.
    An alarm of this monitor starts no refit: another fit on the same data need not be fairer.
    """
    if not 0 < gap < 1 or false_alarms_per_month <= 0:
        mistake(
            f"fairness(gap={gap}, false_alarms_per_month={false_alarms_per_month})",
            "gap lies between 0 and 1, false_alarms_per_month above 0",
        )
    for name in measures:
        if name not in MEASURES:
            mistake(f"fairness(measures=...): {name!r} is none", nearest(str(name), MEASURES))
    if not measures or isinstance(measures, str):
        mistake("fairness(measures=...) names none", f"write a list of some of: {', '.join(MEASURES)}")
    known = tuple(name for name in MEASURES if name in measures)
    return Fairness(called(by), against, gap, known, duration.micros(every), false_alarms_per_month)


def told(gap: Mapping[str, Any]) -> str:
    """A gap in the evidence of an alarm, in words; "" of what is none.

    >>> told({"group": "b", "measure": "precision", "value": 0.31, "other": 0.55, "gap": {"low": -0.3, "high": -0.18}, "n": 90})
    'precision of b is 0.310, of all others 0.550 (-0.300 to -0.180 apart, of 90)'
    """
    if not isinstance(gap.get("gap"), dict) or not gap.keys() >= {"measure", "group", "value", "other", "n"}:
        return ""
    measure, against, apart = str(gap["measure"]).replace("_", " "), gap.get("against", "all others"), gap["gap"]
    shares = f"{measure} of {gap['group']} is {gap['value']:.3f}, of {against} {gap['other']:.3f}"
    return f"{shares} ({apart['low']:.3f} to {apart['high']:.3f} apart, of {gap['n']})"
