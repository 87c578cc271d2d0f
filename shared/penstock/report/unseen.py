"""Unseen: what answers were asked about that their version had not seen when it was fitted."""

from __future__ import annotations

from typing import Final

from ..pages.words import percent
from ..policy import Novelty
from ..records import Unseen
from ..statistics.novelty import added_unseen, novel
from .records import Records
from .section import Block, Missing, Section, Table

__all__ = ["unseen"]

INPUTS: Final = 10


def unseen(records: Records) -> Section:
    """The share of novel answers by version, inputs outside the training rows, and the oddest answers."""
    title, name = "What the versions had not seen", "unseen"
    found: dict[str, Unseen] = {}
    for statistic in records.statistics:
        found = added_unseen(found, statistic.novelty)
    if not found:
        if any(isinstance(monitor, Novelty) for monitor in records.model.monitors):
            why = Missing("No answer of this period was given by a version that has a profile.", "fit a version anew")
        else:
            why = Missing("Novelty is not watched.", "monitors=[ps.novelty()]")
        return Section(name, title, f"It is not known how new the inputs were; to know it: {why.fix}.", [why], "unknown")
    rows = [
        (
            version,
            f"{of.answers:,}",
            percent(novel(of.levels), max(of.answers, 1)),
            percent(novel(of.expected), max(sum(of.expected), 1)),
        )
        for version, of in found.items()
    ]
    blocks: list[Block] = [Table(("version", "answers", "novel", "of its training rows"), rows)]
    outside = {(version, each): counts for version, of in found.items() for each, counts in of.outside.items() if sum(counts)}
    if outside:
        most = sorted(outside.items(), key=lambda each: (-sum(each[1]), each[0]))[:INPUTS]
        lines = [(each, version, *(f"{count:,}" for count in counts)) for (version, each), counts in most]
        blocks.append(Table(("input", "version", "below all rows", "above all rows", "missing, never before"), lines, numbers=2))
    odd = [
        (
            one.id,
            version,
            ", ".join(f"{each} {'missing' if value is None else f'{value:g}'}" for each, (value, _) in one.inputs.items()),
        )
        for version, of in found.items()
        for one in of.oddest
    ]
    if odd:
        blocks.append(Table(("oddest answer", "version", "what is new about it"), odd, numbers=9))
    answers, new = sum(of.answers for of in found.values()), sum(novel(of.levels) for of in found.values())
    usual = sum(novel(of.expected) for of in found.values()) / max(sum(sum(of.expected) for of in found.values()), 1)
    said = f"{percent(new, max(answers, 1))} of {answers:,} answers were about something novel, {usual:.1%} of training rows."
    return Section(name, title, said, blocks, "warn" if new > 3 * usual * answers else "good")
