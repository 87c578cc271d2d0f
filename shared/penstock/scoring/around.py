"""The functions around a model: what a version was fitted with before and after it, and is asked with, each in its own process.

    X (rows, inputs) --before--> what the learner sees --model--> scores --after--> what is answered

Which functions a version has is in its record, by name and fingerprint (`Candidate.functions`); their code comes from the project
and from nowhere else. One that is not there any more, or is another now, leaves the version unopened: it is never asked with
another function than it was fitted with.

All rows are one message. Where a call fails, halves of it are tried, so that a row that a function cannot take fails alone, and
says why; where it hangs or dies, each row by itself, until that has happened `COSTLY` times: the rest are not asked any more.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np

from penstock.errors import PenstockError, Refused
from penstock.function import called
from penstock.inputs import Floats, Matrix
from penstock.model import Model
from penstock.records import Code

from .process import Bounds, Function, FunctionFailed
from .signature import Array

__all__ = ["NOTHING", "Around", "Functions", "Plan", "Score", "Surrounded", "Unanswered"]

BOUNDS: Final = Bounds()
"""Of every function around a model."""
TOGETHER: Final = 4096
"""Rows of a message: with 100 inputs 3 MiB. More are no faster, and all of them have to be done within the seconds of a call."""
COSTLY: Final = 4
"""Calls of one question that may hang or die, each for as long as a call may take."""
NEAR: Final = 1e-5
"""Relative difference between a row alone and among others that rounding explains."""
ROUNDED: Final = 1e-6
"""By how much a probability may lie outside of 0 and 1: it is rounded to them."""
PROVEN: Final = 16
"""Rows that are asked alone, too."""

Score = Callable[[Matrix], Floats]
"""float32 (rows, columns), NaN for missing -> float64 (rows,), or (rows, classes)."""
Why = dict[int, PenstockError]
"""By row."""


class Unanswered(PenstockError):
    """Some rows have no score: `found` has those of the others, and NaN; `why` says by row what is wrong."""

    def __init__(self, found: Floats, why: Why) -> None:
        first = min(why)
        super().__init__(f"{len(why)} of {len(found)} rows have no score: row {first}: {why[first]}")
        self.found, self.why = found, why


class Place(NamedTuple):
    """Where a function is found."""

    file: str
    module: str
    name: str


class Plan(NamedTuple):
    """The functions of a model's file, as declared. Can be sent to another process; opens nothing."""

    places: tuple[Place, ...] = ()
    before: str = ""
    after: str = ""

    @classmethod
    def of(cls, model: Model) -> Plan:
        places = tuple(Place(inspect.getfile(made), made.__module__, name) for name, made in model.functions.items())
        return cls(places, *(made.__name__ if made is not None else "" for made in (model.before, model.after)))


NOTHING: Final = Plan()


