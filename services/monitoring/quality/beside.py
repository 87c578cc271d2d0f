"""What answers are judged beside, on the same outcomes. Pure.

prior    answering with what labels were before: their rate, mean, declared quantile, or shares
last     answering with the label that was usual in the window before
first    the version that was first in charge, where it was asked about all of them: while it has a duty, and for good where
         the model says `keep_first`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.label import Truth
from penstock.records import Measure, Paired, Quality
from penstock.statistics.kinds import Baseline, Kind
from penstock.value import Value

__all__ = ["against", "first_of", "measures_of"]


def first_of(versions: Iterable[str]) -> str:
    """The version that was first in charge, of those of which outcomes first became known: numbers grow, and what is no number
    (`served`, snapshots of an online learner) is none.

    >>> first_of(["served", "v12", "v3", "online-1"]), first_of(["served", "none"])
    ('v3', '')
    """
    numbers = [int(version[1:]) for version in versions if version[:1] == "v" and version[1:].isdecimal()]
    return f"v{min(numbers)}" if numbers else ""


def measures_of(
    served: Quality, prior: Baseline | None, last: Truth | None, value: Value | None, kind: Kind, first: Quality | None = None
) -> dict[str, dict[str, Measure]]:
    """The measures of what was served, and of the baselines on the same outcomes."""
    found = {"served": kind.measured(served, value, last)}
    if served.n > 0 and found["served"]:
        if prior is not None:
            found["prior"] = kind.measured(kind.answering(prior, served), value, last)
        if last is not None:
            found["last"] = kind.measured(kind.answering(kind.sure(last), served), value, last)
        if first is not None and first.n == served.n:
            found["first"] = kind.measured(first, value, last)
    return {name: each for name, each in found.items() if each}


def against(
    served: Quality, prior: Baseline | None, last: Truth | None, kind: Kind, versions: Mapping[str, Paired]
) -> dict[str, Paired]:
    """What was served minus each baseline and version, in loss."""
    found = {version: kind.paired(each) for version, each in versions.items()}
    if prior is not None:
        found["prior"] = kind.against(prior, served)
    if last is not None:
        found["last"] = kind.against(kind.sure(last), served)
    return {name: each for name, each in sorted(found.items()) if each.n > 0}
