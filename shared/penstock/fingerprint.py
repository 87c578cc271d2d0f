"""The code of a function, as one number: whether what runs here is what a version was fitted with.

    fingerprint(prepare)       # sha256 over its text, and that of what it uses

Counted are the function and, by names that it mentions, functions, classes, modules and constants of its own folder (and below),
and theirs in turn; comments, blank lines and the places of files are not. Packages that are installed are not counted: runs
record the versions of those that matter.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from .errors import DefinitionError

__all__ = ["fingerprint"]


def fingerprint(made: Callable[..., Any]) -> str:
    """sha256 (hex) of the code behind a function. DefinitionError where its text cannot be found."""
    home = os.path.dirname(os.path.abspath(inspect.getfile(made)))
    said, waiting = dict[str, str](), list[tuple[str, Any]]([(made.__qualname__, made)])
    while waiting:
        name, value = waiting.pop()
        if name in said or (told := _told(name, value, home)) is None:
            continue
        said[name] = told
        waiting += _used(name, value)
    whole = "\0".join(f"{name}\0{said[name]}" for name in sorted(said))
    return hashlib.sha256(whole.encode()).hexdigest()


def _told(name: str, value: Any, home: str) -> str | None:
    """What a value is, in words that are the same wherever its files lie; None: it does not count."""
    if isinstance(value, FunctionType | type | ModuleType):
        return _text(value) if _below(value, home) else None
    if isinstance(value, ModuleType) or callable(value):
        return None
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return _spelled(value)


def _spelled(value: Any) -> str:
    """Constants as they are written; of anything else the type."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_spelled(key)}: {_spelled(each)}" for key, each in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_spelled, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return type(value).__qualname__


def _used(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What the code of a value mentions, by names of its own."""
    if isinstance(value, type):
        for each in vars(value).values():
            yield from _used(name, inspect.unwrap(getattr(each, "__func__", each)))
    elif isinstance(value, FunctionType):
        for each in _names(value.__code__):
            if each in value.__globals__:
                found = value.__globals__[each]
                yield getattr(found, "__qualname__", each), found
        for each, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield f"{name}.{each}", cell.cell_contents


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _below(value: Any, home: str) -> bool:
    """Whether it was written in that folder or below, and not installed there."""
    module = value if isinstance(value, ModuleType) else sys.modules.get(value.__module__)
    file = getattr(module, "__file__", None) or ""
    inside = os.path.relpath(os.path.abspath(file), home) if file else os.pardir
    return not inside.startswith(os.pardir) and "site-packages" not in inside


def _text(value: Any) -> str:
    """Its text without comments and blank lines."""
    try:
        text = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        raise DefinitionError(f"the text of {value.__name__} cannot be found", "write it in a file") from None
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())
