"""Errors of answers that are numbers: exact sums that add over partitions and windows, and the measures that follow from them.

    bias, mae                mean error and mean size of an error; normal intervals
    rmse                     root of the mean square; delta method, from the fourth powers
    r2                       1 - mean square error / variance of the truths; delta method, as if the two varied apart (where large
                             truths have large errors it is wider than it need be)
    pinball                  mean loss of a quantile (Koenker and Bassett 1978)
    coverage                 share of the truths that are at most the quantile answered: near it where it is right; Wilson 1927

Baselines answer every event alike. Of these bias, rmse and r2 are exact; mae, pinball and the spread of squares come from the
truths counted by size in steps of 1 %, which is exact to half of that.
"""

from __future__ import annotations

from fractions import Fraction
from math import exp, hypot, log, sqrt

from ..records import Errors, Measure
from .binary import wilson
from .exact import add, total, valued, whole

__all__ = [
    "alike", "coverage", "erred", "mean_of", "measured_errors", "missed", "pinball", "quantile_of", "size_of", "spread",
    "step_of",
]  # fmt: skip

Z = 1.959963984540054
STEP = log(1.01)
ZERO = 1 << 15
"""Added to the step of a size, so that the sign of a number is that of its place."""


def pinball(truth: float, answer: float, quantile: float) -> float:
    """The loss of an answer as the quantile of a truth.

    >>> pinball(4.0, 2.0, 0.9), round(pinball(2.0, 4.0, 0.9), 9)
    (1.8, 0.2)
    """
    return max(quantile * (truth - answer), (quantile - 1.0) * (truth - answer))


def size_of(number: float) -> int:
    """The place of a number among steps of 1 %; in order of numbers, 0 for 0.

    >>> size_of(-3.0) < size_of(-1e-9) < size_of(0.0) < size_of(2.99) < size_of(3.02)
    True
    """
    if abs(number) < 1e-100:
        return 0
    place = round(log(abs(number)) / STEP) + ZERO
    return place if number > 0 else -place


def step_of(number: float) -> int:
    """The place of a number among steps of 5 %; in order of numbers.

    >>> step_of(-20.0) < step_of(0.0) < step_of(100.0) == step_of(101.0) < step_of(106.0)
    True
    """
    return size_of(number) // 5


def _size(place: int) -> float:
    return exp((abs(place) - ZERO) * STEP) * (1 if place > 0 else -1) if place else 0.0


def erred(errors: Errors, answer: float, truth: float, quantile: float | None, sign: int = 1) -> float:
    """Add an answer and its truth to the sums, in place; returns the loss. `sign` -1 takes them out. Both are numbers of at most
    1e70.

    >>> sums = Errors()
    >>> erred(sums, 2.0, 1.0, None), erred(sums, 1.0, 3.0, None), valued(sums.absolute)
    (1.0, 4.0, 3.0)
    """
    add(errors.truths, truth, sign)
    add(errors.truth_squares, truth * truth, sign)
    place = size_of(truth)
    errors.sizes[place] = errors.sizes.get(place, 0) + sign
    return missed(errors, answer, truth, quantile, sign)


def missed(errors: Errors, answer: float, truth: float, quantile: float | None, sign: int = 1) -> float:
    """The same without the truths, of which baselines and `r2` are made: what is left has one size."""
    error = answer - truth
    square = error * error
    add(errors.signed, error, sign)
    add(errors.absolute, abs(error), sign)
    add(errors.squares, square, sign)
    add(errors.fourth, square * square, sign)
    if quantile is None:
        return square
    loss = pinball(truth, answer, quantile)
    side = int(truth <= answer)
    errors.covered[side] = errors.covered.get(side, 0) + sign
    add(errors.pinball, loss, sign)
    add(errors.pinball_squares, loss * loss, sign)
    return loss


def spread(errors: Errors, answer: float, truth: float, loss: float, sign: int = 1) -> None:
    """Add an error and its loss by the size of the answer, in place."""
    step = step_of(answer)
    errors.answers[step] = errors.answers.get(step, 0) + sign
    add(errors.missed.setdefault(step, {}), abs(answer - truth), sign)
    add(errors.lost.setdefault(step, {}), loss, sign)


def mean_of(errors: Errors, n: int) -> float:
    """Of the truths."""
    return float(whole(errors.truths) / n)


