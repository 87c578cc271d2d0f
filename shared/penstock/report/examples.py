"""Examples: the answers furthest from their label, with what they were given."""

from __future__ import annotations

from ..pages.words import cut, short, visible
from .records import Records, Wrong
from .section import Cell, Missing, Section, Table

__all__ = ["MOST", "examples"]

MOST = 10
"""Examples of a report."""


def examples(records: Records) -> Section:
    """A bounded number of the most wrong answers, from the archived outcomes."""
    title = "Most wrong answers"
    found = records.answered
    if found is None:
        why = records.unanswered or "no outcomes are archived here"
        return Section("examples", title, f"Not known: {why}.", [Missing("Outcomes are archived by:", "penstock up")], "unknown")
    if not found.wrong:
        return Section(
            "examples", title, "No archived outcome lies in this period.", [Missing("There is nothing to show.")], "unknown"
        )
    rows = [
        (
            visible(wrong.id),
            visible(wrong.key),
            f"{wrong.time:%Y-%m-%d %H:%M}",
            wrong.version,
            _number(wrong.score),
            _number(wrong.label),
            Cell("", html=_inputs(wrong)),
        )
        for wrong in found.wrong[:MOST]
    ]
    table = Table(("id", "key", "asked", "version", "said", "was", "inputs"), rows, numbers=9, brief=5)
    worst = found.wrong[0]
    what = f"{visible(worst.id)} got {_number(worst.score)}, and was {_number(worst.label)}"
    said = f"The furthest of {found.outcomes:,} outcomes: {what}."
    return Section("examples", title, said, [table])


def _number(value: float) -> str:
    return f"{value:.4g}"


def _inputs(wrong: Wrong) -> str:
    from html import escape

    pairs = "".join(
        f"<div><dt>{escape(cut(name))}</dt><dd>{'missing' if value is None else escape(short(value))}</dd></div>"
        for name, value in wrong.inputs.items()
    )
    return f'<details><summary>{len(wrong.inputs)} inputs</summary><dl class="facts">{pairs}</dl></details>'
