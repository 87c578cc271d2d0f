"""Slices: the inputs for which the answers were worst, as an error model finds them in the archived outcomes."""

from __future__ import annotations

from .quality import figure
from .records import Records
from .section import Missing, Note, Section, Table

__all__ = ["slices"]

HOW = (
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
        return Section(name, title, f"{found.why[:1].upper()}{found.why[1:]}.", tone="good" if found.tried else "unknown")
    loss = found.loss_is.replace("_", " ")
    rows = [
        (
            each.where,
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
    said = f"Worst where {worst.where}: {loss} {figure(worst.loss)}, {figure(worst.rest)} elsewhere. {found.why[:1].upper()}"
    return Section(name, title, f"{said}{found.why[1:]}.", [Table(heads, rows), Note(HOW)], "warn")