def quantile_of(errors: Errors, quantile: float) -> float:
    """Of the truths, to half a per cent of its size."""
    wanted, below = quantile * sum(errors.sizes.values()), 0
    for place in sorted(errors.sizes):
        below += errors.sizes[place]
        if below >= wanted:
            return _size(place)
    return 0.0


def alike(errors: Errors, n: int, answer: float, quantile: float | None) -> Errors:
    """The sums that giving always the same answer would have had on the same truths: a baseline."""
    said, truths = Fraction(answer), whole(errors.truths)
    squares = max(whole(errors.truth_squares) - 2 * said * truths + n * said * said, Fraction(0))
    misses = [(answer - _size(place), count) for place, count in errors.sizes.items()]
    losses = [(pinball(_size(place), answer, quantile), count) for place, count in errors.sizes.items()] if quantile else []
    return Errors(
        signed=total([float(n * said - truths)]),
        absolute=total([sum(abs(miss) * count for miss, count in misses)]),
        squares=total([float(squares)]),
        fourth=total([sum(miss**4 * count for miss, count in misses)]),
        truths=errors.truths,
        truth_squares=errors.truth_squares,
        pinball=total([sum(loss * count for loss, count in losses)]),
        pinball_squares=total([sum(loss * loss * count for loss, count in losses)]),
        sizes=errors.sizes,
        covered=_covered(errors, answer) if quantile else {},
    )


def _covered(errors: Errors, answer: float) -> dict[int, int]:
    """Truths up to an answer, to half a per cent of their size."""
    up_to = sum(count for place, count in errors.sizes.items() if place <= size_of(answer))
    return {0: sum(errors.sizes.values()) - up_to, 1: up_to}


def coverage(errors: Errors) -> Measure | None:
    """The share of truths that are at most the quantile answered, with its 95 % interval; None where none were counted.

    >>> coverage(Errors(covered={0: 1, 1: 9})).value
    0.9
    """
    above, covered = errors.covered.get(0, 0), errors.covered.get(1, 0)
    return wilson(covered, above + covered) if min(above, covered) >= 0 else None


def measured_errors(errors: Errors, n: int, quantile: float | None = None) -> dict[str, Measure]:
    """The measures of `n` answers, each with its 95 % interval. Nothing of nothing, nor where corrections took back more than
    there is.

    >>> sums = Errors()
    >>> losses = [erred(sums, answer, truth, None) for answer, truth in ((2.0, 1.0), (3.0, 3.0))]
    >>> {name: round(found.value, 3) for name, found in measured_errors(sums, 2).items()}
    {'bias': 0.5, 'mae': 0.5, 'r2': 0.5, 'rmse': 0.707}
    """
    if n <= 0 or whole(errors.squares) < 0 or whole(errors.absolute) < 0:
        return {}
    squares, square = valued(errors.squares), float(whole(errors.squares) / n)
    spread = Z * sqrt(max(valued(errors.fourth) / n - square**2, 0.0) / n)
    found = {
        "bias": _mean(valued(errors.signed), squares, n),
        "mae": _mean(valued(errors.absolute), squares, n, 0.0),
        "rmse": Measure(value=sqrt(square), low=sqrt(max(square - spread, 0.0)), high=sqrt(square + spread)),
    }
    variance = float(whole(errors.truth_squares) / n - (whole(errors.truths) / n) ** 2)
    if variance > 0:
        mean = mean_of(errors, n)
        fourth = sum((_size(place) - mean) ** 4 * count for place, count in errors.sizes.items()) / n
        apart = Z * sqrt(max(fourth - variance**2, 0.0) / n) / variance
        half = hypot(spread, square * apart) / variance
        found["r2"] = Measure(
            value=1 - square / variance, low=1 - square / variance - half, high=min(1 - square / variance + half, 1.0)
        )
    if quantile is not None:
        found["pinball"] = _mean(valued(errors.pinball), valued(errors.pinball_squares), n, 0.0)
        if (share := coverage(errors)) is not None:
            found["coverage"] = share
    return dict(sorted(found.items()))


def _mean(total: float, squares: float, n: int, least: float = float("-inf")) -> Measure:
    mean = total / n
    half = Z * sqrt(max(squares / n - mean**2, 0.0) / n)
    return Measure(value=mean, low=max(mean - half, least), high=mean + half)
