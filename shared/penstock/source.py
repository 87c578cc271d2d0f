"""The source of small functions in a definition (conditions, derived features): what it says, and what it reads."""

from __future__ import annotations

import ast
import dis
import inspect
import itertools
import linecache
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["names_read", "source_of"]


def source_of(function: Callable[..., Any]) -> str:
    """What the function says, without its comments, its docstring and its layout, and the values that it takes from around it;
    its byte code where there is no file to read.

    Fingerprints are made of it, and conditions told apart by it: moving or formatting a definition changes nothing, another
    meaning does. Of what is imported, and of objects without a `repr` of their own, only the name counts.

    >>> def above(limit):
    ...     return lambda payment: payment.amount > limit
    >>> source_of(above(1)) == source_of(above(1)), source_of(above(1)) == source_of(above(2))
    (True, False)
    """
    taken = "".join(f", {name}={spelled}" for name, spelled in sorted(_taken(function)))
    return _written(function) + taken


def _written(function: Callable[..., Any]) -> str:
    code = function.__code__
    where = next(((line, column) for line, _, column, _ in code.co_positions() if line and column), (0, 0))
    tree = _parsed("".join(linecache.getlines(code.co_filename)))
    best = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda | ast.FunctionDef) and getattr(node, "name", "<lambda>") == code.co_name:
            begin, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
            if begin <= where <= end:
                best = node  # walked from outside in: the innermost comes last
    if best is None:
        return f"{code.co_code.hex()} {code.co_consts!r} {code.co_names!r}"
    if isinstance(best, ast.FunctionDef):
        best.decorator_list = []
        if len(best.body) > 1 and ast.get_docstring(best) is not None:
            best.body = best.body[1:]
    return ast.unparse(best)


def _taken(function: Callable[..., Any], within: tuple[object, ...] = ()) -> Iterator[tuple[str, str]]:
    """What a function takes from around it, by name: variables of outer functions, defaults, and names of its file."""
    code, arguments = function.__code__, inspect.signature(function).parameters.values()
    found = {argument.name: argument.default for argument in arguments if argument.default is not argument.empty}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a variable that nothing was put into yet
            found[name] = cell.cell_contents
    found |= {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
    for name, value in found.items():
        if isinstance(value, FunctionType):
            if value.__module__ == function.__module__ and value not in (function, *within):
                yield name, _written(value)
                yield from _taken(value, (function, *within))
        elif not isinstance(value, ModuleType | type):
            yield name, _spelled(value)


def _names(code: CodeType) -> Iterator[str]:
    """The names of its file that code reads."""
    yield from (str(read.argval) for read in dis.get_instructions(code) if read.opname == "LOAD_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _spelled(value: object) -> str:
    """A value in words that are the same in every process."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_spelled, value)))}}}"
    return type(value).__qualname__ if type(value).__repr__ is object.__repr__ else repr(value)


@lru_cache(64)
def _parsed(text: str) -> ast.Module:
    """A file's tree; an empty one where it has none."""
    for _ in range(3):
        try:
            return ast.parse(text)
        except SyntaxError:
            break
        except SystemError:  # Python below 3.11.9 and 3.12.3, when two threads parse at once (cpython#106905)
            continue
    return ast.Module([], [])


def names_read(function: Callable[..., Any], argument: int) -> Iterator[tuple[str, tuple[str, int]]]:
    """The attributes that the body reads of one of its arguments, each with file and line."""
    code = function.__code__
    if argument >= code.co_argcount:
        return
    owner = code.co_varnames[argument]
    for loaded, read in itertools.pairwise(dis.get_instructions(code)):
        if read.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not loaded.opname.startswith("LOAD_FAST"):
            continue
        if (loaded.argval[-1] if isinstance(loaded.argval, tuple) else loaded.argval) == owner:  # some load two at once
            line = (loaded.positions.lineno if loaded.positions else None) or code.co_firstlineno
            yield str(read.argval), (code.co_filename, line)
