"""Inputs: what is counted of what answers were given to, and of the answers themselves."""

from __future__ import annotations

import msgspec

__all__ = [
    "Contributed",
    "Latency",
    "LevelCounts",
    "LevelStatistic",
    "Moments",
    "Oddity",
    "Population",
    "Shift",
    "Summed",
    "Unseen",
]


class Contributed(msgspec.Struct, frozen=True, kw_only=True):
    """What moved a sample of a version's answers: contributions by input, on the scale of its explainer (which the run
    says); of a model that names one of several classes, to the class that each answer named. Sums add across partitions and
    windows; absolute / n is the mean size of a contribution."""

    n: int = 0
    absolute: dict[str, float] = {}
    signed: dict[str, float] = {}


class Summed(msgspec.Struct, frozen=True, kw_only=True):
    """Finite values of one input, added up: in whole steps of `unit` from `centre`, so that sums add exactly over partitions. A
    value more than 65,536 steps away counts as so many."""

    n: int
    steps: int
    squares: int
    least: float | None
    greatest: float | None
    centre: float
    unit: float


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """The finite values of one input. Mean and variance are of values rounded to 1/256 of the reference's standard deviation, and
    held 256 of these from its median at most; they are the same over any partitions. Windows join as Chan, Golub and LeVeque
    (1979) say."""

    n: int
    mean: float
    variance: float | None
    """Unbiased; null of one value."""
    least: float
    greatest: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers of one variant took, in seconds: quantiles to 9 %, from counts that add."""

    n: int
    p50: float
    p90: float
    p99: float
    counts: dict[int, int]
    """Answers by eighths of doublings of a microsecond: those of bin b took at most 2**(b / 8) microseconds."""


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """How far the shares of the levels of a segment have moved: of `n` answers, against `m` before them."""

    stability: float
    """Population stability index."""
    chance: float
    """What chance alone exceeds once in twenty times."""
    n: int
    m: int


class Oddity(msgspec.Struct, frozen=True, kw_only=True):
    """One of the most novel answers, or of those outside the range of the reference: an example."""

    id: str
    level: int
    """Answers like the reference reach it once in 2**level."""
    bits: int
    inputs: dict[str, list[float | int | None]]
    """What is new about it: input -> value (null: missing or infinite) and its part of the bits, the most first."""


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """How new the inputs of answers were to the version that gave them (see statistics/novelty.py). Counts add."""

    answers: int = 0
    levels: list[int] = []
    """By level; an answer is novel from level 7 on."""
    expected: list[int] = []
    """Rows that the version was fitted on, by level."""
    outside: dict[str, list[int]] = {}
    """Input -> answers with a value below all rows, above all rows, and without one where no row lacked it."""
    oddest: list[Oddity] = []
    inputs: int = 0
    """How many inputs there are."""


class Shift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one input has moved from its reference."""

    ks: float
    """Greatest distance between the distribution functions (0 to 1), missing values as a bin of their own."""
    psi: float
    critical: float
    """The distance that chance and the input's own custom exceed as often as the false-alarm budget allows."""
    n: int
    floor: float | None = None
    """The distance below which the shift is not material: the monitor's, more for inputs that have less than an equal share of
    the influence on the answers. An input alarms when `ks` is above both `critical` and this; absent in records older than it."""
    p: float | None = None
    """How rarely chance and the input's own custom give a distance as great; absent in records older than the field."""
    spread: float = 0.0
    """The part of `ks` that is the input's own custom, as a standard deviation (see statistics/shift.py)."""


class LevelCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One shard's counts of the answers of one version to one level of a segment; the fields are as in Partial."""

    inputs: dict[str, list[int]] = {}
    expected: dict[str, list[int]] = {}
    hours: dict[int, list[int]] = {}
    summed: dict[str, Summed] = {}
    customs: dict[int, dict[str, float]] = {}


class LevelStatistic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked and answered of one level of a segment in a closed window, merged over all shards."""

    drift: dict[str, Shift] = {}
    """By input (`score`: the answers), against what it was within this level, of the version that gave most answers."""
    moments: dict[str, dict[str, Moments]] = {}
    """As in Statistic: by version that answered, and input."""
    latency: dict[str, Latency] = {}
    """By variant."""
    missing: dict[str, str] = {}
    """Inputs that `drift` does not have, and why not."""
