"""Drifting: what a drift monitor makes of its periods. Pure; state goes in as values.

Two keys. An input has drifted when its distance from the reference is both significant (beyond chance and its own custom, within
the budget of false alarms over all inputs: see penstock.statistics.shift) and material (above the monitor's floor, higher for an
input that moves the answers less than its share). The newest 1, 2, 4, 8 and 16 periods are judged as one, so that a great shift
shows at once and a small one when it has lasted.

While the alarm stands, the span that raised it is judged alone and by RELAXED limits; when it is cleared, what lies before is
forgotten, so one cause raises one alarm. Inputs that join it within SAME_CAUSE periods belong to the cause; such as drift later,
in the newest period alone, are another, and raise the alarm anew.

Scores, labels and contributions are judged among the inputs, by the same keys, against the version's own first week (debut.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.policy import ANSWERS, CONTRIBUTIONS, LABEL, SCORE, Drift
from penstock.records import Contributed, Partial, Shift
from penstock.statistics.quality import added
from penstock.statistics.shift import (
    CAPPED,
    LEAST_VALUES,
    MOST_WINDOWS,
    SPANS,
    beyond,
    chance,
    critical_of,
    discovered,
    distances,
    either,
    level_of,
    limit,
    located,
    raised_by,
    spread_of,
    stability,
)

from .debut import Debut, contributions, material, measured, told
from .verdict import Verdict

__all__ = ["Counts", "Habits", "Period", "drift"]

MOST_EVIDENCE = 10
"""An alarm names this many inputs, those first that exceed their limits most."""
RELAXED = 0.8
"""An alarm stands while an input is above this share of its limits: what hovers about them does not come and go."""
SAME_CAUSE = 2
"""A storm is seen in the wind, a day later in the delays of the last 24 hours, and both are one cause."""
LEAST_SHARE = 0.25
"""An input that hardly moves the answers has four times the material floor, no more: contributions are of what was seen so
far."""

UNWEIGHTED = "not weighed: no answer is explained (see explain= of the model)"

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

    def add(self, other: Counts | Partial) -> None:
        self.inputs = added(self.inputs, other.inputs)
        self.expected = added(self.expected, other.expected)
        known = self.hours
        self.hours = dict(sorted({**known, **{h: [n + known.get(h, [0, 0])[0], m] for h, (n, m) in other.hours.items()}}.items()))
        self.baseline, self.spread = other.baseline or self.baseline, other.spread or self.spread
        self.customs = other.customs or self.customs
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


class Period(msgspec.Struct):
    """What has been counted since a monitor's period began, by version."""

    index: int = -1
    counts: dict[str, Counts] = {}
    labels: dict[str, list[int]] = {}
    """Outcomes that became known of what a version was asked: false, true."""

    def add(self, window: Mapping[str, Counts], labels: Mapping[str, list[int]] = MappingProxyType({})) -> None:
        for version, counts in window.items():
            self.counts.setdefault(version, Counts()).add(counts)
        self.labels = added(self.labels, dict(labels))

    @property
    def reference(self) -> str:
        """The version that gave most of the answers; the greater name of equals; "" when there is none."""
        return max(self.counts, key=lambda version: (self.counts[version].answers, version), default="")


class Habits(msgspec.Struct):
    """What a monitor remembers of one reference; another starts it anew."""

    reference: str = ""
    earlier: dict[str, list[float]] = {}
    """The spread that each earlier period would speak for, by input."""
    spans: list[Counts] = []
    """The newest periods, at most as many as the longest span; none from before an alarm was cleared."""
    span: int = 1
    """How many periods raised the alarm that stands."""
    named: list[str] = []
    """The inputs that have had a part in the alarm that stands."""
    age: int = 0
    """Periods since it was raised."""
    contributed: Contributed = Contributed()
    """What has moved the answers of the reference."""
    debuts: dict[str, Debut] = {}
    """Of ANSWERS."""
    longer: dict[int, dict[str, list[float]]] = {}
    """As `earlier`, of spans of so many periods."""
    seen: int = 0
    """Periods that this reference has been looked at."""

    def past(self, span: int) -> dict[str, list[float]]:
        """What is remembered of spans of so many periods."""
        return self.earlier if span == 1 else self.longer.setdefault(span, {})

    def forget(self) -> None:
        """An alarm was cleared."""
        self.spans, self.span, self.named, self.age = [], 1, [], 0


def answers(inputs: Mapping[str, list[int]]) -> int:
    return max((sum(counts) for counts in inputs.values()), default=0)


class _Judged(NamedTuple):
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

    @property
    def worst(self) -> float:
        return float(self.excess.max())


