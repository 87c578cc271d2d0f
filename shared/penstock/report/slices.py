"""Slices: the inputs for which the answers were worst, as an error model finds them in the archived outcomes."""

from __future__ import annotations

from typing import Final

from ..pages.words import escape, loss_said
from .quality import figure
from .records import Records, Slice
from .section import Cell, Missing, Note, Section, Table

__all__ = ["slices"]

KNOWN: Final = 1.1
"""Times the expected loss, up to which a model knew how little it knew: as material as a slice is to `penstock slices`."""
HOW: Final = (
    "Each was found in one half of the outcomes and judged on the other, with an interval that holds for all that were tried. "
    "Where the expected loss is far below the loss, the model was wrong without knowing."
)


def slices(records: Records) -> Section:
    """What was found, most harmful first."""
    title, name, found = "Slices", "slices", records.slices
    if found is None:
        why = "outcomes are searched as they are known now" if records.known_at else records.unanswered
        fix = f"penstock slices {records.model.name}"
        said = f"Not searched: {why or 'no outcomes are archived here'}."
        return Section(name, title, said, [Missing("Look where answers were worst:", fix)], "unknown")
    if not found.found:
        return Section(name, title, f"{_begun(found.why)}.", [Note(HOW)], "good" if found.tried else "unknown")
    loss = loss_said(found.loss_is)
    rows = [
        (
            Cell(_where(each), html=f'<ul class="lines">{"".join(f"<li>{escape(one)}</li>" for one in each.conditions)}</ul>'),
            f"{each.rows:,}",
            f"{each.share:.1%}",
            figure(each.loss),
            figure(each.rest),
            f"{figure(each.low)} to {figure(each.high)}",
            "–" if each.expected is None else figure(each.expected),
        )
        for each in found.found
    ]
    heads = ("where", "answers", "share", loss, "of the rest", "worse by", "expected")
    worst = found.found[0]
    knew = "" if worst.expected is None else f", and {figure(worst.expected)} was expected there"
    said = f"Worst where {_where(worst)}: {loss} {figure(worst.loss)}, {figure(worst.rest)} elsewhere{knew}. {_begun(found.why)}."
    blind = any(each.expected is None or each.loss > KNOWN * each.expected for each in found.found)
    return Section(name, title, said, [Table(heads, rows), Note(HOW)], "warn" if blind else "")


def _where(found: Slice) -> str:
    return " and ".join(found.conditions)


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
