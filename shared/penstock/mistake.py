"""Mistakes: what is wrong in a project file. They are told together, each with its place, before anything starts.

While a project is loaded, a definition that is wrong notes its mistake and goes on with a stand-in that fits, so that the
next one is found as well. Outside (in a test, a notebook) it raises at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import NamedTuple

from .errors import DefinitionError

__all__ = ["Mistake", "mistake", "nearest", "stopped", "together", "told"]

_LANGUAGE = os.path.dirname(__file__)


class Mistake(NamedTuple):
    """`file` and `line` are those of the user's definition."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        near = os.path.relpath(self.file)
        return f"{self.file if near.startswith(os.pardir) else near}, line {self.line}: {self.what}"


_found: ContextVar[list[Mistake] | None] = ContextVar("mistakes", default=None)


@contextmanager
def together() -> Iterator[list[Mistake]]:
    """Collect the mistakes that are made inside; at the end the outermost raises one DefinitionError of all."""
    outer = _found.get()
    found: list[Mistake] = [] if outer is None else outer
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)
    if outer is None and found:
        raise told(found)


def told(mistakes: Sequence[Mistake]) -> DefinitionError:
    """One error of all mistakes, a line each."""
    files = list(dict.fromkeys(m.file for m in mistakes))
    lines = list(dict.fromkeys(map(str, sorted(mistakes, key=lambda m: (files.index(m.file), m.line)))))
    return DefinitionError(
        "\n".join(lines), f"correct {'this line' if len(lines) == 1 else 'these lines'} and run: penstock check"
    )


def mistake(what: str, fix: str, kind: type[DefinitionError] = DefinitionError, at: tuple[str, int] | None = None) -> None:
    """Collect a mistake, and the caller goes on with a stand-in; where nobody collects, raise it as a `kind`.

    Its place is `at`, else the line outside the language that was being executed.
    """
    found = _found.get()
    if found is None:
        raise kind(what, fix)
    frame = sys._getframe()
    while frame.f_back and (_ours(frame.f_code.co_filename) or frame.f_code.co_filename.startswith("<")):
        frame = frame.f_back
    found.append(Mistake(*(at or (frame.f_code.co_filename, frame.f_lineno)), f"{what}; {fix}"))


def stopped(error: Exception) -> Mistake:
    """An exception that nobody could go on after, at the last line of the user's that led to it."""
    if isinstance(error, SyntaxError) and error.filename:
        return Mistake(error.filename, error.lineno or 0, f"SyntaxError: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if not (_ours(f.filename) or f.filename.startswith("<") or "-packages" in f.filename)]
    at = (users or frames)[-1]
    said = f"{error}; {error.fix}" if isinstance(error, DefinitionError) else f"{type(error).__name__}: {error}"
    return Mistake(at.filename, at.lineno or 0, said)


def nearest(name: str, names: Collection[str]) -> str:
    """What to type instead of a misspelt name."""
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"it has: {', '.join(names) or 'none'}"


def _ours(file: str) -> bool:
    """Whether this is a file of the language itself (the examples, in folders below, are projects)."""
    return os.path.dirname(file) == _LANGUAGE
