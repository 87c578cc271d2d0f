"""Contributions to the class that an answer names, of models that give a probability to each of several.

There is an explainer of each class. Forests add up probabilities, and so their contributions are to the probability of the class.
Boosted trees and linear models add up scores that softmax makes probabilities of; a score that all classes have in common says
nothing, so what is explained is the class's own less the mean of all: the logarithm of its probability over their geometric mean
(centred log-ratio: Aitchison, The statistical analysis of compositional data, 1986).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..inputs import Floats, Matrix
from .linear import Linear
from .permutation import Permutation
from .trees import Trees

__all__ = ["Classes", "Part", "centred", "column"]

Part = Linear | Trees | Permutation
_EACH: Final = "each."
"""Before the name of what classes do not have in common."""


class Classes:
    """`part` makes the explainer of a class, by its number among `many`; `score` gives the model's own probabilities, float64
    (rows, classes)."""

    def __init__(self, part: Callable[[int], Part], many: int, score: Callable[[Matrix], Floats]) -> None:
        self.of: Callable[[int], Part] = cache(part)
        self.many, self._score = many, score

    @property
    def kind(self) -> str:
        return self.of(0).kind

    @property
    def scale(self) -> str:
        return self.of(0).scale

    def probabilities(self, X: Matrix) -> Floats:  # noqa: N803
        """Float64 (rows, classes)."""
        return self._score(X)

    def contributions(self, X: Matrix) -> Floats:  # noqa: N803
        """Of each row those to its most probable class, float64 (rows, inputs)."""
        found, named = np.empty(X.shape), self._score(X).argmax(axis=1)
        for each in np.unique(named).tolist():
            found[named == each] = self.of(each).contributions(X[named == each])
        return found

    def arrays(self) -> dict[str, Any]:
        """What the classes have in common is there once, else it is stacked by class."""
        parts = [self.of(each).arrays() for each in range(self.many)]
        found: dict[str, Any] = {"of": np.frombuffer(self.kind.encode(), np.uint8), "many": np.int64(self.many)}
        for name, first in parts[0].items():
            same = all(np.array_equal(first, part[name], equal_nan=np.asarray(first).dtype.kind == "f") for part in parts)
            found |= {name: first} if same else {_EACH + name: np.stack([part[name] for part in parts])}
        return found

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], kind: type[Part], score: Callable[[Matrix], Floats]) -> Classes:
        many = int(arrays["many"])
        apart = {name.removeprefix(_EACH): value for name, value in arrays.items() if name.startswith(_EACH)}
        if many < 2 or any(len(value) != many for value in apart.values()):
            raise ValueError("what it has of its classes does not fit")

        def part(each: int) -> Part:
            return kind.of_arrays(arrays | {name: value[each] for name, value in apart.items()}, column(score, each))

        part(0)  # so that what is damaged is refused when it is opened
        return cls(part, many, score)


def column(score: Callable[[Matrix], Floats], each: int) -> Callable[[Matrix], Floats]:
    """The probability of one class."""

    def asked(rows: Matrix) -> Floats:
        return np.ascontiguousarray(score(rows)[:, each])

    return asked


def centred(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Scores by class (classes, ...), each less the mean of all.

    >>> centred([[1.0, 5.0], [3.0, 5.0]]).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    found = np.asarray(scores, np.float64)
    return np.asarray(found - found.mean(axis=0), np.float64)
