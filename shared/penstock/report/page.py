"""A report as one HTML file. What the records say is escaped here, and nowhere else; pictures are HTML already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..pages.document import chip, document, facts
from ..pages.words import escape
from .section import Block, Cards, Cell, Drawn, Facts, Note, Section, Table, Tone

if TYPE_CHECKING:
    from .report import Report

__all__ = ["page", "tabled"]

WORDS: Final[dict[Tone, str]] = {"good": "good", "warn": "look", "bad": "bad", "unknown": "unknown"}
"""What a tone is called."""


def page(report: Report) -> str:
    """The document."""
    links = "".join(f'<a class="{s.tone}" href="#{s.name}">{escape(s.title)}</a>' for s in report.sections)
    body = f'<nav aria-label="Sections">{links}</nav>\n' + "".join(map(_section, report.sections))
    mark = chip(WORDS.get(report.tone, ""), report.tone) if report.tone else ""
    return document(report.title, "report", report.head, body, _HOW, mark, report.said)


def _section(section: Section) -> str:
    mark = chip(WORDS[section.tone], section.tone) if section.tone in WORDS else ""
    blocks = "".join(map(_block, section.blocks))
    return (
        f'<section class="tile" id="{section.name}" aria-labelledby="h-{section.name}"><h2 id="h-{section.name}">'
        f'<span>{escape(section.title)}</span>{mark}</h2><p class="said">{escape(section.said)}</p>{blocks}</section>\n'
    )


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return tabled(block)
    if isinstance(block, Facts):
        return facts(block.pairs)
    if isinstance(block, Drawn):
        return f'<div class="drawn">{f"<h3>{escape(block.title)}</h3>" if block.title else ""}{block.html}</div>'
    if isinstance(block, Cards):
        cards = "".join(f'<div class="card"><h3>{escape(title)}</h3>{html}</div>' for title, html in block.cards)
        return f'<div class="cards">{cards}</div>'
    if isinstance(block, Note):
        return f'<p class="note">{escape(block.text)}</p>'
    fix = f" <code>{escape(block.fix)}</code>" if block.fix else ""
    return f'<p class="absent">{escape(block.what)}{fix}</p>'


def tabled(table: Table) -> str:
    """A table as HTML."""

    def side(at: int) -> str:
        return ' class="n"' if at >= table.numbers else ""

    heads = "".join(f'<th scope="col"{side(at)}>{escape(head)}</th>' for at, head in enumerate(table.heads))
    rows = "".join(f"<tr>{''.join(_cell(cell, at, side(at)) for at, cell in enumerate(row))}</tr>" for row in table.rows)
    drawn = f'<div class="wide"><table class="rows"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<details><summary>{escape(table.fold)}</summary>{drawn}</details>" if table.fold else drawn


def _cell(cell: str | Cell, at: int, side: str) -> str:
    found = Cell(cell) if isinstance(cell, str) else cell
    inner = found.html or escape(found.text)
    if found.tone:
        inner = f'<span class="{found.tone}">{inner}</span>'
    return f'<th scope="row">{inner}</th>' if at == 0 else f"<td{side}>{inner}</td>"


_HOW: Final = (
    "All times are stream time in UTC, the time of the events. Intervals are of 95 %. Quality is of the answers by when they "
    "were given, judged by the labels that had come by the time named above; the prior answers with the label rate of the seven "
    "days before, the usual label before with what most labels of the window before were (of numbers with their mean or "
    "quantile). Nothing here was computed anew from events: it is what the records of monitoring, trainer and registry say, so "
    "the same records give this page again, byte for byte. Made by <code>penstock report</code>."
)
