"""Errors of answers that are numbers: sums that add over partitions and windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import msgspec

from ..records import Measure

__all__ = ["Errors", "measured_errors"]

Z = 1.959963984540054
LIMIT = 1e70
"""Beyond it, fourth powers leave float64."""


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over answers and their truths; `odd` counts pairs with a number that is missing, infinite or beyond 1e70, which are in
    no sum.

    `fourth` is the sum of the fourth powers of errors, for the interval of the root mean square; `pinball` are by quantile, of
    the `pinball_n` pairs in which it is known.
    """

    n: int = 0
    signed: float = 0.0
    absolute: float = 0.0
    squares: float = 0.0
    fourth: float = 0.0
    truths: float = 0.0
    truth_squares: float = 0.0
    pinball: dict[str, float] = {}
    pinball_squares: dict[str, float] = {}
    pinball_n: dict[str, int] = {}
    odd: int = 0

    @classmethod
    def of(
        cls, truth: Sequence[float], answer: Sequence[float], quantiles: Mapping[str, Sequence[float]] | None = None
    ) -> Errors:
        """The sums of some answers. `quantiles`: "0.9" -> what was answered as that quantile, the loss of which is pinball
        (Koenker and Bassett 1978).

        >>> Errors.of([1.0, 3.0], [2.0, 1.0]).absolute, Errors.of([4.0], [0.0], {"0.9": [2.0]}).pinball
        (3.0, {'0.9': 1.8})
        """
        pairs = [(y, x) for y, x in zip(truth, answer, strict=True) if abs(y) <= LIMIT and abs(x) <= LIMIT]
        misses = [x - y for y, x in pairs]
        losses: dict[str, list[float]] = {}
        for name, values in (quantiles or {}).items():
            q = float(name)
            known = [(y, v) for y, v in zip(truth, values, strict=True) if abs(y) <= LIMIT and abs(v) <= LIMIT]
            losses[name] = [max(q * (y - v), (q - 1) * (y - v)) for y, v in known]
        return cls(
            n=len(pairs),
            signed=sum(misses),
            absolute=sum(map(abs, misses)),
            squares=sum(e * e for e in misses),
            fourth=sum(e**4 for e in misses),
            truths=sum(y for y, _ in pairs),
            truth_squares=sum(y * y for y, _ in pairs),
            pinball={name: sum(each) for name, each in losses.items()},
            pinball_squares={name: sum(loss * loss for loss in each) for name, each in losses.items()},
            pinball_n={name: len(each) for name, each in losses.items()},
            odd=len(truth) - len(pairs),
        )


def measured_errors(errors: Errors) -> dict[str, Measure]:
    """Bias, mean absolute error, root mean square error (delta method), R squared (its interval from that of the square
    error) and pinball losses, with 95 % intervals. Nothing of nothing.

    >>> {name: round(found.value, 3) for name, found in measured_errors(Errors.of([1.0, 3.0], [2.0, 3.0])).items()}
    {'bias': 0.5, 'mae': 0.5, 'rmse': 0.707, 'r2': 0.5}
    """
    n = errors.n
    if n <= 0:
        return {}
    square = errors.squares / n
    spread = Z * sqrt(max(errors.fourth / n - square**2, 0.0) / n)
    found = {
        "bias": _mean(errors.signed, errors.squares, n),
        "mae": _mean(errors.absolute, errors.squares, n),
        "rmse": Measure(value=sqrt(square), low=sqrt(max(square - spread, 0.0)), high=sqrt(square + spread)),
    }
    variance = errors.truth_squares / n - (errors.truths / n) ** 2
    if variance > 0:
        found["r2"] = Measure(
            value=1 - square / variance, low=1 - (square + spread) / variance, high=min(1 - (square - spread) / variance, 1.0)
        )
    for name, total in errors.pinball.items():
        if known := errors.pinball_n[name]:
            found[f"pinball_{name}"] = _mean(total, errors.pinball_squares[name], known)
    return found


def _mean(total: float, squares: float, n: int) -> Measure:
    mean = total / n
    half = Z * sqrt(max(squares / n - mean**2, 0.0) / n)
    return Measure(value=mean, low=mean - half, high=mean + half)
