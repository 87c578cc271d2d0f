"""Moving: how far the inputs of a version have moved from its reference over its newest periods, and the limits that they are
held against. Pure; see penstock.statistics.shift for what the measures are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.policy import ANSWERS, SCORE, Drift
from penstock.records import Contributed, LevelCounts, Partial, Shift
from penstock.statistics.quality import added
from penstock.statistics.shift import (
    CAPPED,
    SPANS,
    chance,
    critical_of,
    distances,
    either,
    limit,
    located,
    raised_by,
    spread_of,
    stability,
)

from ..counting.apart import joined
from .debut import material, measured

__all__ = ["Counts", "Floats", "Inputs", "Judged", "Seen", "answers", "comparable", "counts_of", "influences", "sampling"]

LEAST_SHARE = 0.25
"""An input that hardly moves the answers has four times the material floor, no more: contributions are of what was seen so
far."""

Floats = npt.NDArray[np.float64]


class Counts(msgspec.Struct):
    """One version's share of a window or period: counts per bin by input, what is expected, and of which hours (see Partial)."""

    inputs: dict[str, list[int]] = {}
    expected: dict[str, list[int]] = {}
    hours: dict[int, list[int]] = {}
    baseline: dict[str, list[int]] = {}
    spread: dict[str, float] = {}
    contributed: Contributed = Contributed()
    customs: dict[int, dict[str, float]] = {}
    levels: dict[str, dict[str, Counts]] = {}
    """The same by segment and level."""

    def add(self, other: Counts | Partial | LevelCounts) -> None:
        self.inputs = added(self.inputs, other.inputs)
        self.expected = added(self.expected, other.expected)
        known = self.hours
        self.hours = dict(sorted({**known, **{h: [n + known.get(h, [0, 0])[0], m] for h, (n, m) in other.hours.items()}}.items()))
        self.customs = other.customs or self.customs
        if isinstance(other, LevelCounts):
            return
        self.baseline, self.spread = other.baseline or self.baseline, other.spread or self.spread
        if other.levels:
            self.levels = joined(
                self.levels, {s: {k: counts_of(v) for k, v in of.items()} for s, of in other.levels.items()}, both
            )
        if isinstance(other, Counts):
            self.contributed = added(self.contributed, other.contributed)

    @property
    def reference(self) -> dict[str, list[int]]:
        """How the answers are expected to fall; not how many."""
        return {**self.baseline, **self.expected}

    @property
    def answers(self) -> int:
        """How many were counted: each input counts every one, missing values included."""
        return answers(self.inputs)


def answers(inputs: Mapping[str, list[int]]) -> int:
    return max((sum(counts) for counts in inputs.values()), default=0)


def counts_of(other: Counts | LevelCounts) -> Counts:
    """A copy."""
    found = Counts()
    found.add(other)
    return found


def both(a: Counts, b: Counts) -> Counts:
    """Two shares of one version as one."""
    found = counts_of(a)
    found.add(b)
    return found


class Judged(NamedTuple):
    """Inputs over the newest `periods`; arrays are (inputs,)."""

    periods: int
    distance: Floats
    psi: Floats
    noise: Floats
    raised: Floats
    n: Floats
    p: Floats
    critical: Floats
    excess: Floats
    """The distance as a multiple of the greater of its two limits; 0 where no custom of so short a span is known."""
    spread: Floats


class Seen(NamedTuple):
    """What is measured over the newest `periods`, before it is judged; arrays are (inputs,). `known`: whether a custom is."""

    periods: int
    distance: Floats
    psi: Floats
    noise: Floats
    raised: Floats
    n: Floats
    z: Floats
    p: Floats
    spread: Floats
    known: npt.NDArray[np.bool_]


