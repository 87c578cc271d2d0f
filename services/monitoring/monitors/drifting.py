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

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from penstock.policy import CONTRIBUTIONS, LABEL, SCORE, Drift
from penstock.records import Contributed, Shift
from penstock.segment import input_of
from penstock.statistics.quality import added
from penstock.statistics.shift import LEAST_VALUES, MOST_WINDOWS, SPANS, beyond, level_of

from .debut import Debut, contributions, told
from .moving import Counts, Inputs, Judged, comparable
from .verdict import Verdict
from .within import MOST_REMEMBERED, Cells, First, Look, Within, look, told_within

__all__ = ["Counts", "Habits", "Period", "drift"]

MOST_EVIDENCE = 10
"""An alarm names this many inputs, those first that exceed their limits most."""
RELAXED = 0.8
"""An alarm stands while an input is above this share of its limits: what hovers about them does not come and go."""
SAME_CAUSE = 2
"""A storm is seen in the wind, a day later in the delays of the last 24 hours, and both are one cause."""
UNWEIGHTED = "not weighed: no answer is explained (see explain= of the model)"


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
    firsts: dict[str, First] = {}
    """Of cells (see within.py) without a reference in training."""
    inside: dict[str, list[float]] = {}
    """As `earlier`, of cells."""

    def past(self, span: int) -> dict[str, list[float]]:
        """What is remembered of spans of so many periods."""
        return self.earlier if span == 1 else self.longer.setdefault(span, {})

    def news(self, name: str) -> bool:
        """Whether what has drifted has no part in the alarm that stands: neither it, nor its whole, nor a part of it."""
        return name not in self.named and input_of(name) not in self.named and name not in map(input_of, self.named)

    def forget(self) -> None:
        """An alarm was cleared."""
        self.spans, self.span, self.named, self.age = [], 1, [], 0


