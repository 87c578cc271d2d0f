"""Canaries: rows whose answer is known, which every version must know before it answers anybody.

A version that was fitted on turned labels, or is not what it was, is likely to answer them otherwise. The trainer asks them of
what it has fitted, and offers nothing that fails; whoever serves asks them again of what it has opened, and goes on with the
version before. Where there is none, as a canary was declared after the only version came, that one answers on, and it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from .feature import columns_of, references
from .mistake import mistake

if TYPE_CHECKING:
    from .inputs import Floats, Matrix

__all__ = ["Canary", "broken", "known", "unknown"]


@dataclass(frozen=True)
class Canary:
    """Inputs by name, those absent missing, and between what the answer lies, both inclusive."""

    inputs: tuple[tuple[str, float], ...]
    above: float
    below: float


def known(inputs: Mapping[Any, float], *, above: float = 0.0, below: float = 1.0) -> Canary:
    """A row whose answer is known: `inputs` are numbers by column or feature, or by name where a feature is several numbers.

        canaries=[ps.known({Payment.amount: 9_000.0, Card.count_1h: 40}, above=0.5), ps.known({Payment.amount: 3.0}, below=0.2)]

    What is not named is missing, as of an entity of which nothing is known. Choose rows of which nobody doubts the answer, with
    some room in the bounds: a version that misses one is not offered.
    """
    found = dict[str, float]()
    for item, number in inputs.items():
        names = [item] if isinstance(item, str) else [name for each in references(item) for name in columns_of(each)]
        if len(names) != 1:
            mistake(f"known({item!r}): these are {len(names)} numbers", 'name each, as in {"Card.last_3[0]": 1.0}')
        if not isfinite(number):
            mistake(f"known({item!r}: {number})", "write a finite number; leave out what is missing")
        found |= dict.fromkeys(names, float(number))
    if not found or not 0 <= above < below <= 1 or (above, below) == (0, 1):
        mistake(
            f"known({len(found)} inputs, above={above}, below={below})",
            "name inputs, and above or below: 0 <= above < below <= 1",
        )
    return Canary(tuple(sorted(found.items())), above, below)


def broken(canaries: Sequence[Canary], names: Sequence[str], ask: Callable[[Matrix], Floats]) -> list[dict[str, Any]]:
    """The canaries that a version answers otherwise, with its answers; `ask` takes float32 (rows, inputs) in the order of `names`
    and gives probabilities (rows,)."""
    if not canaries:
        return []
    import numpy as np

    rows = np.full((len(canaries), len(names)), np.nan, np.float32)
    for row, canary in zip(rows, canaries, strict=True):
        for name, number in canary.inputs:
            row[list(names).index(name)] = number
    answers = ask(rows).tolist()
    return [
        {
            "inputs": dict(canary.inputs),
            "above": canary.above,
            "below": canary.below,
            "answer": answer if isfinite(answer) else None,
        }
        for canary, answer in zip(canaries, answers, strict=True)
        if not canary.above <= answer <= canary.below
    ]


def unknown(canaries: Sequence[Canary], names: Sequence[str]) -> list[str]:
    """Names that are no inputs of the model."""
    return sorted({name for canary in canaries for name, _ in canary.inputs} - set(names))
