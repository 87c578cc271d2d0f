"""How far long work is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import screen

__all__ = ["Told", "stepping"]

Told = Callable[[str, int, int], None]
"""Is told what is being done, how many of how many are (0 of 0: nobody knows how many)."""


@contextmanager
def stepping(noun: str) -> Iterator[Told]:
    """Give what to tell of work on so many of `noun`. Without a terminal a line comes after two seconds, then every five at most,
    and only where it says something new. All goes to standard error; on a terminal nothing with --json."""
    if not screen.coloured(sys.stderr):
        yield _Lines(noun).told
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[far]}")
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=screen.form.json) as bar:
        shown = bar.add_task("", total=None, far="")

        def told(doing: str, done: int, of: int) -> None:
            if bar.tasks[0].description not in ("", doing):
                bar.reset(shown)  # another work, with another speed
            bar.update(shown, description=doing, completed=done, total=of or None, far=_far(done, of, noun))

        yield told


def _far(done: int, of: int, noun: str) -> str:
    return f"{done:,} of {screen.count(of, noun)}" if of else ""


class _Lines:
    """Where there is no terminal."""

    def __init__(self, noun: str) -> None:
        self._noun, self._last = noun, ""
        self._due = time.monotonic() + screen.SILENCE

    def told(self, doing: str, done: int, of: int) -> None:
        line = f"  {doing}  {_far(done, of, self._noun)}".rstrip()
        if line != self._last and time.monotonic() >= self._due:
            self._last, self._due = line, time.monotonic() + screen.AGAIN
            screen.note(line)