class _Inputs:
    """The inputs of one version over the newest periods, the last of them newest; arrays are (periods, inputs, bins)."""

    def __init__(self, monitor: Drift, names: Sequence[str], habits: Habits) -> None:
        self.names, self._spans = names, habits.spans
        self.level = level_of(monitor.false_alarms_per_month, monitor.every)
        self.now = _table(names, [span.inputs for span in habits.spans])
        then = _table(names, [span.reference for span in habits.spans])
        self.then = then * (self.now.sum(-1) / np.maximum(then.sum(-1), 1))[..., None]
        self._widths = np.array([len(habits.spans[-1].inputs[name]) for name in names])
        self._every, self._habits = monitor.every, habits
        newest = habits.spans[-1]
        self._customs = newest.customs or {monitor.every: newest.spread}  # records older than the field know of one length
        self.influence = _influence(names, habits.contributed)
        least = np.array([material(n, monitor.material, habits.spans[-1].reference[n]) for n in names])
        self.floor = np.minimum(least / self.influence, (1 + monitor.material) / 2)

    def spread(self, periods: int) -> Floats | None:
        """By input, of the longest span up to this one of which a custom is known; None where only longer ones are. Where the
        training rows were too few to know of any, chance and the floor decide alone, until it has a custom of its own."""
        known = [length for length in self._customs if length <= periods * self._every]
        if self._customs and not known:
            return None
        of = self._customs[max(known)] if known else {}
        own = [self._habits.past(span) for span in SPANS if span <= periods]
        return np.array(
            [
                max(
                    of.get(n, 0.0),
                    next((s for p in reversed(own) if (s := spread_of(p.get(n, ())))), 0.0),
                )
                for n in self.names
            ]
        )

    def over(self, periods: int) -> _Judged:
        now, then = self.now[-periods:].sum(0), self.then[-periods:].sum(0)
        n, distance, raised = now.sum(-1), distances(now, then), raised_by(then)
        noise = 1 / np.maximum(n, 1) + _sampling(self._spans[-periods:], self.names)
        known = self.spread(periods)
        spread = np.zeros(len(n)) if known is None else known
        z = located(now, then, noise, spread)
        for name in {*ANSWERS} & {*self.names}:
            at = self.names.index(name)
            distance[at], noise[at], raised[at] = measured(name, now[at], then[at], noise[at])
            z[at] *= name == SCORE  # the others have no order
        p = either(chance(distance, noise, spread, raised), z)
        level = discovered(p, self.level)[0]
        critical = critical_of(level / 2, noise, spread, raised, capped=periods * self._every >= CAPPED)
        critical = limit(level, critical, distance, z)
        excess = distance / np.maximum(critical, self.floor) * (known is not None)
        return _Judged(periods, distance, stability(now, then, self._widths), noise, raised, n, p, critical, excess, spread)

    def shift(self, judged: _Judged, at: int) -> Shift:
        return Shift(
            ks=float(judged.distance[at]),
            psi=float(judged.psi[at]),
            critical=min(float(judged.critical[at]), 1.0),  # no distance is greater
            n=int(judged.n[at]),
            floor=float(self.floor[at]),
            p=float(judged.p[at]),
            spread=float(judged.spread[at]),
        )

    def ranked(self, judged: _Judged, before: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Evidence: those first that exceed their limits most; `before` them what is news."""
        order = sorted(range(len(self.names)), key=lambda at: (self.names[at] not in before, -judged.excess[at], self.names[at]))
        return [
            {
                "input": self.names[at],
                "excess": float(judged.excess[at]),
                "influence": float(self.influence[at]),
                **msgspec.structs.asdict(self.shift(judged, at)),
            }
            for at in order[:MOST_EVIDENCE]
        ]


def drift(monitor: Drift, period: Period, habits: Habits, active: bool = False) -> tuple[Verdict, dict[str, Shift]]:
    """One period of a drift monitor, and how far each input moved in it. `active`: its alarm stands.

    A period without answers says nothing and changes nothing.
    """
    version = period.reference
    if version and version != habits.reference:
        habits.reference, habits.earlier, habits.longer = version, {}, {}
        habits.contributed, habits.debuts, habits.seen = Contributed(), {}, 0
        habits.forget()
    newest = period.counts.get(version, Counts())
    habits.contributed = added(habits.contributed, newest.contributed)
    answered = {SCORE: newest.inputs.get(SCORE, []), CONTRIBUTIONS: contributions(newest.contributed)}
    answered[LABEL] = period.labels.get(version, [])
    watched = {name: counts for name, counts in answered.items() if not monitor.inputs or name in monitor.inputs}
    debut = told(habits.debuts, watched, period.index, monitor.every)
    newest = msgspec.structs.replace(
        newest,
        inputs={**newest.inputs, **debut.now},
        baseline={**newest.baseline, **debut.then},
    )
    habits.earlier |= debut.earlier
    then = newest.reference
    names = sorted(n for n in (monitor.inputs or newest.inputs) if _comparable(newest.inputs.get(n), then.get(n)))
    if not names:
        return Verdict(None, {"reference": version, "tested": 0, "shifted": 0, "inputs": []}), {}
    habits.spans = [*habits.spans, msgspec.structs.replace(newest, contributed=Contributed())][-SPANS[-1] :]
    inputs = _Inputs(monitor, names, habits)
    alone = judged = inputs.over(1)
    if active:
        judged = inputs.over(min(habits.span, len(habits.spans)))
    else:
        spans = (inputs.over(k) for k in SPANS if k <= len(habits.spans))
        judged = next((span for span in spans if span.worst > 1), alone)
        habits.span = judged.periods
    limit = RELAXED if active else 1.0
    shifted = [name for name, excess in zip(names, judged.excess.tolist(), strict=True) if excess > limit]
    new = sorted({name for name, excess in zip(names, alone.excess.tolist(), strict=True) if excess > 1} - set(habits.named))
    again = active and habits.age > SAME_CAUSE and bool(habits.named and new)
    if again:
        judged, habits.span = alone, 1
        shifted = [name for name, excess in zip(names, alone.excess.tolist(), strict=True) if excess > 1]
    if shifted:
        habits.age = 0 if again or not active else habits.age + 1
        habits.named = sorted({*habits.named, *shifted, *new})
    else:
        habits.age += 1
    habits.seen += 1
    for span in SPANS:
        if habits.seen % span == 0 and span <= len(habits.spans):
            lasted, past = alone if span == 1 else inputs.over(span), habits.past(span)
            own = beyond(lasted.distance, lasted.noise, lasted.raised)
            for name, n, spread in zip(names, lasted.n.tolist(), own.tolist(), strict=True):
                if n >= LEAST_VALUES and not (shifted and name in habits.named):  # what an alarm stands for is not custom
                    past[name] = [*past.get(name, ()), round(spread, 6)][-MOST_WINDOWS:]
    evidence = {
        "reference": version,
        "tested": len(names),
        "shifted": len(shifted),
        "periods": judged.periods,
        "influence": f"of {habits.contributed.n} explained answers" if habits.contributed.n else UNWEIGHTED,
        "inputs": [{**each, "shifted": each["input"] in shifted} for each in inputs.ranked(judged, new if again else ())],
    }
    if debut.missing:
        evidence["not_judged"] = debut.missing
    return Verdict(bool(shifted), evidence, again), {name: inputs.shift(alone, at) for at, name in enumerate(names)}


def _comparable(now: Sequence[int] | None, then: Sequence[int] | None) -> bool:
    return now is not None and then is not None and len(now) == len(then) and sum(now) > 0 and sum(then) > 0


def _table(names: Sequence[str], columns: Sequence[Mapping[str, Sequence[int]]]) -> Floats:
    """(periods, inputs, bins), with empty bins behind those of inputs that have fewer."""
    width = max(len(columns[-1][name]) for name in names)
    padding = [0] * width
    return np.array([[[*column.get(name, ()), *padding][:width] for name in names] for column in columns], np.float64)


def _sampling(spans: Sequence[Counts], names: Sequence[str]) -> Floats:
    """The part of the noise that the reference has, by input: the sum of w^2 / m over parts of the week, else 1 / m."""
    parts: dict[int, list[int]] = {}
    for span in spans:
        for part, (n, m) in span.hours.items():
            parts[part] = [parts.get(part, [0])[0] + n, m]
    whole = sum(n for n, _ in parts.values())
    hours = sum((n / whole) ** 2 / max(m, 1) for n, m in parts.values()) if whole else 0.0
    newest = spans[-1]
    return np.array([hours if n in newest.expected else 1 / max(sum(newest.baseline.get(n, ())), 1) for n in names])


def _influence(names: Sequence[str], contributed: Contributed) -> Floats:
    """The share that each input has in what moves the answers, against an equal one; between LEAST_SHARE and 1; 1 of ANSWERS."""
    whole = sum(contributed.absolute.values())
    if whole <= 0:
        return np.ones(len(names))
    shares = np.array([contributed.absolute.get(name, 0.0) for name in names]) * len(contributed.absolute) / whole
    return np.where([name in ANSWERS for name in names], 1.0, np.clip(shares, LEAST_SHARE, 1.0))