class Inputs:
    """The inputs of one version over the newest periods (`spans`), the last of them newest; arrays are (periods, inputs, bins).
    `past`: the spreads that earlier spans of so many periods speak for."""

    def __init__(
        self,
        monitor: Drift,
        names: Sequence[str],
        spans: Sequence[Counts],
        contributed: Contributed,
        past: Callable[[int], Mapping[str, list[float]]],
    ) -> None:
        self.names, self._spans = names, spans
        self.now = _table(names, [span.inputs for span in spans])
        then = _table(names, [span.reference for span in spans])
        self.then = then * (self.now.sum(-1) / np.maximum(then.sum(-1), 1))[..., None]
        self._widths = np.array([len(spans[-1].inputs[name]) for name in names])
        self._every, self._past = monitor.every, past
        newest = spans[-1]
        self._customs = newest.customs or {monitor.every: newest.spread}  # records older than the field know of one length
        self.influence = influences(names, contributed)
        least = np.array([material(n, monitor.material, newest.reference[n]) for n in names])
        self.floor = np.minimum(least / self.influence, (1 + monitor.material) / 2)

    def spread(self, periods: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """By input, of the longest span up to this one of which a custom is known; and whether one is."""
        known = [length for length in self._customs if length <= periods * self._every]
        if self._customs and not known:
            return np.zeros(len(self.names)), np.zeros(len(self.names), np.bool_)
        of = self._customs[max(known)] if known else {}
        own = [self._past(span) for span in SPANS if span <= periods]
        found = np.array(
            [
                max(
                    of.get(n, 0.0),
                    next((s for p in reversed(own) if (s := spread_of(p.get(n, ())))), 0.0),
                )
                for n in self.names
            ]
        )
        return found, np.ones(len(found), np.bool_)

    def sampling(self, periods: int) -> Floats:
        """The part of the noise that the reference has."""
        return sampling(self._spans[-periods:], self.names)

    def seen(self, periods: int) -> Seen:
        """How far the inputs are from their reference, and how rarely chance and custom would have them there."""
        now, then = self.now[-periods:].sum(0), self.then[-periods:].sum(0)
        n, distance, raised = now.sum(-1), distances(now, then), raised_by(then)
        noise = 1 / np.maximum(n, 1) + self.sampling(periods)
        spread, known = self.spread(periods)
        z = located(now, then, noise, spread)
        for name in {*ANSWERS} & {*self.names}:
            at = self.names.index(name)
            distance[at], noise[at], raised[at] = measured(name, now[at], then[at], noise[at])
            z[at] *= name == SCORE  # the others have no order
        p = either(chance(distance, noise, spread, raised), z)
        return Seen(periods, distance, stability(now, then, self._widths), noise, raised, n, z, p, spread, known)

    def judged(self, seen: Seen, level: float) -> Judged:
        """Held against its limits: what has the chance `level`, and what is material."""
        periods, distance = seen.periods, seen.distance
        capped = periods * self._every >= CAPPED
        critical = critical_of(level / 2, seen.noise, seen.spread, seen.raised, capped=capped)
        critical = limit(level, critical, distance, seen.z)
        excess = distance / np.maximum(critical, self.floor) * seen.known
        return Judged(periods, distance, seen.psi, seen.noise, seen.raised, seen.n, seen.p, critical, excess, seen.spread)

    def shift(self, judged: Judged, at: int) -> Shift:
        return Shift(
            ks=float(judged.distance[at]),
            psi=float(judged.psi[at]),
            critical=min(float(judged.critical[at]), 1.0),  # no distance is greater
            n=int(judged.n[at]),
            floor=float(self.floor[at]),
            p=float(judged.p[at]),
            spread=float(judged.spread[at]),
        )


def comparable(now: Sequence[int] | None, then: Sequence[int] | None) -> bool:
    return now is not None and then is not None and len(now) == len(then) and sum(now) > 0 and sum(then) > 0


def _table(names: Sequence[str], columns: Sequence[Mapping[str, Sequence[int]]]) -> Floats:
    """(periods, inputs, bins), with empty bins behind those of inputs that have fewer."""
    width = max(len(columns[-1][name]) for name in names)
    padding = [0] * width
    return np.array([[[*column.get(name, ()), *padding][:width] for name in names] for column in columns], np.float64)


def sampling(spans: Sequence[Counts], names: Sequence[str]) -> Floats:
    """The part of the noise that the reference has, by input: the sum of w^2 / m over parts of the week, else 1 / m."""
    parts: dict[int, list[int]] = {}
    for span in spans:
        for part, (n, m) in span.hours.items():
            parts[part] = [parts.get(part, [0])[0] + n, m]
    whole = sum(n for n, _ in parts.values())
    hours = sum((n / whole) ** 2 / max(m, 1) for n, m in parts.values()) if whole else 0.0
    newest = spans[-1]
    return np.array([hours if n in newest.expected else 1 / max(sum(newest.baseline.get(n, ())), 1) for n in names])


def influences(names: Sequence[str], contributed: Contributed) -> Floats:
    """The share that each input has in what moves the answers, against an equal one; between LEAST_SHARE and 1; 1 of ANSWERS."""
    whole = sum(contributed.absolute.values())
    if whole <= 0:
        return np.ones(len(names))
    shares = np.array([contributed.absolute.get(name, 0.0) for name in names]) * len(contributed.absolute) / whole
    return np.where([name in ANSWERS for name in names], 1.0, np.clip(shares, LEAST_SHARE, 1.0))