def drift(
    monitor: Drift, period: Period, habits: Habits, active: bool = False, within: Within | None = None
) -> tuple[Verdict, dict[str, Shift]]:
    """One period of a drift monitor, and how far each input moved in it. `active`: its alarm stands; `within` takes how far each
    moved within the levels of segments.

    A period without answers says nothing and changes nothing.
    """
    version = period.reference
    if version and version != habits.reference:
        habits.reference, habits.earlier, habits.longer = version, {}, {}
        habits.contributed, habits.debuts = Contributed(), {}
        habits.firsts, habits.inside, habits.seen = {}, {}, 0
        habits.forget()
    newest = period.counts.get(version, Counts())
    habits.contributed = added(habits.contributed, newest.contributed)
    answered = {SCORE: newest.inputs.get(SCORE, []), CONTRIBUTIONS: contributions(newest.contributed)}
    answered[LABEL] = period.labels.get(version, [])
    watched = {name: counts for name, counts in answered.items() if not monitor.inputs or name in monitor.inputs}
    debut = told(habits.debuts, watched, period.index, monitor.every)
    within = within or Within()
    levels, comparable_cells = told_within(newest, habits.firsts, monitor, period.index, within)
    newest = msgspec.structs.replace(
        newest,
        inputs={**newest.inputs, **debut.now},
        baseline={**newest.baseline, **debut.then},
        levels=levels,
    )
    habits.earlier |= debut.earlier
    then = newest.reference
    names = sorted(n for n in (monitor.inputs or newest.inputs) if comparable(newest.inputs.get(n), then.get(n)))
    if not names:
        return Verdict(None, {"reference": version, "tested": 0, "shifted": 0, "inputs": []}), {}
    habits.spans = [*habits.spans, msgspec.structs.replace(newest, contributed=Contributed())][-SPANS[-1] :]
    inputs = Inputs(monitor, names, habits.spans, habits.contributed, habits.past)
    cells = None
    if comparable_cells:
        customs = dict(zip(names, inputs.spread(1)[0].tolist(), strict=True))
        cells = Cells(monitor, comparable_cells, habits.spans, habits.contributed, habits.inside, customs)
    level = level_of(monitor.false_alarms_per_month, monitor.every)

    def over(periods: int) -> Look:
        return look(inputs, cells, periods, level, RELAXED)

    alone = judged = over(1)
    if active:
        judged = over(min(habits.span, len(habits.spans)))
    else:
        spans = (over(k) for k in SPANS if k <= len(habits.spans))
        judged = next((span for span in spans if span.worst > 1), alone)
        habits.span = judged.periods
    limit = RELAXED if active else 1.0
    shifted = [name for name, excess in judged.excess.items() if excess > limit]
    new = sorted(name for name, excess in alone.excess.items() if excess > 1 and habits.news(name))
    again = active and habits.age > SAME_CAUSE and bool(habits.named and new)
    if again:
        judged, habits.span = alone, 1
        shifted = [name for name, excess in alone.excess.items() if excess > 1]
    if shifted:
        habits.age = 0 if again or not active else habits.age + 1
        habits.named = sorted({*habits.named, *shifted, *new})
    else:
        habits.age += 1
    habits.seen += 1
    for span in SPANS:
        if habits.seen % span == 0 and span <= len(habits.spans):
            lasted, past = alone if span == 1 else over(span), habits.past(span)
            _remember(past, names, lasted.whole, habits.named if shifted else (), MOST_WINDOWS)
    if cells is not None and alone.cells is not None:
        named = {cell.name for cell in cells.cells if {cell.name, cell.input} & {*habits.named}} if shifted else ()
        _remember(habits.inside, cells.names, alone.cells, named, MOST_REMEMBERED)
        for at, cell in enumerate(cells.cells):
            within.shift(cell, cells.shift(alone.cells, at))
    evidence = {
        "reference": version,
        "tested": len(judged.excess),
        "shifted": len(shifted),
        "periods": judged.periods,
        "influence": f"of {habits.contributed.n} explained answers" if habits.contributed.n else UNWEIGHTED,
        "inputs": _ranked(inputs, cells, judged, shifted, new if again else ()),
    }
    if debut.missing:
        evidence["not_judged"] = debut.missing
    return Verdict(bool(shifted), evidence, again), {name: inputs.shift(alone.whole, at) for at, name in enumerate(names)}


def _remember(past: dict[str, list[float]], names: Sequence[str], judged: Judged, named: Collection[str], most: int) -> None:
    """Learn customs; what an alarm stands for (`named`) is none."""
    own = beyond(judged.distance, judged.noise, judged.raised)
    for name, n, spread in zip(names, judged.n.tolist(), own.tolist(), strict=True):
        if n >= LEAST_VALUES and name not in named:
            past[name] = [*past.get(name, ()), round(spread, 6)][-most:]


def _ranked(
    inputs: Inputs, cells: Cells | None, judged: Look, shifted: Collection[str], before: Collection[str]
) -> list[dict[str, Any]]:
    """Evidence: those first that exceed their limits most; `before` them what is news. Of cells those that have drifted."""
    order = [(name not in before, -excess, name) for name, excess in judged.excess.items()]
    whole, inside = {name: at for at, name in enumerate(inputs.names)}, {}
    if cells is not None:
        inside = {name: at for at, name in enumerate(cells.names) if name in shifted}
    found = []
    for *_, name in sorted(each for each in order if each[-1] in whole or each[-1] in inside):
        said: dict[str, Any] = {"input": name, "excess": judged.excess[name]}
        if name in whole:
            at = whole[name]
            said |= {"influence": float(inputs.influence[at]), **msgspec.structs.asdict(inputs.shift(judged.whole, at))}
        elif cells is not None and judged.cells is not None:
            at = inside[name]
            said |= {"influence": float(cells.influence[at]), **msgspec.structs.asdict(cells.shift(judged.cells, at))}
            said |= {"within": cells.cells[at]._asdict()}
        found.append({**said, "shifted": name in shifted})
    return found[:MOST_EVIDENCE]
