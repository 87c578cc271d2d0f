"""The source of small functions in a definition (conditions, derived features): what it says, and what it reads."""

from __future__ import annotations

import ast
import dis
import itertools
import linecache
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["names_read", "source_of"]


def source_of(function: Callable[..., Any]) -> str:
    """What the function says, without its comments and its layout; its byte code where there is no file to read.

    Fingerprints are made of it: moving or formatting a definition changes nothing, another meaning does.
    """
    code = function.__code__
    where = next(((line, column) for line, _, column, _ in code.co_positions() if line and column), (0, 0))
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError:
        tree = ast.Module([], [])
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
    return ast.unparse(best)


def names_read(function: Callable[..., Any], argument: int) -> Iterator[tuple[str, tuple[str, int]]]:
    """The attributes that the body reads of one of its arguments, each with file and line."""
    code = function.__code__
    if argument >= code.co_argcount:
        return
    owner = code.co_varnames[argument]
    for loaded, read in itertools.pairwise(dis.get_instructions(code)):
        if read.opname == "LOAD_ATTR" and loaded.opname.startswith("LOAD_FAST") and loaded.argval == owner:
            line = (loaded.positions.lineno if loaded.positions else None) or code.co_firstlineno
            yield str(read.argval), (code.co_filename, line)
