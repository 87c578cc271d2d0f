"""Contributions to a linear model's log-odds or number: weight x (value - mean of the background), exactly the Shapley values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..inputs import Floats, Matrix
from ..scoring.scorers import Logits
from .seen import Seen

__all__ = ["Linear"]


class Linear:
    """answer = intercept + weights . seen(x), on the `scale`. `means` are those of `seen` values over the background, float64
    (inputs,).

    >>> linear = Linear(np.array([2.0, -1.0]), 0.5, np.array([1.0, 0.0]))
    >>> linear.base, linear.contributions(np.array([[3.0, 1.0]], np.float32)).tolist()
    (2.5, [[4.0, -1.0]])
    """

    kind: Final = "linear"

    def __init__(
        self, weights: Floats, intercept: float, means: Floats, seen: Seen | None = None, scale: str = "log-odds"
    ) -> None:
        self._weights, self._intercept, self._means, self.scale = weights, intercept, means, scale
        self._seen = seen or Seen.plain(len(weights))
        self.base = float(intercept + weights @ means)

    def answers(self, X: Matrix) -> Floats:  # noqa: N803
        """On the scale, float64 (rows,)."""
        return np.asarray(self._intercept + self._seen(X) @ self._weights, np.float64)

    def contributions(self, X: Matrix) -> Floats:  # noqa: N803
        return np.asarray((self._seen(X) - self._means) * self._weights, np.float64)

    def explained(self, X: Matrix) -> tuple[Floats, Floats]:  # noqa: N803
        found = self.contributions(X)
        return found, np.zeros_like(found)

    def arrays(self) -> dict[str, Any]:
        whole = {"weights": self._weights, "intercept": np.float64(self._intercept), "means": self._means}
        scale = {} if self.scale == "log-odds" else {"scale": np.frombuffer(self.scale.encode(), np.uint8)}
        return whole | scale | self._seen.arrays()

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], score: object) -> Linear:
        weights, means = np.asarray(arrays["weights"], np.float64), np.asarray(arrays["means"], np.float64)
        if weights.ndim != 1 or means.shape != weights.shape:
            raise ValueError("weights and means do not fit")
        scale = arrays["scale"].tobytes().decode() if "scale" in arrays else "log-odds"
        return cls(weights, float(arrays["intercept"]), means, Seen.of_arrays(arrays, len(weights)), scale)


class Squashed(Linear):
    """River's LogisticRegression, with or without StandardScaler before it, over squashed inputs. Its background is all that it
    was taught, of which the scaler keeps the means; without a scaler it is a row of zeros."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        means, factors, intercept = Logits.of_river(model, names)
        super().__init__(factors, intercept - float(factors @ means), means, Seen.squashed(len(names)))
