"""What a section consists of. It is written once and shown in either form: pictures in HTML alone, tables in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["ROWS", "Block", "Cards", "Cell", "Drawn", "Facts", "Missing", "Note", "Section", "Table", "Tone", "words_of"]

Tone: TypeAlias = Literal["", "good", "warn", "bad", "unknown"]

ROWS: Final = 10
"""Rows of a table in Markdown, unless it says otherwise."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table. `html` stands for it on the page, such as a small picture; it is HTML already, `text` is not."""

    text: str
    tone: Tone = ""
    html: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under heads. Columns from `numbers` on are numbers. Markdown has the first `brief` rows, and none of it at 0; the page
    shows it closed where it says `fold`, which then is its title."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    numbers: int = 1
    brief: int = ROWS
    fold: str = ""


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Drawn:
    """A picture, as HTML, with a title; Markdown leaves it out."""

    html: str
    title: str = ""


@dataclass(frozen=True)
class Cards:
    """Small pictures side by side: a title and HTML each; Markdown leaves them out."""

    cards: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Missing:
    """What cannot be shown, why, and what to do about it."""

    what: str
    fix: str = ""


@dataclass(frozen=True)
class Note:
    """A sentence beside what is shown; Markdown leaves it out where it is about a picture (`drawn`)."""

    text: str
    drawn: bool = False


Block: TypeAlias = Table | Facts | Drawn | Cards | Missing | Note


@dataclass(frozen=True)
class Section:
    """`said` is what it comes to, as a sentence; `tone` whether that is good news; `name` is its place in the page, in JSON."""

    name: str
    title: str
    said: str
    blocks: Sequence[Block] = ()
    tone: Tone = ""


def words_of(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text
