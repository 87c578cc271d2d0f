"""Aggregates kept up while the events of one entity come by: a value after every event, in time that does not grow with it. Pure.

`replay` says what an aggregate means and looks at all events again for each value. Here what comes is put in and what leaves the
window is taken out, exactly: numbers are added up as integers of 2^-1074, so that taking out leaves nothing behind and every sum
is rounded once; extremes and quantiles come from sorted lists, without sketches. The tests compare each kind with `replay`.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from typing import Final

from ..aggregate import Aggregate, hop_of
from ..windows.sketch import COMMON_LEAST, DISTINCT_EXACT, QUANTILE_EXACT, REGISTERS

__all__ = ["ESTIMATE", "NEAR", "OFF", "SAME", "TOLERANCE", "Running", "close", "running"]

OFF, SAME, NEAR, ESTIMATE = 0, 1, 2, 3
"""What a served value is beside the exact one. NEAR: as exact as the great numbers are that were added up and cancel."""
TOLERANCE: Final = 1e-9
"""Relative to the value, or to the numbers that went into it: float64 sums of up to a million of them, in another order."""
RANK_ERROR: Final = 0.03
"""Of quantiles of many values, as the tests of the sketch bound it."""
_ADDED: Final = ("sum", "mean", "var", "std", "decayed_count", "decayed_sum", "decayed_mean", "ratio")
_BITS: Final = 1074
"""Every float64 is an integer of 2^-1074."""
_ONE: Final = 1 << _BITS
_ROOM: Final = 1024
"""Places of what has left a window that are kept before the list is cut: then cutting costs less than putting in."""


def close(said: float, meant: float, scale: float = 0.0, tolerance: float = TOLERANCE) -> bool:
    """Whether two numbers are the same, up to `tolerance` of the greater of them or of `scale`; missing is missing."""
    if not (math.isfinite(said) and math.isfinite(meant)):
        return said == meant or (math.isnan(said) and math.isnan(meant))
    return said == meant or abs(said - meant) <= tolerance * max(abs(said), abs(meant), min(scale, sys.float_info.max))


def running(part: Aggregate, ttl: int | None = None) -> Running:
    """An aggregate to which nothing has happened yet. With a `ttl` (microseconds) it is as if nothing had ever come when the
    newest that it has values of is older."""
    return _KINDS.get(part.kind, Running)(part, ttl)


class Running:
    """One aggregate of one entity: by itself those that are told from the newest and the oldest values inside; subclasses keep
    more of the values (`come`, `leave`)."""

    def __init__(self, part: Aggregate, ttl: int | None) -> None:
        self.part, self.ttl, self.hop = part, ttl, hop_of(part.over)
        self.inside: list[tuple[int, int, float]] = []
        """(time, turn, value) in this order, of values that may be in the window; those before `gone` have left it."""
        self.gone = self.turn = 0
        self.newest: int | None = None
        """Of all that has come, inside or not."""
        self.fed: tuple[Running, ...] = (self,)
        """What values are put into."""

    def add(self, time: int, value: float) -> None:
        """A value of an event at `time`."""
        self.turn += 1
        self.newest = time if self.newest is None else max(self.newest, time)
        insort(self.inside, (time, self.turn, value), lo=self.gone)
        self.come(value, time)

    def at(self, effective: int) -> float:
        """The value when windows end at `effective`, microseconds, which never goes back."""
        if self.part.over:
            start = (effective - self.part.over) // self.hop * self.hop
            while self.gone < len(self.inside) and self.inside[self.gone][0] < start:
                self.leave(self.inside[self.gone][2])
                self.gone += 1
            if self.gone > max(_ROOM, len(self.inside) // 2):
                del self.inside[: self.gone]
                self.gone = 0
        if self.expired(effective):
            return 0.0 if self.part.kind in ("count", "sum", "distinct", "decayed_count", "decayed_sum") else math.nan
        return self.value(effective)

    def expired(self, effective: int) -> bool:
        """Whether it has forgotten what came."""
        return self.ttl is not None and self.newest is not None and self.newest < effective - self.ttl

    def beside(self, said: float, meant: float) -> int:
        """What a served value is beside `meant`, the exact one that `at` gave last."""
        # texts are 52-bit numbers, of which TOLERANCE would take many for one
        added = self.part.kind in _ADDED
        if close(said, meant, 0.0, TOLERANCE if added else 0.0):
            return SAME
        if added:
            return NEAR if close(said, meant, self.slack()) else OFF
        return ESTIMATE if self.estimates(said, meant) else OFF

    def __len__(self) -> int:
        """How many values are inside."""
        return len(self.inside) - self.gone

    def value(self, effective: int) -> float:
        """Of what is inside."""
        count, kind = len(self), self.part.kind
        if kind == "count":
            return float(count)
        if kind == "last_k":
            place = int(self.part.argument)
            return self.inside[-1 - place][2] if place < count else math.nan
        if not count:
            return math.nan
        if kind == "first":
            return self.inside[self.gone][2]
        if kind == "last":
            return self.inside[-1][2]
        if kind == "since_last":
            return (effective - self.inside[-1][0]) / 1e6
        raise AssertionError(kind)

    def come(self, value: float, time: int) -> None:
        """A value comes in."""

    def leave(self, value: float) -> None:
        """A value leaves the window."""

    def scale(self) -> float:
        """How great the numbers are that were added up."""
        return 0.0

    def slack(self) -> float:
        """What TOLERANCE is relative to: a sum of great numbers that cancel is as exact as they are."""
        return self.scale()

    def estimates(self, said: float, meant: float) -> bool:
        """Whether `said` can be the estimate of `meant`."""
        return False


class _Sums(Running):
    """Sum, mean, variance and deviation, each rounded once."""

    total = sizes = squares = 0
    """In units of 2^-1074; squares of 2^-2148."""

    def come(self, value: float, time: int, sign: int = 1) -> None:
        over, under = value.as_integer_ratio()
        exact = over << (_BITS + 1 - under.bit_length())
        self.total += sign * exact
        self.sizes += sign * abs(exact)
        if self.part.kind in ("var", "std"):
            self.squares += sign * exact * exact

    def leave(self, value: float) -> None:
        self.come(value, 0, -1)

    def value(self, effective: int) -> float:
        count = len(self)
        if self.part.kind == "sum":
            return _quotient(self.total, _ONE)
        if not count:
            return math.nan
        if self.part.kind == "mean":
            return _quotient(self.total, count * _ONE)
        found = _quotient(count * self.squares - self.total * self.total, count * count << 2 * _BITS)
        return found if self.part.kind == "var" else math.sqrt(found)

    def scale(self) -> float:
        if self.part.kind == "sum":
            return _quotient(self.sizes, _ONE)
        if self.part.kind == "mean":
            return _quotient(self.sizes, max(len(self), 1) * _ONE)
        return math.sqrt(_quotient(self.squares, max(len(self), 1) << 2 * _BITS))

    def slack(self) -> float:
        """A variance is as exact as the deviation times the numbers themselves (Chan, Golub, LeVeque 1983)."""
        root = self.scale()
        if self.part.kind != "var":
            return root
        return root * max(math.sqrt(self.value(0)) if len(self) else 0.0, TOLERANCE * root)


class _Sorted(Running):
    """Least, greatest and quantiles."""

    def __init__(self, part: Aggregate, ttl: int | None) -> None:
        super().__init__(part, ttl)
        self.values: list[float] = []

    def come(self, value: float, time: int) -> None:
        insort(self.values, value)

    def leave(self, value: float) -> None:
        del self.values[bisect_left(self.values, value)]

    def value(self, effective: int) -> float:
        if not self.values:
            return math.nan
        if self.part.kind == "quantile":
            return self.values[max(math.ceil(self.part.argument * len(self.values)), 1) - 1]
        return self.values[0 if self.part.kind == "min" else -1]

    def estimates(self, said: float, meant: float) -> bool:
        """The share of the values below it may be off by what the sketch promises."""
        count = len(self.values)
        if self.part.kind != "quantile" or count <= QUANTILE_EXACT:
            return False
        below, within = bisect_left(self.values, said) / count, bisect_right(self.values, said) / count
        return below - RANK_ERROR <= self.part.argument <= within + RANK_ERROR


class _Counts(Running):
    """How many there are of each value: distinct and most common ones."""

    def __init__(self, part: Aggregate, ttl: int | None) -> None:
        super().__init__(part, ttl)
        self.counts: Counter[float] = Counter()
        self.common: list[tuple[int, float]] = []
        """(-count, value) in this order; of `top` only."""

    def come(self, value: float, time: int, by: int = 1) -> None:
        before = self.counts[value]
        self.counts[value] = before + by
        if self.part.kind == "top":
            if before:
                del self.common[bisect_left(self.common, (-before, value))]
            if before + by:
                insort(self.common, (-before - by, value))
        if not before + by:
            del self.counts[value]

    def leave(self, value: float) -> None:
        self.come(value, 0, -1)

    def value(self, effective: int) -> float:
        if self.part.kind == "distinct":
            return float(len(self.counts))
        place = int(self.part.argument)
        return self.common[place][1] if place < len(self.common) else math.nan

    def estimates(self, said: float, meant: float) -> bool:
        """Five standard errors of HyperLogLog with 1,024 registers: one value in two million is farther off. Of counts with m
        counters: too small by n / (m + 1) at most (Misra, Gries 1982)."""
        if self.part.kind == "distinct":
            return meant > DISTINCT_EXACT and abs(said - meant) <= 5 * 1.04 / math.sqrt(REGISTERS) * meant
        counters = max(COMMON_LEAST, 4 * self.part.length)
        apart = abs(self.counts.get(said, 0) - self.counts.get(meant, 0))
        return len(self.counts) > counters and said in self.counts and apart <= len(self) / (counters + 1)


class _Decayed(Running):
    """What loses half of its weight in a half-life. Nothing leaves: it is for ever."""

    weight = total = sizes = 0.0
    """As of the newest value."""
    as_of: int | None = None

    def come(self, value: float, time: int) -> None:
        self.sizes = max(self.sizes, abs(value)) if self.part.kind == "decayed_mean" else self.sizes + abs(value)
        if self.as_of is None or time > self.as_of:
            older = 1.0 if self.as_of is None else self._kept(time - self.as_of)
            self.weight, self.total, self.as_of = self.weight * older, self.total * older, time
        kept = self._kept(self.as_of - time)
        self.weight += kept
        self.total += kept * value

    def value(self, effective: int) -> float:
        if self.part.kind == "decayed_mean":
            return self.total / self.weight if self.weight else math.nan
        found = self.weight if self.part.kind == "decayed_count" else self.total
        return found * (1.0 if self.as_of is None else self._kept(effective - self.as_of))

    def scale(self) -> float:
        return self.sizes

    def _kept(self, span: int) -> float:
        return float(2.0 ** (-span / self.part.argument))


class _Ratio(Running):
    """Of two aggregates."""

    def __init__(self, part: Aggregate, ttl: int | None) -> None:
        super().__init__(part, ttl)
        self.fed = self.over, self.under = running(part.of[0], ttl), running(part.of[1], ttl)
        self.divisor = 0.0

    def at(self, effective: int) -> float:
        found, self.divisor = self.over.at(effective), self.under.at(effective)
        return found / self.divisor if self.divisor else math.nan

    def expired(self, effective: int) -> bool:
        return self.over.expired(effective) or self.under.expired(effective)

    def scale(self) -> float:
        return self.over.scale() / abs(self.divisor or 1.0)


_KINDS: Final[dict[str, type[Running]]] = {
    **dict.fromkeys(("sum", "mean", "var", "std"), _Sums), **dict.fromkeys(("min", "max", "quantile"), _Sorted),
    **dict.fromkeys(("distinct", "top"), _Counts), **dict.fromkeys(("decayed_count", "decayed_sum", "decayed_mean"), _Decayed),
    "ratio": _Ratio,
}  # fmt: skip


def _quotient(over: int, under: int) -> float:
    """Rounded once; infinite where no float64 is as great."""
    try:
        return over / under
    except OverflowError:
        return math.copysign(math.inf, over)
