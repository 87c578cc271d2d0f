"""Expected: what the answers were thought to be worth before their labels came, and how far off such estimates have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..records import Cohort, Estimate, Quality
from .quality import figure
from .records import SERVED, Records, day
from .section import Block, Missing, Note, Section, Table

__all__ = ["came_true", "expected"]

NEWEST: Final = 14
"""Cohorts of the table."""
BLIND: Final = (
    "From what was answered alone: a change of concept shows only when its first labels come. No gate asks these figures."
)


def expected(records: Records) -> Section:
    """Estimates of the newest cohorts, and how many intervals held what came true."""
    title, name = "Before labels come", "expected"
    known = [pair.known for pair in records.cohorts if pair.known.estimated]
    if not known:
        why = "No cohort of this period was estimated: each needs 30 answers of a version, and a version labels to learn from."
        return Section(name, title, why, [Missing("There is nothing to compare.")], "unknown")
    measures = sorted({measure for cohort in known for measure in cohort.estimated})
    inside, judged = _held(known)
    heads = ("answers of", *(measure.replace("_", " ") for measure in measures))
    rows = [(day(c.start), *(_told(c.estimated.get(each), came_true(c).get(each)) for each in measures)) for c in known[-NEWEST:]]
    blocks: list[Block] = [Table(heads, list(reversed(rows)), brief=5), Note(BLIND)]
    newest = known[-1]
    first = next(iter(newest.estimated))
    said = f"Of the newest answers {_told(newest.estimated[first], None)} is expected in {first.replace('_', ' ')}"
    if not judged:
        return Section(
            name, title, f"{said}; too few estimates have come true yet to say how far off they are.", blocks, "unknown"
        )
    said += f"; of {judged} intervals {inside} held what came true, where 9 in 10 should"
    return Section(name, title, f"{said}.", blocks, "good" if inside >= 0.8 * judged else "warn")


def came_true(cohort: Cohort) -> dict[str, float]:
    """What came true of a cohort that is complete."""
    if not cohort.complete:
        return {}
    found = {name: measure.value for name, measure in cohort.measures.get(SERVED, {}).items()}
    sums = cohort.quality.get(SERVED, Quality())
    return {**found, "label_rate": sums.positives / sums.n} if sums.n > 0 else found


def _held(cohorts: Sequence[Cohort]) -> tuple[int, int]:
    """How many intervals held the truth, of how many."""
    found = [
        estimate.low <= truth <= estimate.high
        for cohort in cohorts
        for name, estimate in cohort.estimated.items()
        if (truth := came_true(cohort).get(name)) is not None and estimate.low is not None and estimate.high is not None
    ]
    return sum(found), len(found)


def _told(estimate: Estimate | None, true: float | None) -> str:
    if estimate is None:
        return "–"
    within = "" if estimate.low is None or estimate.high is None else f" ({figure(estimate.low)} to {figure(estimate.high)})"
    return f"{figure(estimate.value)}{within}" + ("" if true is None else f", was {figure(true)}")
