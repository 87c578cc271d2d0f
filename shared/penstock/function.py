"""Functions: plain Python before or after a model, arrays by name in, arrays by name out.

    @ps.function(takes={"amount": "FP64[*]", "country": "BYTES[*]"}, gives={"X": "FP32[*, 2]"})
    def prepare(amount, country):
        return {"X": np.stack([np.log1p(amount), country == "NL"], axis=1, dtype=np.float32)}

A tensor is spelled as `penstock serve` shows it: a datatype of the Open Inference Protocol and a shape, `*` for any size. Where
every tensor begins with `*`, that is rows, which must not see each other: requests that come together are then one call. BYTES
are arrays of `str`. The function stays what it was, to be called and tested like any other; it is served from a process of its
own (`penstock.scoring.worker`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .errors import DefinitionError
from .mistake import mistake, together

__all__ = ["Declared", "declared", "function"]

_TENSOR: Final = re.compile(r"(BOOL|BYTES|U?INT(?:8|16|32|64)|FP(?:16|32|64))\[\s*((?:\*|\d+)(?:\s*,\s*(?:\*|\d+))*)\s*\]")
_MARK: Final = "__penstock_tensors__"

_F = TypeVar("_F", bound=Callable[..., Mapping[str, Any]])


@dataclass(frozen=True)
class Declared:
    """What a function takes and gives: name -> datatype and shape, -1 for any size."""

    takes: dict[str, tuple[str, list[int]]]
    gives: dict[str, tuple[str, list[int]]]

    @property
    def batched(self) -> bool:
        """Whether the first dimension of every tensor is rows."""
        return all(shape[:1] == [-1] for _, shape in (*self.takes.values(), *self.gives.values()))


def function(*, takes: Mapping[str, str], gives: Mapping[str, str]) -> Callable[[_F], _F]:
    """Declare what a function takes (its parameters) and gives (the keys of what it returns), see this module.

    It refuses a request with `raise ps.PenstockError("what is wrong with it")`, which is answered with status 400; any other
    exception is its own fault and answered with 500. DefinitionError where a tensor is not spelled so, or parameters have other
    names.
    """

    def declare(made: _F) -> _F:
        said = f"function {made.__name__}"
        with together():
            tensors = Declared(_tensors(said, takes), _tensors(said, gives))
            parameters = [p.name for p in inspect.signature(made).parameters.values() if p.default is p.empty]
            if set(parameters) != set(takes):
                there = ", ".join(parameters) or "none"
                mistake(f"{said} has the parameters {there}", f"name them as `takes` does: {', '.join(takes)}")
            if not takes or not gives:
                mistake(f"{said} takes or gives nothing", 'name tensors, such as gives={"score": "FP64[*]"}')
        setattr(made, _MARK, tensors)
        return made

    return declare


def declared(made: object) -> Declared:
    """What a function takes and gives. DefinitionError for what was not declared with `function`."""
    found = getattr(made, _MARK, None)
    if not isinstance(found, Declared):
        name = getattr(made, "__name__", repr(made))
        raise DefinitionError(
            f"{name} does not say which tensors it takes", "decorate it with @ps.function(takes=..., gives=...)"
        )
    return found


def _tensors(said: str, of: Mapping[str, str]) -> dict[str, tuple[str, list[int]]]:
    found = {}
    for name, spelled in of.items():
        match = _TENSOR.fullmatch(spelled)
        if match is None or not name.isidentifier():
            mistake(f"{said}: {name!r}: {spelled!r} is no tensor", 'write a name and a tensor, such as "X": "FP32[*, 3]"')
            continue
        found[name] = match[1], [-1 if size.strip() == "*" else int(size) for size in match[2].split(",")]
    return found
