"""Quality over time, beside its baselines and as it was known first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Final, NamedTuple

from ..pages.drawing import Line, chart, key
from ..pages.words import cut
from ..records import Measure, Quality
from ..statistics.confused import confused
from ..statistics.kinds import kind_of
from ..statistics.quality import added
from . import beside
from .alarms import episodes
from .axis import span_of, x_names
from .records import SERVED, Records, Restated, day
from .section import Block, Cell, Drawn, Missing, Note, Section, Table, Tone

__all__ = [
    "HEADLINES",
    "SECOND",
    "compared",
    "figure",
    "headline",
    "interval",
    "judged",
    "measures_of",
    "over_time",
    "spoken",
    "totals",
]

HEADLINES: Final = ("log_loss", "pinball", "rmse", "mae", "accuracy")
"""The measure that a report goes by: the first of these that is measured, which is that of the loss."""
SECOND: Final = ("auc", "coverage", "accuracy", "mae", "r2")
"""Drawn beside it: the first of these that is measured, and is another."""
HIGHER: Final = frozenset({"auc", "average_precision", "accuracy", "precision", "recall", "specificity", "f1", "f2", "kappa",
                           "kappa_temporal", "value", "r2", "macro_f1", "weighted_f1"})  # fmt: skip
"""Of these more is better, of all others less."""
MEANS: Final = frozenset({"log_loss", "brier", "accuracy", "value", "mae", "bias", "pinball", "coverage"})
"""Means over outcomes: of several cohorts together, the mean weighted by outcomes is exact."""
ROOT: Final = "rmse"
"""The root of such a mean."""
BASELINES: Final = ("prior", "last", "first")
STEPS: Final = 90
"""Points of a line; neighbours in time are added together where there are more."""


class Step(NamedTuple):
    """One cohort, or neighbours added together: measures of what was served, of the baselines, and of what was known first."""

    start: datetime
    end: datetime
    outcomes: int
    complete: bool
    served: Mapping[str, Measure]
    baselines: Mapping[str, Mapping[str, float]]
    first: Mapping[str, float]


def judged(records: Records) -> list[Restated]:
    """The cohorts of which something is known."""
    return [pair for pair in records.cohorts if pair.known.measures.get(SERVED)]


def headline(cohorts: Sequence[Restated]) -> str:
    """The measure that the report goes by; "" where nothing is measured."""
    known = {name for pair in cohorts for name in pair.known.measures.get(SERVED, {})}
    return next((name for name in (*HEADLINES, *sorted(known)) if name in known), "")


def outcomes(cohort: Restated) -> int:
    return cohort.known.quality.get(SERVED, Quality()).n


def steps(cohorts: Sequence[Restated], records: Records) -> list[Step]:
    """At most STEPS steps."""
    covers = max(math.ceil(len(cohorts) / STEPS), 1)
    return [_step(cohorts[at : at + covers], records) for at in range(0, len(cohorts), covers)]


def _step(group: Sequence[Restated], records: Records) -> Step:
    return Step(
        group[0].known.start,
        group[-1].known.end,
        sum(map(outcomes, group)),
        all(pair.known.complete for pair in group),
        totals(group, records),
        {name: _means(group, name) for name in BASELINES},
        {
            name: value.value
            for name, value in (group[0].first.measures.get(SERVED, {}) if len(group) == 1 else {}).items()
        },
    )  # fmt: skip


def totals(group: Sequence[Restated], records: Records) -> dict[str, Measure]:
    """The measures of what was served over several cohorts: exact from their sums, else weighted means without an interval."""
    if len(group) == 1:
        return dict(group[0].known.measures.get(SERVED, {}))
    total = Quality()
    for pair in group:
        total = added(total, pair.known.quality.get(SERVED, Quality()))
    found = measures_of(records, total)
    means = {name: Measure(value=value, low=value, high=value) for name, value in _means(group, SERVED).items()}
    return {**means, **found}


def measures_of(records: Records, quality: Quality) -> dict[str, Measure]:
    """The measures that follow from sums; {} where they say nothing."""
    return kind_of(records.model.label).measured(quality, records.model.value, None) if quality.n > 0 else {}


def _means(group: Sequence[Restated], who: str) -> dict[str, float]:
    """Means weighted by outcomes, of the measures that are means; of a single cohort all of its measures."""
    if len(group) == 1:
        return {name: measure.value for name, measure in group[0].known.measures.get(who, {}).items()}
    sums: dict[str, list[float]] = {}
    for pair in group:
        for name, measure in pair.known.measures.get(who, {}).items():
            if name in MEANS or name == ROOT:
                value = measure.value**2 if name == ROOT else measure.value
                sums.setdefault(name, []).extend((value * outcomes(pair), float(outcomes(pair))))
    means = {name: sum(found[::2]) / sum(found[1::2]) for name, found in sums.items() if sum(found[1::2]) > 0}
    return means | ({ROOT: math.sqrt(means[ROOT])} if ROOT in means else {})


def over_time(records: Records) -> Section:
    """How good the answers were, by when they were given."""
    title, cohorts = "Quality over time", judged(records)
    name = headline(cohorts)
    if not name:
        why = "No answer of the period has a label that counts yet, so nothing is known of its quality."
        return Section("quality", title, why, [Missing("See what became of the labels:", "penstock status")], "unknown")
    total, found = totals(cohorts, records), steps(cohorts, records)
    blocks: list[Block] = []
    for measure in [name, *[m for m in SECOND if m in total and m != name][:1]]:
        blocks.append(_drawn(found, measure, records))
    firsts = [pair for pair in cohorts if outcomes(pair)]
    table = [_row(measure, total[measure], cohorts) for measure in sorted(total, key=lambda m: (_rank(m, name), m))]
    first = beside.first_of(pair.known for pair in cohorts)
    heads = ("measure", "served", "95 % interval", "prior", "usual label before", f"first model ({first or 'none'})")
    blocks.append(Table(heads, table, brief=4))
    blocks += _beside(records, cohorts, first)
    blocks += _confused(records, cohorts)
    blocks.append(_restated(firsts, name))
    young = sum(not pair.known.complete for pair in cohorts)
    if young:
        blocks.append(Note(f"Of {young} of {len(cohorts)} cohorts not every label is in: they will be restated."))
    newest = max(records.statistics, key=lambda s: s.end, default=None)
    if newest is not None and (few := newest.missing.get("skill_monitor")):
        blocks.append(Note(f"The skill monitor judged nothing in the newest window: {few}."))
    better, said = compared(records, cohorts, name)
    return Section("quality", title, said, blocks, better)


def _confused(records: Records, cohorts: Sequence[Restated]) -> list[Block]:
    """Of what was true, how often each answer was given."""
    total: Quality = reduce(added, (pair.known.quality.get(SERVED, Quality()) for pair in cohorts), Quality())
    found = confused(records.model.label, total, records.model.value)
    rows = [
        (cut(truth), cut(answer), f"{cell.n:,}", figure(cell.share.value), interval(cell.share))
        for truth, answers in found.items()
        for answer, cell in answers.items()
        if cell.n
    ]
    heads = ("was true", "answered", "outcomes", "share of what was true", "95 % interval")
    return [Table(heads, rows, numbers=2, brief=4, fold="Confusion: what was answered, by what was true")] if rows else []


def compared(records: Records, cohorts: Sequence[Restated], name: str) -> tuple[Tone, str]:
    """What was served beside the prior, as a tone and a sentence; where a value is declared and surely below that of the prior,
    which acts on all answers or on none, that is bad news whatever the loss says. A first model that would have been better is
    told, too."""
    tone, said = _compared(records, cohorts, name)
    fair = [pair for pair in cohorts if "value" in pair.known.measures.get("prior", {})]
    if fair and _compared(records, fair, "value")[0] == "bad":
        served, prior = totals(fair, records)["value"], _means(fair, "prior")["value"]
        worth = f"an answer is worth {figure(served.value)} {interval(served)}, and {figure(prior)} by the prior"
        return "bad", f"{said} But acting on its answers is surely worth less than acting on all or on none: {worth}."
    known = [pair.known for pair in cohorts]
    first, kind = beside.first_of(known), kind_of(records.model.label)
    better = beside.differences(known).get(first)
    if tone != "bad" and better is not None and better.low > 0:
        return "warn", f"{said} But it is {better.spoken(kind, f'the first model ({first})', True)}."
    return tone, said


def _compared(records: Records, cohorts: Sequence[Restated], name: str) -> tuple[Tone, str]:
    """Whether what was served is surely better than the prior, on the outcomes for which there was one; as a tone and a sentence.
    Losses are compared answer by answer; of other measures only the intervals of both are known."""
    fair = [pair for pair in cohorts if name in pair.known.measures.get("prior", {})] or cohorts
    served, prior = totals(fair, records)[name], _means(fair, "prior").get(name)
    n = sum(map(outcomes, fair))
    said = f"{begun(spoken(name))} {figure(served.value)} {interval(served)} on {n:,} outcomes"
    if len(fair) < len(cohorts):
        said += " (those with a prior)"
    if prior is None:
        return "", f"{said}; there is no prior to hold it against."
    found = beside.differences([pair.known for pair in fair]).get("prior") if name in OF_LOSS else None
    apart = _apart(fair, served, prior, name) if found is None else Measure(value=found.value, low=found.low, high=found.high)
    than = beside.word(apart)
    no = ", that is, than no model" if apart.low > 0 else ""
    return _TONE[than], f"{said}: {than} the prior{no} ({figure(prior)})."


_TONE: Final[dict[str, Tone]] = {"surely better than": "good", "not surely different from": "warn", "surely worse than": "bad"}
OF_LOSS: Final = frozenset({"log_loss", "pinball", "rmse"})


def _apart(cohorts: Sequence[Restated], served: Measure, prior: float, name: str) -> Measure:
    """By how much what was served is worse, as of two samples: an interval of the roots of both squared halves."""
    better = -1 if name in HIGHER else 1
    halves = [(m.high - m.low) / 2 * outcomes(p) for p in cohorts if (m := p.known.measures.get("prior", {}).get(name))]
    theirs = math.hypot(*halves) / max(sum(map(outcomes, cohorts)), 1)
    half, mean = math.hypot((served.high - served.low) / 2, theirs), better * (served.value - prior)
    return Measure(value=mean, low=mean - half, high=mean + half)


def _beside(records: Records, cohorts: Sequence[Restated], first: str) -> list[Block]:
    """What was served beside each baseline, answer by answer."""
    said = beside.spoken(kind_of(records.model.label), [pair.known for pair in cohorts], first)
    blocks: list[Block] = [Note(f"What was served is {each}.") for each in said]
    asked = sum("first" in pair.known.measures for pair in cohorts)
    if first and asked < len(cohorts):
        blocks.append(
            Note(
                f"{first}, the first model, was asked about all answers of {asked} of {len(cohorts)} cohorts; "
                "keep_first=True of the model asks it for good."
            )
        )
    return blocks


def _drawn(found: Sequence[Step], measure: str, records: Records) -> Drawn:
    def points(of: Sequence[float | None]) -> list[tuple[float, float | None]]:
        return [(_middle(step), value) for step, value in zip(found, of, strict=True)]

    served = [step.served.get(measure) for step in found]
    values = [None if m is None else m.value for m in served]
    band = [(_middle(step), m.low, m.high) for step, m in zip(found, served, strict=True) if m is not None and m.high > m.low]
    lines = [
        Line(name="served", tone="now", points=points(values), band=band, dots=True,
             titles=[_title(step, measure) for step in found])
    ]  # fmt: skip
    top = max((value for value in values if value is not None), default=0.0)
    for name in BASELINES:
        other = [step.baselines[name].get(measure) for step in found]
        known = [value for value in other if value is not None]
        if known and max(known) <= max(3 * top, 1e-9) and measure != "auc":
            lines.append(Line(name=_BESIDE[name], tone=_TONES[name], points=points(other)))
    first = [step.first.get(measure) for step in found]
    if any(a is not None and b is not None and a != b for a, b in zip(first, values, strict=True)):
        lines.append(Line(name="as known first", tone="first", points=points(first)))
    lines.reverse()  # what was served is drawn last
    marks = [
        (d.at.timestamp(), "bad" if d.evidence.get("rolled_back") else "good", f"{d.version} in charge: {d.reason}"[:200])
        for d in records.champions
        if records.inside(d.at) and d.at <= records.until
    ]
    shades = [
        (
            one.raised.at.timestamp(),
            min(one.end or records.until, records.until).timestamp(),
            f"{one.raised.signal} alarm since {day(one.raised.at)}",
        )
        for one in episodes(records.alarms)
        if (one.end is None or one.end > records.start) and one.raised.at < records.until
    ]
    picture = chart(lines, f"{spoken(measure)} over time", span_of(records), x_names(records), marks, shades)
    keys = [(line.tone, line.name) for line in reversed(lines)] + ([("mark", "a version takes charge")] if marks else [])
    keys += [("shade", "an alarm stands")] if shades else []
    near = measure == "coverage" and f"best near {records.model.label.quantile:g}, the quantile that is asked for"
    way = near or ("more is better" if measure in HIGHER else "less is better")
    return Drawn(picture + key(keys), f"{begun(spoken(measure))} by when the answers were given ({way})")


_BESIDE: Final = {"prior": "prior", "last": "usual label before", "first": "first model"}
_TONES: Final = {"prior": "prior", "last": "last", "first": "model"}


def _middle(step: Step) -> float:
    return (step.start.timestamp() + step.end.timestamp()) / 2


def _title(step: Step, measure: str) -> str:
    found = step.served.get(measure)
    if found is None:
        return f"{day(step.start)}: nothing known"
    first = step.first.get(measure)
    restated = f", first {figure(first)}" if first is not None and first != found.value else ""
    return f"{day(step.start)}: {figure(found.value)} {interval(found)}, {step.outcomes:,} outcomes{restated}"


def _row(name: str, total: Measure, cohorts: Sequence[Restated]) -> tuple[str | Cell, ...]:
    everywhere = all("first" in pair.known.measures for pair in cohorts)  # else it would be of other outcomes
    means = [_means(cohorts, who).get(name) if who != "first" or everywhere else None for who in BASELINES]
    return (spoken(name), figure(total.value), interval(total), *("–" if v is None else figure(v) for v in means))


def _restated(cohorts: Sequence[Restated], name: str) -> Block:
    """How much was said otherwise later."""
    pairs = [
        (pair, pair.first.measures[SERVED][name], pair.known.measures[SERVED][name])
        for pair in cohorts
        if name in pair.first.measures.get(SERVED, {}) and name in pair.known.measures[SERVED]
    ]
    moved = sorted((p for p in pairs if p[1].value != p[2].value), key=lambda p: -abs(p[1].value - p[2].value))
    if not moved:
        return Note("No cohort was restated: what was known first still holds.")
    rows = [
        (
            day(pair.known.start), figure(first.value), figure(last.value), f"{last.value - first.value:+.4f}",
            f"{pair.first.quality.get(SERVED, Quality()).n:,}", f"{outcomes(pair):,}", day(pair.known.known_until),
        )
        for pair, first, last in moved
    ]  # fmt: skip
    heads = ("answers of", "known first", "known now", "change", "outcomes then", "now", "known until")
    return Table(heads, rows, brief=3, fold=f"{len(moved)} of {len(pairs)} cohorts were restated as labels came ({spoken(name)})")


def figure(value: float) -> str:
    """A measure with four digits that count.

    >>> figure(0.412345), figure(1234.5), figure(-0.5)
    ('0.4123', '1,234', '-0.5000')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 10 else f"{value:.4f}"


def interval(measure: Measure) -> str:
    """Of 95 %; nothing where it is not known.

    >>> interval(Measure(value=0.5, low=0.4, high=0.6)), interval(Measure(value=0.5, low=0.5, high=0.5))
    ('(0.4000 to 0.6000)', '')
    """
    return f"({figure(measure.low)} to {figure(measure.high)})" if measure.high > measure.low else ""


def spoken(name: str) -> str:
    """A measure by its usual name.

    >>> spoken("auc"), spoken("log_loss")
    ('AUC', 'log loss')
    """
    return _NAMES.get(name, name.replace("_", " "))


_NAMES: Final = {"auc": "AUC", "mae": "MAE", "rmse": "RMSE", "f1": "F1", "f2": "F2", "brier": "Brier score", "r2": "R²"}


def begun(text: str) -> str:
    """As a sentence begins."""
    return text[:1].upper() + text[1:]


def _rank(measure: str, name: str) -> int:
    order = (name, "auc", "average_precision", "accuracy", "value", "brier", "calibration_error")
    return order.index(measure) if measure in order else len(order)