class Functions:
    """The processes of a model's functions, each opened when a version first needs it. Safe to share between threads."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._open: dict[str, Function] = {}
        self._turn = threading.Lock()

    def declared(self, task: str = "binary") -> Around | None:
        """What a version that is fitted now has around it; None: nothing is declared."""
        plan = self._plan
        if not plan.before and not plan.after:
            return None
        before, after = (self._opened(name) if name else None for name in (plan.before, plan.after))
        return Around(before, after, task != "regression")

    def of(self, version: str, recorded: Mapping[str, Code], task: str = "binary") -> Around | None:
        """What a version has around it. PenstockError where the project has not that code; Unreachable where its file cannot be
        read now."""
        if not recorded:
            return None
        found: dict[str, Function] = {}
        for role, code in recorded.items():
            if role not in ("before", "after"):
                raise PenstockError(f"{version} has a function {role} its model, which is not known here", "update penstock")
            there = f"{version} was fitted with the function {code.name} {role} the model"
            if code.name not in [place.name for place in self._plan.places]:
                raise PenstockError(f"{there}, which the project no longer has", "put it back, or fit anew")
            found[role] = self._opened(code.name)
            if (now := found[role].code) != code.sha256:
                raise PenstockError(
                    f"{there}, whose code is another now ({now[:12]}, not {code.sha256[:12]})",
                    f"put {code.name} back and give the new code another name, or fit anew",
                )
        return Around(found.get("before"), found.get("after"), task != "regression")

    def close(self) -> None:
        """End the processes, as happens by itself when nobody holds this any more. One that is asked again is started again."""
        for function in list(self._open.values()):
            function.close()

    def _opened(self, name: str) -> Function:
        with self._turn:
            if name not in self._open:
                place = next(place for place in self._plan.places if place.name == name)
                self._open[name] = Function(Path(place.file), name, BOUNDS, place.module)
            return self._open[name]


@dataclass(frozen=True)
class Around:
    """The open functions of a version; either may be missing. `names` are its inputs, the columns of `X`."""

    before: Function | None = None
    after: Function | None = None
    probable: bool = True
    """Whether scores are probabilities."""

    @property
    def codes(self) -> dict[str, Code]:
        """As records have them."""
        both = (("before", self.before), ("after", self.after))
        return {role: Code(name=made.name, sha256=made.code) for role, made in both if made is not None}

    def columns(self, names: Sequence[str]) -> list[str]:
        """What the learner sees, by name: X0, X1, ... where a function makes it."""
        if self.before is None:
            return list(names)
        return [f"X{at}" for at in range(self.before.signature.outputs[0].shape[1])]

    def seen(self, names: Sequence[str], X: Matrix) -> tuple[Matrix, Why]:  # noqa: N803
        """What the learner sees of rows; NaN, and why, of those that the function refuses or fails on. An infinite value is a
        failure."""
        if self.before is None:
            return X, {}
        found = np.full((len(X), len(self.columns(names))), np.nan, np.float32)
        why = _asked(self.before, "X", _feeds(self.before, names, X), found)
        for row in np.flatnonzero(np.isinf(found).any(axis=1)).tolist():
            why[row] = FunctionFailed(f"{self.before.name} gave an infinite value")
            found[row] = np.nan
        return found, why

    def said(self, names: Sequence[str], X: Matrix, scores: Floats) -> tuple[Floats, Why]:  # noqa: N803
        """What is answered to rows for which the model gives `scores`; NaN, and why, where there is no finite answer."""
        if self.after is None:
            return scores, {}
        found = np.full(scores.shape, np.nan)
        why = _asked(self.after, "score", _feeds(self.after, names, X) | {"score": scores}, found)
        good = (np.abs(found - 0.5) <= 0.5 + ROUNDED) if self.probable else np.isfinite(found)
        for row in np.flatnonzero(~_each(good)).tolist():
            wanted = "a probability" if self.probable else "a finite number"
            why.setdefault(row, FunctionFailed(f"{self.after.name} gave {found[row].tolist()}, which is not {wanted}"))
            found[row] = np.nan
        return found, why

    def score(self, names: Sequence[str], X: Matrix, model: Score) -> Floats:  # noqa: N803
        """The answers of a version whose model gives `model` of what it sees. Unanswered where some rows have none."""
        seen, why = self.seen(names, X)
        able = _others(len(X), why)
        scores = model(seen) if not why else model(seen[able])
        there = _each(np.isfinite(scores))
        for at in np.flatnonzero(~there).tolist():
            made = f" for what {self.before.name} makes of this row" if self.before is not None else ""
            why[int(able[at])] = FunctionFailed(f"the model gives no score{made}")
        able = able[there]
        told, failed = self.said(names, X if len(able) == len(X) else X[able], scores if there.all() else scores[there])
        if not why and not failed:
            return told
        why |= {int(able[at]): error for at, error in failed.items()}
        found = np.full((len(X), *scores.shape[1:]), np.nan)
        found[able] = told
        raise Unanswered(found, why)

    def prove(self, names: Sequence[str], X: Matrix, model: Score) -> None:  # noqa: N803
        """See that a row gets the same answer alone and among others, as it must to be answered as it was learned. PenstockError
        where it does not."""
        some = np.unique(np.linspace(0, len(X) - 1, PROVEN).astype(int))
        for made, ask in (
            (self.before, lambda rows: self.seen(names, rows)[0]),
            (self.after, lambda rows: _told(self.score, names, rows, model)),
        ):
            if made is None:
                continue
            whole = ask(X)[some]
            alone = np.concatenate([ask(X[at : at + 1]) for at in some.tolist()])
            if not np.allclose(whole, alone, rtol=NEAR, atol=NEAR, equal_nan=True):
                raise PenstockError(
                    f"{made.name} makes something else of a row alone than among others, so answers are not what was learned",
                    "rows must not see each other, nor chance: take means and the like from constants",
                )


@dataclass(frozen=True)
class Surrounded:
    """A scorer with functions around it."""

    around: Around
    names: tuple[str, ...]
    inner: Any

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        """See `Around.score`."""
        return self.around.score(self.names, X, self.inner.score)

    def warm(self, rows: int) -> Self:
        """Ask what was made up, which a function may refuse."""
        _told(self.around.score, self.names, np.zeros((rows, len(self.names)), np.float32), self.inner.score)
        return self


def _told(score: Callable[..., Floats], *of: Any) -> Floats:
    try:
        return score(*of)
    except Unanswered as error:
        return error.found


def _feeds(function: Function, names: Sequence[str], X: Matrix) -> dict[str, Array]:  # noqa: N803
    known, found = called(names), dict[str, Array]()
    for tensor in function.signature.inputs:
        if tensor.name == "X":
            found["X"] = X
        elif tensor.name in known:
            found[tensor.name] = X[:, list(names).index(known[tensor.name])].astype(np.float64)
    return found


def _asked(function: Function, output: str, feeds: Mapping[str, Array], found: Array) -> Why:
    """Fill in what a function gives, row by row; why it gives nothing for others. PenstockError where it does not take such
    rows at all."""
    for tensor in function.signature.inputs:
        if tensor.name not in feeds or not tensor.fits(feeds[tensor.name].shape):
            raise PenstockError(f"{function.name} takes {tensor.spelled}, which this version has not", "fit anew")
    why, costly = Why(), 0
    waiting = [(at, min(at + TOGETHER, len(found))) for at in range(0, len(found), TOGETHER)][::-1]
    while waiting:
        first, last = waiting.pop()
        if costly >= COSTLY:
            said = FunctionFailed(f"{function.name} was not asked about this row: it has just hung or died {costly} times")
            why |= dict.fromkeys(range(first, last), said)
            continue
        try:
            found[first:last] = function.run((output,), {name: array[first:last] for name, array in feeds.items()})[0]
        except (Refused, FunctionFailed) as error:
            ended = function.pid is None
            costly += ended
            if last - first == 1:
                why[first] = error
            elif ended:
                waiting += [(at, at + 1) for at in range(first, last)][::-1]
            else:
                middle = (first + last) // 2
                waiting += [(middle, last), (first, middle)]
    return why


def _others(rows: int, why: Why) -> Any:
    return np.delete(np.arange(rows), list(why)) if why else np.arange(rows)


def _each(cells: Any) -> Any:
    """By row, whether all of it is so."""
    return cells if cells.ndim == 1 else cells.all(axis=1)
