"""The frame of a page: head, style, footer; and the small parts that all pages have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .words import escape

__all__ = ["chip", "document", "facts"]

STYLE: Final = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def document(
    title: str,
    kind: str,
    said: Iterable[tuple[str, str]],
    body: str,
    how: str,
    mark: str = "",
    why: str = "",
    style: str = "",
) -> str:
    """The page. `kind` says what it is (profile, drift), `said` are pairs for its head; `body`, `how` and `mark` are HTML,
    `style` is CSS beside that of all pages; all else is text."""
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in said)
    lead = f'<p class="lead">{escape(why)}</p>' if why else ""
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – {escape(kind)}</title>\n<style>{STYLE}{style}</style></head>\n"
        f'<body><header><h1><span class="drop"></span>{escape(title)} {mark}</h1>{lead}<dl>{pairs}</dl></header>\n'
        f"<main>\n{body}</main>\n<footer><p>{how}</p></footer></body></html>\n"
    )


def chip(word: str, tone: str = "") -> str:
    """A verdict in a word, in the colour of its tone: good, bad, warn, or none."""
    return f'<span class="chip {tone or word}">{escape(word)}</span>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with their values, on as few lines as they fit."""
    return '<dl class="facts">' + "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in pairs) + "</dl>"
