"""The code of a function, as one number: whether what runs here is what a version was fitted with.

    fingerprint(prepare)       # sha256 over its text, and that of what it uses

Counted are the function and, by names that it mentions, functions, classes, modules and constants of its own folder (and below),
and theirs in turn, also where something else holds them: a cache, a partial, a table, an object; comments, blank lines and the
places of files are not. Packages that are installed are not counted: runs record the versions of those that matter.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import re
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from .errors import DefinitionError

__all__ = ["fingerprint"]

_PLAIN: Final = (bool, int, float, complex, str, bytes, Decimal, range, type(None))
_SPAN: Final = (date, time, timedelta, timezone)


def fingerprint(made: Callable[..., Any]) -> str:
    """sha256 (hex) of the code behind a function. DefinitionError where its text cannot be found."""
    home = os.path.dirname(os.path.abspath(inspect.getfile(made)))
    seen, said = dict[int, Any](), set[tuple[str, str]]()  # two that are called alike both count
    waiting = list[tuple[str, Any]]([(made.__qualname__, made)])
    while waiting:
        name, value = waiting.pop()
        value = _bare(value)
        if isinstance(value, FunctionType | type):
            name = value.__qualname__
        if (told := _told(value, home)) is None:
            continue
        said.add((name, told))
        if id(value) not in seen:
            seen[id(value)] = value
            waiting += _used(name, value, home)
    whole = "\0".join(f"{name}\0{told}" for name, told in sorted(said))
    return hashlib.sha256(whole.encode(errors="backslashreplace")).hexdigest()


def _bare(value: Any) -> Any:
    """What a cache and the like was put around."""
    inner = None if isinstance(value, FunctionType | type | ModuleType) else getattr(value, "__wrapped__", None)
    return inner if isinstance(inner, FunctionType) else value


def _told(value: Any, home: str) -> str | None:
    """What a value is, in words that are the same wherever its files lie; None: it does not count."""
    if isinstance(value, FunctionType | type | ModuleType):
        return _text(value) if _below(value, home) else None
    if callable(value) and not isinstance(value, partial | MethodType) and not _below(type(value), home):
        return None
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        if getattr(value.dtype, "hasobject", False):  # whose bytes are addresses
            return f"{value.dtype} {value.shape} {_spelled(value.tolist())}"
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return _spelled(value)


def _spelled(value: Any) -> str:
    """Constants as they are written; of anything else the type."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, _SPAN):
        return f"{type(value).__qualname__} {value}"
    if isinstance(value, re.Pattern):
        return f"{value.pattern!r} {value.flags}"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_spelled(key)}: {_spelled(each)}" for key, each in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_spelled, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return type(value).__qualname__


def _used(name: str, value: Any, home: str) -> Iterator[tuple[str, Any]]:
    """What a value mentions or holds, by names of its own."""
    if isinstance(value, FunctionType):
        for each in _names(value.__code__):
            if each in value.__globals__:
                yield each, value.__globals__[each]
        for each, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield f"{name}.{each}", cell.cell_contents
        for each in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            yield f"{name}=", each
    elif isinstance(value, type):
        for base in value.__bases__:
            yield name, base
        for each, held in vars(value).items():
            functions = [one for one in _functions(held) if isinstance(one, FunctionType)]
            for one in functions:  # their text is the class's
                yield from _used(name, one, home)
            if not functions and not each.startswith("__"):
                yield f"{name}.{each}", held
    elif isinstance(value, ModuleType):
        for each, held in vars(value).items():
            if not each.startswith("__"):
                yield each, held
    elif isinstance(value, partial):
        yield f"{name}()", value.func
        for each in (*value.args, value.keywords):
            yield f"{name}()", each
    elif isinstance(value, MethodType):
        yield f"{name}()", value.__func__
        yield f"{name}()", value.__self__
    else:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set | frozenset) else ()
        for each in inside:
            if not isinstance(each, _PLAIN):
                yield f"{name}[]", each
        if _below(type(value), home):
            yield name, type(value)
            for each, held in getattr(value, "__dict__", {}).items():
                yield f"{name}.{each}", held


def _functions(held: Any) -> tuple[Any, ...]:
    """The functions of what a class holds by a name."""
    if isinstance(held, property):
        return held.fget, held.fset, held.fdel
    if isinstance(held, cached_property):
        return (held.func,)
    return (inspect.unwrap(getattr(held, "__func__", held)),)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _below(value: Any, home: str) -> bool:
    """Whether it was written in that folder or below, and not installed there."""
    module = value if isinstance(value, ModuleType) else sys.modules.get(value.__module__)
    file = getattr(module, "__file__", None) or ""
    if not file or getattr(module, "__name__", "").partition(".")[0] in sys.stdlib_module_names:
        return False
    inside = os.path.relpath(os.path.abspath(file), home)
    return not inside.startswith(os.pardir) and "site-packages" not in inside


def _text(value: Any) -> str:
    """Its text without comments and blank lines."""
    try:
        text = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        if isinstance(value, type):  # made by a call, such as a named tuple: what it holds counts
            return value.__qualname__
        raise DefinitionError(f"the text of {value.__name__} cannot be found", "write it in a file") from None
    lines = text.split("\n")
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    except (tokenize.TokenError, SyntaxError):  # the lines of a lambda need not be whole
        pass
    return "\n".join(line.rstrip() for line in lines if line.strip())
