"""A report as Markdown for a pull request: the verdict, a sentence for each section, short tables. Fits into one comment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .section import Cell, Facts, Missing, Note, Section, Table, words_of

if TYPE_CHECKING:
    from .report import Report

__all__ = ["LONGEST", "markdown"]

LONGEST: Final = 60_000
"""Characters: GitHub takes 65,536 in a comment."""
SIGNS: Final = {"good": "🟢", "warn": "🟡", "bad": "🔴", "unknown": "⚪"}
CELL: Final = 240
"""Characters of a cell."""


def markdown(report: Report) -> str:
    """The text. Sections that would not fit are named instead."""
    head = " · ".join(f"{name} **{_plain(value)}**" for name, value in report.head)
    found = f"## {SIGNS.get(report.tone, '')} {_plain(report.title)}\n\n**{_plain(report.said)}**\n\n{head}\n"
    left = []
    for section in report.sections:
        said = _section(section)
        if len(found) + len(said) > LONGEST:
            left.append(section.title)
            continue
        found += said
    if left:
        found += f"\nToo long for a comment: {', '.join(left)}; see the page (`penstock report --html`).\n"
    return found


def _section(section: Section) -> str:
    sign = f"{SIGNS[section.tone]} " if section.tone in SIGNS else ""
    found = f"\n### {sign}{section.title}\n\n{_plain(section.said)}\n"
    for block in section.blocks:
        if isinstance(block, Table) and block.brief and block.rows:
            found += _table(block)
        elif isinstance(block, Facts):
            found += "\n" + " · ".join(f"{_plain(name)} **{_plain(value)}**" for name, value in block.pairs) + "\n"
        elif isinstance(block, Note) and not block.drawn:
            found += f"\n_{_plain(block.text)}_\n"
        elif isinstance(block, Missing):
            found += f"\n_{_plain(block.what)}_" + (f" `{block.fix.replace('`', '')}`" if block.fix else "") + "\n"
    return found


def _table(table: Table) -> str:
    shown = [at for at in range(len(table.heads)) if any(_worded(row[at]) for row in table.rows)]  # pictures have no words
    heads = [_plain(table.heads[at]) or " " for at in shown]
    ruler = ["---:" if at >= table.numbers else "---" for at in shown]
    lines = [heads, ruler, *([_plain(words_of(row[at]), CELL) for at in shown] for row in table.rows[: table.brief])]
    more = len(table.rows) - table.brief
    rest = f"\nand {more:,} more\n" if more > 0 else ""
    written = "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + rest
    return f"\n<details><summary>{_plain(table.fold)}</summary>\n{written}\n</details>\n" if table.fold else written


def _worded(cell: str | Cell) -> bool:
    return bool(words_of(cell))


def _plain(text: str, most: int = 600) -> str:
    """Text that means nothing in Markdown or HTML, on one line.

    >>> _plain("a|b <img src=x> *c* @all")
    'a\\\\|b &lt;img src=x&gt; \\\\*c\\\\* @\\u200ball'
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    for sign in "\\`*_[]|#":
        text = text.replace(sign, f"\\{sign}")
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b").replace("://", ":\u200b//")
    )
