"""Canaries: rows whose answer is known, which every version must know before it answers anybody.

A version that was fitted on turned labels, or is not what it was, is likely to answer them otherwise. The trainer asks them of
what it has fitted, and offers nothing that fails. Whoever serves asks them of what it has opened, and again each time it is put
in charge, as when a version comes back; so does whoever opens it elsewhere (`ps.load_model`, `penstock score`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from .errors import PenstockError
from .feature import columns_of, references
from .mistake import mistake

if TYPE_CHECKING:
    from .inputs import Floats, Matrix
    from .label import Label

__all__ = ["Canary", "ask", "broken", "fit", "known", "unknown"]


@dataclass(frozen=True)
class Canary:
    """Inputs by name, those absent missing, and between what the answer lies, both inclusive: the probability of yes, or the
    number. Of classes `answer` is the one that is named, and the bounds are those of its probability."""

    inputs: tuple[tuple[str, float], ...]
    above: float
    below: float
    answer: str = ""

    def __str__(self) -> str:
        """What is known, in words.

        >>> [str(canary) for canary in (Canary((), 3.0, inf), Canary((), 0.6, 1.0), Canary((), 0.5, 1.0, "bug"))]
        ['to be 3 or more', 'to lie between 0.6 and 1', 'to be bug, at a probability of 0.5 or more']
        """
        if self.answer:
            sure = f", at a probability of {self.above:g} or more" if self.above > 0 else ""
            return f"to be {self.answer}{sure}"
        if isfinite(self.above) and isfinite(self.below):
            return f"to lie between {self.above:g} and {self.below:g}"
        return f"to be {self.above:g} or more" if isfinite(self.above) else f"to be {self.below:g} or less"

    def knows(self, said: str, answer: float) -> bool:
        """Whether this is the answer: `said` is the class that it names."""
        return said == self.answer and isfinite(answer) and self.above <= answer <= self.below


def known(
    inputs: Mapping[Any, float],
    *,
    above: float | None = None,
    below: float | None = None,
    answer: float | str | None = None,
    within: float = 0.0,
) -> Canary:
    """A row whose answer is known: `inputs` are numbers by column or feature, or by name where a feature is several numbers.

        ps.known({Payment.amount: 9_000.0, Card.count_1h: 40}, above=0.5)    yes or no: between what its probability lies
        ps.known({Scheduled.distance: 200.0}, answer=12.0, within=30.0)      a number, and how far off a version may be
        ps.known({Ticket.words: 3.0}, answer="question", above=0.6)          a class, and its least probability

    `above` and `below` are bounds of any number, too; both include themselves. A class is to be the most probable one. What is
    not named is missing, as of an entity of which nothing is known. Choose rows of which nobody doubts the answer, with some room
    in the bounds: a version that misses one is not offered.
    """
    found = dict[str, float]()
    for item, number in inputs.items():
        names = [item] if isinstance(item, str) else [name for each in references(item) for name in columns_of(each)]
        if len(names) != 1:
            mistake(f"known({item!r}): these are {len(names)} numbers", 'name each, as in {"Card.last_3[0]": 1.0}')
        if not isfinite(number):
            mistake(f"known({item!r}: {number})", "write a finite number; leave out what is missing")
        found |= dict.fromkeys(names, float(number))
    said = f"known({len(found)} inputs, above={above}, below={below}, answer={answer!r}, within={within})"
    named = answer if isinstance(answer, str) else ""
    if not named and isinstance(answer, int | float):
        if above is not None or below is not None or not within > 0:
            mistake(said, "a number is known to lie within=... of answer=..., or between above=... and below=...")
        above, below = answer - within, answer + within
    low, high = -inf if above is None else float(above), inf if below is None else float(below)
    if not found or not low < high or not (named or isfinite(low) or isfinite(high)):
        mistake(said, "name inputs, and above=, below= or answer=, above below `below`")
    return Canary(tuple(sorted(found.items())), low, high, named)


def fit(name: str, label: Label, canaries: Sequence[Canary]) -> tuple[Canary, ...]:
    """The canaries of a model `name`, bounded as answers to its label are; what cannot be an answer to it is noted."""
    found = []
    for canary in canaries:
        said, low, high = f"model {name}: a canary known {canary}", canary.above, canary.below
        if label.task == "multiclass" and canary.answer not in label.classes:
            mistake(said, f"name one of the classes: answer={label.classes[0]!r}")
        elif label.task != "multiclass" and canary.answer:
            mistake(said, "the label has no classes: give above= or below=")
        if label.task != "regression":
            if (not canary.answer and (max(low, 0.0), min(high, 1.0)) == (0.0, 1.0)) or low >= 1 or high <= 0:
                mistake(said, "the answer is a probability: 0 <= above < below <= 1")
            low, high = max(low, 0.0), min(high, 1.0)
        found.append(Canary(canary.inputs, low, high, canary.answer))
    return tuple(found)


def broken(
    canaries: Sequence[Canary], names: Sequence[str], ask: Callable[[Matrix], Floats], classes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The canaries that a version answers otherwise, with its answers; `ask` takes float32 (rows, inputs) in the order of `names`
    and gives probabilities or numbers (rows,), of `classes` (rows, classes)."""
    if not canaries:
        return []
    import numpy as np

    rows = np.full((len(canaries), len(names)), np.nan, np.float32)
    for row, canary in zip(rows, canaries, strict=True):
        for name, number in canary.inputs:
            row[list(names).index(name)] = number
    found, said = ask(rows), [""] * len(rows)
    if classes:
        said = [classes[at] for at in found.argmax(axis=1)]
        found = found.max(axis=1)
    return [
        {
            "inputs": dict(canary.inputs),
            "above": canary.above if isfinite(canary.above) else None,
            "below": canary.below if isfinite(canary.below) else None,
            "answer": answer if isfinite(answer) else None,
            "known": str(canary),
            **({"class": name} if classes else {}),
        }
        for canary, answer, name in zip(canaries, found.tolist(), said, strict=True)
        if not canary.knows(name, answer)
    ]


def ask(canaries: Sequence[Canary], names: Sequence[str], score: Callable[[Matrix], Floats], classes: Sequence[str] = ()) -> None:
    """Raises PenstockError for a version that answers them otherwise."""
    if failed := broken(canaries, names, score, classes):
        raise PenstockError(f"it answers canaries otherwise than they are known: {failed}", "refit it, or roll back")


def unknown(canaries: Sequence[Canary], names: Sequence[str]) -> list[str]:
    """Names that are no inputs of the model."""
    return sorted({name for canary in canaries for name, _ in canary.inputs} - set(names))
