"""Agreement of reviewers beyond that of chance, on answers that were given to two of them. Pure.

    two reviewers in all    Cohen's kappa (1960); variance of Fleiss, Cohen and Everitt (1969)
    more                    Fleiss' kappa (1971), for which it does not matter who judged what; variance by the jackknife over
                            answers (Fleiss and Davies 1982)

These variances see no spread in a few answers on which all agree, so the interval is that or the one that follows from Wilson's
(1927) of the observed agreement with chance held fixed, whichever end is wider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import Final

import msgspec

__all__ = ["Agreement", "Pair", "agreement"]

Z: Final = 1.959963984540054

Pair = tuple[tuple[str, bool], tuple[str, bool]]
"""What the two reviewers of an answer said, in the order in which they did."""


class Agreement(msgspec.Struct, frozen=True):
    """How far reviewers agree. `low` and `high` are a 95 % interval; what says nothing is None, and `missing` says why."""

    answers: int
    reviewers: int
    method: str = ""
    observed: float | None = None
    """Share of the answers on which both said the same."""
    chance: float | None = None
    """The share on which they would if each said yes as often as they did, and at random."""
    kappa: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """The agreement of pairs of reviewers.

    >>> both = [(("ada", True), ("bob", True))] * 20 + [(("bob", False), ("ada", False))] * 15
    >>> split = [(("ada", True), ("bob", False))] * 5 + [(("bob", True), ("ada", False))] * 10
    >>> found = agreement([*both, *split])
    >>> found.method, found.observed, round(found.kappa, 2), round(found.low, 2), round(found.high, 2)
    ('Cohen 1960', 0.7, 0.4, 0.12, 0.65)
    """
    names = sorted({name for pair in pairs for name, _ in pair})
    n = len(pairs)
    if not n:
        return Agreement(0, 0, missing="no answer was decided by two reviewers yet")
    observed = sum(a == b for (_, a), (_, b) in pairs) / n
    if len(names) == 2:
        method, (chance, error) = "Cohen 1960", _cohen(pairs, names[0])
    else:
        method, (chance, error) = "Fleiss 1971", _fleiss(pairs)
    if chance == 1.0:
        return Agreement(n, len(names), method, observed, missing="all said the same of all: there is no chance to compare with")
    kappa = _beyond(observed, chance)
    low, high = (_beyond(end, chance) for end in _wilson(observed, n))
    return Agreement(
        n, len(names), method, observed, chance, kappa,
        max(min(low, kappa - Z * error), -1.0), min(max(high, kappa + Z * error), 1.0),
    )  # fmt: skip


def _beyond(observed: float, chance: float) -> float:
    return (observed - chance) / (1.0 - chance)


def _wilson(share: float, n: int) -> tuple[float, float]:
    middle, spread = share + Z * Z / (2 * n), Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (middle - spread) / (1 + Z * Z / n), (middle + spread) / (1 + Z * Z / n)


def _cohen(pairs: Sequence[Pair], first: str) -> tuple[float, float]:
    """Agreement by chance, and the standard error of kappa, of two reviewers."""
    n = len(pairs)
    said = Counter((a, b) if name == first else (b, a) for (name, a), (_, b) in pairs)
    p = {(i, j): said[i, j] / n for i in (True, False) for j in (True, False)}
    rows = {i: p[i, True] + p[i, False] for i in (True, False)}
    columns = {j: p[True, j] + p[False, j] for j in (True, False)}
    chance = sum(rows[i] * columns[i] for i in rows)
    if chance == 1.0:
        return chance, 0.0
    kappa = _beyond(p[True, True] + p[False, False], chance)
    same = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in rows)
    other = (1 - kappa) ** 2 * sum(p[i, not i] * (columns[i] + rows[not i]) ** 2 for i in rows)
    variance = (same + other - (kappa - chance * (1 - kappa)) ** 2) / ((1 - chance) ** 2 * n)
    return chance, sqrt(max(variance, 0.0))


def _fleiss(pairs: Sequence[Pair]) -> tuple[float, float]:
    """As `_cohen`, of any number of reviewers. An answer has 0, 1 or 2 yes, so that leaving one out has three results."""
    n, counts = len(pairs), Counter(a + b for (_, a), (_, b) in pairs)
    chance = _by_chance(counts, n)
    left_out = {}
    for kind in counts if n > 1 else ():
        rest = counts - Counter([kind])
        by_chance = _by_chance(rest, n - 1)
        left_out[kind] = 1.0 if by_chance == 1.0 else _beyond((rest[0] + rest[2]) / (n - 1), by_chance)
    mean = sum(counts[kind] * kappa for kind, kappa in left_out.items()) / n
    return chance, sqrt((n - 1) / n * sum(counts[kind] * (kappa - mean) ** 2 for kind, kappa in left_out.items()))


def _by_chance(counts: Counter[int], n: int) -> float:
    yes = (counts[1] + 2 * counts[2]) / (2 * n)
    return yes * yes + (1 - yes) * (1 - yes)
