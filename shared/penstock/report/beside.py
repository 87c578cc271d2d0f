"""What was served beside its baselines, in loss on the same outcomes: differences with intervals, and the words for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import hypot

import msgspec

from ..records import Cohort, Measure, Paired
from ..statistics.kinds import Kind
from ..statistics.quality import added, difference

__all__ = ["Difference", "differences", "first_of", "spoken", "word"]


class Difference(msgspec.Struct, frozen=True):
    """What was served minus another, in mean loss, with its 95 % interval; of `n` outcomes that both answered."""

    n: int
    value: float
    low: float
    high: float

    def spoken(self, kind: Kind, called: str, paired: bool, loss: str = "") -> str:
        """In words. `paired`: whether it is known which losses fell together; else the interval is that of two samples. `loss`:
        what it is in, if not in the kind's.

        >>> from penstock.statistics.kinds import YES_NO
        >>> Difference(200, -0.02, -0.03, -0.01).spoken(YES_NO, "the prior", True)
        'surely better than the prior: log loss -0.0200 (-0.0300 to -0.0100) on the 200 outcomes that both answered'
        """
        how = "" if paired else ", compared as two samples"
        spread = f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"
        return f"{word(self)} {called}: {loss or kind.loss} {spread} on the {self.n:,} outcomes that both answered{how}"


def word(found: Difference | Measure) -> str:
    """
    >>> word(Difference(200, 0.02, -0.01, 0.03))
    'not surely different from'
    """
    return "surely better than" if found.high < 0 else "surely worse than" if found.low > 0 else "not surely different from"


def differences(cohorts: Sequence[Cohort]) -> dict[str, Difference]:
    """By baseline (`prior`, `last`) and version, over all cohorts that know both."""
    found: dict[str, Difference] = {}
    for name in sorted({name for cohort in cohorts for name in cohort.against}):
        total: Paired = reduce(added, (known[name] for known in _against(cohorts) if name in known), Paired())
        if (mean := difference(total)) is not None:
            found[name] = Difference(total.n, mean.value, mean.low, mean.high)
    return found


def spoken(kind: Kind, cohorts: Sequence[Cohort], first: str) -> list[str]:
    """What was served beside each baseline and the version that was first in charge, in words. The usual label before is sure of
    itself: in log loss its mistakes weigh what their bound makes them weigh, so there it is held against by wrong answers."""
    found, hard = differences(cohorts), _wrong(cohorts) if kind.loss == "log loss" else None
    called = {"prior": "the prior", "last": "the usual label before", first: f"the first model ({first})"}
    return [
        hard.spoken(kind, words, False, "share of wrong answers")
        if name == "last" and hard
        else found[name].spoken(kind, words, kind.pairs or name == first)
        for name, words in called.items()
        if name in found
    ]


def _wrong(cohorts: Sequence[Cohort]) -> Difference | None:
    """Wrong answers of what was served minus those of the usual label before, as shares of two samples; None: not known."""
    known = [
        (pair.n, ours, theirs)
        for cohort in cohorts
        if (pair := cohort.against.get("last")) is not None and pair.n > 0
        if (ours := cohort.measures.get("served", {}).get("accuracy")) is not None
        if (theirs := cohort.measures.get("last", {}).get("accuracy")) is not None
    ]
    if not (n := sum(of for of, _, _ in known)):
        return None
    value = sum(of * (theirs.value - ours.value) for of, ours, theirs in known) / n
    half = hypot(*(of * (each.high - each.low) / 2 for of, *both in known for each in both)) / n
    return Difference(n, value, value - half, value + half)


def _against(cohorts: Iterable[Cohort]) -> Iterable[Mapping[str, Paired]]:
    return (cohort.against for cohort in cohorts)


def first_of(cohorts: Iterable[Cohort]) -> str:
    """The version that was first in charge, as the newest cohort that knows it says; "" where none does."""
    return next((cohort.first for cohort in sorted(cohorts, key=lambda c: c.start, reverse=True) if cohort.first), "")
