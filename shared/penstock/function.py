"""Functions: plain Python before or after a model, arrays by name in, arrays by name out.

    @ps.function(takes={"amount": "FP64[*]", "country": "BYTES[*]"}, gives={"X": "FP32[*, 2]"})
    def prepare(amount, country):
        return {"X": np.stack([np.log1p(amount), country == "NL"], axis=1, dtype=np.float32)}

A tensor is spelled as `penstock serve` shows it: a datatype of the Open Inference Protocol and a shape, `*` for any size. Where
every tensor begins with `*`, that is rows, which must not see each other: requests that come together are then one call. BYTES
are arrays of `str`. The function stays what it was, to be called and tested like any other; it is served from a process of its
own (`penstock.scoring.worker`).

Around a model of a project, `@ps.model(before=prepare, after=finish)`, a function takes the model's inputs: each by its name as
FP64[*] (`distance` is `Flight.distance`; `Flight_distance` where two are called so), or all as X, FP32[*, inputs]; NaN is a
missing value. `before` gives X, FP32[*, n]: what the learner is fitted on and asked with. `after` takes `score` beside, FP64[*]
(of classes FP64[*, classes]), and gives the score that is answered.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .errors import DefinitionError
from .mistake import mistake, nearest, together

__all__ = ["Declared", "Function", "around", "called", "declared", "function", "functions_of"]

Function = Callable[..., Mapping[str, Any]]
"""What `function` decorates."""

_TENSOR: Final = re.compile(r"(BOOL|BYTES|U?INT(?:8|16|32|64)|FP(?:16|32|64))\[\s*((?:\*|\d+)(?:\s*,\s*(?:\*|\d+))*)\s*\]")
_MARK: Final = "__penstock_tensors__"

_F = TypeVar("_F", bound=Function)


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


def functions_of(module: str) -> dict[str, Function]:
    """Those that a module has, by name."""
    there = vars(sys.modules[module]) if module in sys.modules else {}
    return {made.__name__: made for made in there.values() if isinstance(getattr(made, _MARK, None), Declared)}


def called(inputs: Sequence[str]) -> dict[str, str]:
    """What functions may call inputs -> the input.

    >>> called(["A.distance", "A.mean", "B.mean"])
    {'A_distance': 'A.distance', 'A_mean': 'A.mean', 'B_mean': 'B.mean', 'distance': 'A.distance'}
    """
    short = Counter(name.partition(".")[2].replace(".", "_") for name in inputs)
    found = {name.replace(".", "_"): name for name in inputs}
    return found | {own: name for name in inputs if short[own := name.partition(".")[2].replace(".", "_")] == 1}


def around(said: str, role: str, made: object, inputs: Sequence[str], classes: int) -> None:
    """See that a function fits before or after a model with these inputs, whose answers have so many classes (0: none)."""
    tensors, name = declared(made), getattr(made, "__name__", "")
    if "." in getattr(made, "__qualname__", "."):
        mistake(f"{said}: {role}={name} is not at the top of its file", "another process must find it there")
    score, known = ("FP64", [-1, classes] if classes else [-1]), called(inputs)
    for taken, (datatype, shape) in tensors.takes.items():
        if taken == "score" and role == "after":
            fits, wanted = (datatype, shape) == score, _as_written(score)
        elif taken == "X":
            fits, wanted = datatype == "FP32" and shape in ([-1, len(inputs)], [-1, -1]), f"FP32[*, {len(inputs)}]"
        elif taken in known:
            fits, wanted = (datatype, shape) == ("FP64", [-1]), "FP64[*]"
        else:
            mistake(f"{said}: {role}={name} takes {taken}, which is no input of the model", nearest(taken, ["X", *known]))
            continue
        if not fits:
            mistake(f"{said}: {role}={name} takes {taken} as {_as_written((datatype, shape))}", f"write {wanted}")
    if role == "after":
        if "score" not in tensors.takes or tensors.gives != {"score": score}:
            mistake(
                f"{said}: after={name} does not take and give the score",
                f'let takes= and gives= have "score": "{_as_written(score)}"',
            )
    else:
        kind, shape = tensors.gives.get("X", ("", []))
        if list(tensors.gives) != ["X"] or kind != "FP32" or len(shape) != 2 or shape[0] != -1 or shape[1] < 1:
            mistake(f"{said}: before={name} does not give X alone, rows of float32", 'write gives={"X": "FP32[*, 3]"}')


def _as_written(tensor: tuple[str, list[int]]) -> str:
    return f"{tensor[0]}{tensor[1]}".replace("-1", "*")


def _tensors(said: str, of: Mapping[str, str]) -> dict[str, tuple[str, list[int]]]:
    found = {}
    for name, spelled in of.items():
        match = _TENSOR.fullmatch(spelled)
        if match is None or not name.isidentifier():
            mistake(f"{said}: {name!r}: {spelled!r} is no tensor", 'write a name and a tensor, such as "X": "FP32[*, 3]"')
            continue
        found[name] = match[1], [-1 if size.strip() == "*" else int(size) for size in match[2].split(",")]
    return found
