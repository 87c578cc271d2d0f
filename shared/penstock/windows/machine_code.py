"""Plain Python loops as machine code, through numba, kept on disk; without numba they run as they are, with the same bits."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import FunctionType
from typing import Any, cast

__all__ = ["machine_code", "without_blas"]

_made: dict[tuple[str, ...], Callable[..., Any]] = {}
_one_at_a_time = Lock()
"""Where numba keeps what it compiles is a setting of the process."""


def machine_code(whole: Callable[..., Any], signature: str, parts: Sequence[Callable[..., Any]], names: dict[str, Any]) -> Any:
    """`whole` compiled for one signature, together with the functions that it calls: `parts`, callees first, itself last. A part
    may be machine code itself.

    The signature is explicit because another combination of types would compile anew in mid-stream. The cache lies in a
    folder that is named after the parts and their sources: numba itself would look at the file of `whole` only, and serve the
    machine code of older parts, or of others.
    """
    key = tuple(part.__qualname__ for part in parts)  # of machine code, with its sources
    with _one_at_a_time:
        if key not in _made:
            _made[key] = _compiled(whole, signature, parts, names, repr(key))
        return _made[key]


def without_blas() -> None:
    """Load numba for a process whose loops multiply no matrices. For that numba would load scipy.linalg: 16 MB, and as much time
    as for itself. Only for processes of our own: in a notebook it would be missing from the loops of others.
    """
    blas, modules = "scipy.linalg.cython_blas", cast(dict[str, Any], sys.modules)
    if blas in modules:
        return
    modules[blas] = None  # importing it fails, as where there is no scipy
    try:
        import_module("numba.np.arraymath")  # asks for it, once
    except ImportError:
        return
    finally:
        del modules[blas]


def _compiled(
    whole: Callable[..., Any], signature: str, parts: Sequence[Callable[..., Any]], names: dict[str, Any], said: str
) -> Callable[..., Any]:
    try:
        import numba

        config: Any = numba.config
    except ImportError:
        return whole
    files = sorted({part.__code__.co_filename for part in parts})
    sources = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files) + said.encode()).hexdigest()[:12]
    names, before = dict(names), config.CACHE_DIR
    config.CACHE_DIR = before or str(Path("~/.cache/penstock/numba").expanduser() / sources)
    try:
        for part in parts[:-1]:
            plain = isinstance(part, FunctionType)
            compiled = numba.njit(nogil=True, forceinline=True)(_bound(part, names, sources)) if plain else part
            names |= {name: compiled for name, function in names.items() if function is part or name == part.__name__}
        try:
            made = numba.njit(signature, cache=True, nogil=True)(_bound(whole, names, sources))
        except (OSError, RuntimeError):  # no place to keep it
            made = numba.njit(signature, nogil=True)(_bound(whole, names, sources))
    finally:
        config.CACHE_DIR = before
    return made


def _bound(function: Callable[..., Any], names: dict[str, Any], sources: str) -> Callable[..., Any]:
    """The function as it would be if its module held these names.

    Its own name says which parts it is made with: symbols of machine code are made of names, and those of two variants that
    different processes had compiled would be taken for each other when both are loaded from the cache.
    """
    bound = FunctionType(function.__code__, names, function.__name__)
    bound.__module__, bound.__qualname__ = function.__module__, f"{function.__qualname__}_{sources}"
    return bound
