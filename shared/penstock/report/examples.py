"""Examples: the answers furthest from their label, with what they were given."""

from __future__ import annotations

from ..pages.words import cut, escape, short, visible
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
            _said(wrong),
            _was(wrong),
            Cell("", html=_inputs(wrong)),
        )
        for wrong in found.wrong[:MOST]
    ]
    table = Table(("id", "key", "asked", "version", "said", "was", "inputs"), rows, numbers=9, brief=5)
    worst = found.wrong[0]
    what = f"{visible(worst.id)} got {_said(worst)}, and was {_was(worst)}"
    said = f"The furthest of {found.outcomes:,} outcomes: {what}."
    return Section("examples", title, said, [table])


def _said(wrong: Wrong) -> str:
    return f"{visible(wrong.answer)} ({wrong.score:.4g})" if wrong.answer else f"{wrong.score:.4g}"


def _was(wrong: Wrong) -> str:
    return visible(wrong.label) if isinstance(wrong.label, str) else f"{wrong.label:.4g}"


def _inputs(wrong: Wrong) -> str:
    pairs = "".join(
        f"<div><dt>{escape(cut(name))}</dt><dd>{'missing' if value is None else escape(short(value))}</dd></div>"
        for name, value in wrong.inputs.items()
    )
    return f'<details><summary>{len(wrong.inputs)} inputs</summary><dl class="facts">{pairs}</dl></details>'
