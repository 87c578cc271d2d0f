"""Judged: what people said of the answers, how far they agree, and which outcomes no fit learns from."""

from __future__ import annotations

from collections import Counter

from ..quarantine import covers
from ..reviewing.panel import pair_of
from ..statistics.agreement import agreement
from .records import Records, day
from .section import Block, Cell, Missing, Note, Section, Table, Tone

__all__ = ["judged"]

ENDS = {
    "labelled": "became a label",
    "contradicted": "two did not say the same: a third was asked",
    "refused": "the word did not count",
    "expired": "the horizon passed first",
    "orphan": "of an answer that nobody gave",
}
LOW = 0.4
"""An alpha of Krippendorff below which reviewers hardly agree (fair at best, in the words of Landis and Koch 1977)."""


def judged(records: Records) -> Section:
    """How reviews of the period ended, agreement in it, and the quarantines that stood."""
    blocks: list[Block] = []
    said, tone = _reviews(records, blocks)
    left = _quarantines(records, blocks)
    return Section("judged", "Reviews and quarantine", f"{said} {left}", blocks, "warn" if left[0].isdigit() else tone)


def _reviews(records: Records, blocks: list[Block]) -> tuple[str, Tone]:
    if records.model.review is None:
        blocks.append(Missing("Nobody is asked about answers.", "@ps.model(..., review=ps.review())"))
        return "No answer is reviewed by people.", ""
    ended = [one for one in records.reviewed if records.inside(one.at)]
    ends = Counter(one.state for one in ended)
    if not ends:
        blocks.append(Missing("No review ended in this period.", "penstock review list"))
        return "No review ended in this period.", "unknown"
    blocks.append(
        Table(("reviews that", "came in the period", "that is"), [(e, f"{n:,}", ENDS[e]) for e, n in ends.most_common()], 9)
    )
    told = f"{ends['labelled']:,} answers were labelled by reviewers"
    label = records.model.label
    pairs = [pair for one in ended if (pair := pair_of(one, label))]
    found = agreement(pairs, records.model.review.within if label.task == "regression" else None)
    if found.alpha is None:
        blocks.append(Note(f"How far reviewers agree is not known: {found.missing}."))
        return f"{told}.", ""
    within = f"{found.alpha:.2f} ({found.low:.2f} to {found.high:.2f}; {found.reviewers} reviewers)"
    blocks.append(
        Note(f"Of {found.answers:,} answers that two decided, {found.observed:.0%} were decided alike; alpha {within}.")
    )
    return f"{told}; agreement beyond chance is {found.alpha:.2f}.", "warn" if found.alpha < LOW else ""


def _quarantines(records: Records, blocks: list[Block]) -> str:
    stood = [one for one in records.quarantines if one.lifted is None or one.lifted > records.start]
    if not stood:
        return "Nothing was in quarantine."
    end = records.told or records.until
    over = {one.id: one.lifted is not None and one.lifted <= end for one in stood}
    rows = [
        (
            covers(one),
            day(one.at),
            Cell(day(one.lifted) if one.lifted and over[one.id] else "stands", "" if over[one.id] else "warn"),
            one.actor,
            one.reason or "no reason given",
        )
        for one in stood
    ]
    blocks.append(Table(("left out of fits", "from", "to", "by", "because"), rows, numbers=9))
    still = sum(not each for each in over.values())
    return f"{still} {'quarantine stands' if still == 1 else 'quarantines stand'}." if still else "No quarantine stands any more."
