"""What people see: lines, tables and errors, the same with and without a terminal; JSON for programs.

Results go to standard output, everything else (errors, progress, what is waited for) to standard error. Colours only on
a terminal, never with NO_COLOR.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TextIO, TypeVar

__all__ = [
    "answer",
    "coloured",
    "complain",
    "count",
    "form",
    "harmless",
    "hush",
    "note",
    "paint",
    "patiently",
    "printable",
    "rows",
    "say",
]

T = TypeVar("T")

SILENCE: Final = 2.0
"""Seconds that anything may take without a word."""

AGAIN: Final = 5.0
"""Seconds between two words about the same wait."""

COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}

_OURS: Final = re.compile(rf"(\x1b\[(?:0|{'|'.join(COLOURS.values())})m|[\n\t])")
"""What steers the terminal and is meant to: our own colours, and the ends of lines."""


class Form:
    """How results and errors are written: `--json`, and `--debug` for where they come from."""

    json = False
    debug = False


form: Final = Form()


def coloured(stream: TextIO) -> bool:
    """Whether colours may be written there (no-color.org; TERM=dumb)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream (standard output) can show it."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if coloured(stream or sys.stdout) else text


def say(line: str) -> None:
    """A line of the result."""
    print(line, flush=True)


def note(line: str) -> None:
    """A line beside the result: what happens, what is waited for."""
    print(harmless(line), file=sys.stderr, flush=True)


def harmless(line: str) -> str:
    r"""Text that may quote anybody, such as an id or a reason, without what would steer the terminal of who reads it.

    >>> harmless("plain"), harmless("\x1b[31mred\x1b[0m"), harmless("\x1b]0;title\x07 \x1b[2J \u202e")
    ('plain', '\x1b[31mred\x1b[0m', '�]0;title� �[2J �')
    """
    if line.isprintable():
        return line
    parts = _OURS.split(line)  # every other one is ours
    return "".join(p if at % 2 else "".join(c if c.isprintable() else "\ufffd" for c in p) for at, p in enumerate(parts))


def complain(what: str, fix: str) -> None:
    """An error: one line what, one line what to type; with --json the two as one value."""
    if form.json:
        import msgspec

        print(msgspec.json.encode({"type": "error", "text": what, "fix": fix}).decode(), file=sys.stderr, flush=True)
        return
    note(paint(what, "red", sys.stderr))
    if fix:
        note(f"-> {fix}")


def answer(value: Any, *lines: str | Iterable[str]) -> None:
    """A result: lines for people, or with --json the value, on one line."""
    if form.json:
        import msgspec

        say(msgspec.json.encode(value).decode())
        return
    for part in lines:
        for line in [part] if isinstance(part, str) else part:
            say(harmless(line))


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "event"), count(12000, "event")
    ('1 event', '12,000 events')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def rows(table: Sequence[Sequence[str]]) -> list[str]:
    """Cells as aligned lines; the last column is as wide as it likes.

    >>> rows([("ok", "python"), ("FAIL", "kafka")])
    ['  ok    python', '  FAIL  kafka']
    >>> rows([])
    []
    """
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def printable(value: bytes | None, limit: int = 0) -> str:
    """Bytes of a record as text on one line, cut at `limit` characters (0: whole).

    >>> printable(b'{"a": 1}'), printable(None), printable(bytes([255, 0]))
    ('{"a": 1}', '(none)', '(2 bytes, not text)')
    """
    if value is None:
        return "(none)"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"({len(value):,} bytes, not text)"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if not limit or len(text) <= limit else f"{text[:limit]}... ({len(value):,} bytes)"


def hush() -> None:
    """Keep what client libraries log off the screen (--debug shows it): their errors come to us, in a sentence."""
    import logging

    for library in ("aiokafka", "asyncio"):
        logging.getLogger(library).setLevel(logging.NOTSET if form.debug else logging.CRITICAL)


async def patiently(work: Awaitable[T], what: str, say: Callable[[str], None] = note) -> T:
    """The result; when it takes longer than two seconds, say what is waited for, and again every five."""

    async def remind() -> None:
        began = time.monotonic()
        await asyncio.sleep(SILENCE)
        while True:
            say(f"  {what}: {time.monotonic() - began:.0f} s so far; Ctrl-C ends it")
            await asyncio.sleep(AGAIN)

    reminding = asyncio.create_task(remind())
    try:
        return await work
    finally:
        reminding.cancel()
