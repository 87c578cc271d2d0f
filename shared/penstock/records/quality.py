"""Quality: sums over outcomes, and the measures made of them."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["Classed", "Confusion", "Errors", "Estimate", "Group", "Measure", "Paired", "Quality"]


class Errors(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sums over answers that are numbers, and their truths. Each is exact: {place: number} means the sum of
    number x 2**(24 x place). An error is the answer minus the truth."""

    signed: dict[int, int] = {}
    absolute: dict[int, int] = {}
    squares: dict[int, int] = {}
    fourth: dict[int, int] = {}
    """Fourth powers, for the interval of the root mean square."""
    truths: dict[int, int] = {}
    truth_squares: dict[int, int] = {}
    pinball: dict[int, int] = {}
    """Of the quantile that the label declares; empty where it declares none."""
    pinball_squares: dict[int, int] = {}
    sizes: dict[int, int] = {}
    """Truths counted by size, in steps of 1 % (statistics/errors.py)."""
    covered: dict[int, int] = {}
    """Answers whose truth was at most the quantile that was answered (1), or above it (0); empty where the label declares none,
    and of answers counted before this field was."""
    answers: dict[int, int] = {}
    """Outcomes by the size of their answer, in steps of 5 %; what follows is by the same. Only in cohorts of partials: estimates
    learn from it (services/monitoring/quality/expecting.py)."""
    missed: dict[int, dict[int, int]] = {}
    """Sizes of errors."""
    lost: dict[int, dict[int, int]] = {}
    """Losses: squared errors, or the declared pinball loss."""


class Confusion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of answers that name one of several classes, in the order in which the label declares them."""

    cells: list[int] = []
    """Truth by truth: how often each class was the answer."""
    true: list[int] = []
    """Class by class: probabilities that were given to it where it was true, in 40 equal bins from 0 to 1."""
    false: list[int] = []
    """The same where it was not true."""
    loss_squares: float = 0.0
    losses: list[float] = []
    """Sum of log losses by the probability of the class that was named, as in Errors only in partials."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the outcomes of a window; they add across partitions and windows."""

    n: int = 0
    positives: int = 0
    """Outcomes that were true; of classes, answers that were right."""
    loss: float = 0.0
    """Sum of log losses (natural logarithm); of numbers, of squared errors or of the declared pinball loss."""
    squares: float = 0.0
    """Sum of squared errors (Brier); of classes, over all of them."""
    bins_true: list[int] = []
    """Scores of true outcomes in 200 equal bins from 0 to 1; the area under the curve comes from these. Of classes, the
    probabilities of answers that were right."""
    bins_false: list[int] = []
    errors: Errors | UnsetType = UNSET
    """Where the label is a number; else absent."""
    confusion: Confusion | UnsetType = UNSET
    """Where the label is one of several classes; else absent."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A measure with its 95 % interval."""

    value: float
    low: float
    high: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a measure was expected to be before the labels came, and what earlier estimates justify to say of it; how, and what it
    cannot see (concept drift, above all), says services/monitoring/quality/estimating.py."""

    value: float
    low: float | None = None
    """The interval that held 9 of 10 truths before; null while there are too few of them to know."""
    high: float | None = None
    error: float | None = None
    """By how much earlier estimates were wrong in the mean, newer ones counting more; null before the first truth."""
    compared: int = 0
    """Earlier estimates whose truth is known."""


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Differences in loss between two answers to the same events: sums that add across partitions and windows."""

    n: int = 0
    sum: float = 0.0
    squares: float = 0.0
    exact: dict[int, int] | UnsetType = UNSET
    """Where the label is a number: the sum, as in Errors; `sum` and `squares` follow from these when a window is closed."""
    exact_squares: dict[int, int] | UnsetType = UNSET


class Classed(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often one class was said to a group, and was true."""

    chosen: int = 0
    """Answers that named it."""
    true: int = 0
    """Outcomes of which it was the truth."""
    said: int = 0
    """Outcomes whose answer named it."""
    right: int = 0
    """Both."""


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sums over the answers of one level of a segment, of those that a version gave; they add across partitions and windows."""

    answers: int = 0
    selected: int = 0
    """Answers that said yes, at the threshold of the model (see `ps.value`; without, 0.5)."""
    scores: float = 0.0
    """Sum of the scores of the outcomes; of classes, of the probabilities of those that were named."""
    quality: Quality = Quality()
    """Of the outcomes, of what was served; of numbers without sums of truths, of classes without counts of pairs of them."""
    given: dict[int, int] = {}
    """Where the label is a number: the exact sum of the answers, as in Errors."""
    given_squares: dict[int, int] = {}
    classes: dict[str, Classed] = {}
    """Where the label is one of several classes, by class."""
