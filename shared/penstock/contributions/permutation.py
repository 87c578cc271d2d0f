"""Contributions to any model's probability, estimated by walking from background rows to the row, one input after the other.

Each background row is walked from twice: in a random order of the inputs and in its reverse (antithetic pairs: Mitchell et al.,
Sampling permutations for Shapley value estimation, 2022). What a step changes is one draw of its input's contribution. As every
walk ends at the row and every background row is used alike, contributions add up to the answer exactly; what is estimated is how
they are shared out. The standard error counts the spread among background rows as chance too, so it is an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ..inputs import Floats, Matrix

__all__ = ["Permutation"]


class Permutation:
    """`score` gives the model's probabilities, or numbers (`scale`); `background` float32 (rows, inputs). `seed` fixes the
    orders, which are the same for every row, so that equal rows are explained alike."""

    kind: Final = "permutation"

    def __init__(self, score: Callable[[Matrix], Floats], background: Matrix, seed: int = 0, scale: str = "probability") -> None:
        self.scale = scale
        if background.ndim != 2 or len(background) < 2:
            raise ValueError("a background has two rows or more")
        self._score, self._background, self._seed = score, background, seed
        self.base = float(np.mean(score(background)))

    def contributions(self, X: Matrix) -> Floats:  # noqa: N803
        return self.explained(X)[0]

    def explained(self, X: Matrix) -> tuple[Floats, Floats]:  # noqa: N803
        found = [self._row(row) for row in X]
        shape = (len(X), self._background.shape[1])
        return tuple(np.array([each[part] for each in found], np.float64).reshape(shape) for part in (0, 1))  # type: ignore[return-value]

    def _row(self, row: Matrix) -> tuple[Floats, Floats]:
        rows, width = self._background.shape
        drawn = np.random.default_rng(self._seed)
        there = np.stack([drawn.permutation(width) for _ in range(rows)])
        draws = (self._walk(row, there) + self._walk(row, there[:, ::-1])) / 2
        return draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(rows)

    def _walk(self, row: Matrix, orders: Any) -> Floats:
        """What each step changes, by background row and input."""
        rows, width = self._background.shape
        turn = np.argsort(orders, axis=1)  # in which step an input takes the row's value
        steps = np.arange(width + 1)[None, :, None] > turn[:, None, :]
        path = np.where(steps, row, self._background[:, None, :]).astype(np.float32)
        answers = self._score(path.reshape(-1, width)).reshape(rows, width + 1)
        found = np.empty((rows, width))
        np.put_along_axis(found, orders, np.diff(answers, axis=1), axis=1)
        return found

    def arrays(self) -> dict[str, Any]:
        scale = {} if self.scale == "probability" else {"scale": np.frombuffer(self.scale.encode(), np.uint8)}
        return {"background": self._background, "seed": np.int64(self._seed), **scale}

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], score: Callable[[Matrix], Floats]) -> Permutation:
        scale = arrays["scale"].tobytes().decode() if "scale" in arrays else "probability"
        return cls(score, np.asarray(arrays["background"], np.float32), int(arrays["seed"]), scale)
