"""Quality over time, beside its baselines and as it was known first; and of each version."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from ..pages.drawing import Line, chart, key
from ..records import Measure, Paired, Quality
from ..statistics.binary import measured
from ..statistics.quality import added
from .alarms import episodes
from .records import NOBODY, SERVED, Records, Restated, day, kin
from .section import Block, Cell, Drawn, Missing, Note, Section, Table, Tone

__all__ = ["compared", "figure", "headline", "interval", "judged", "over_time", "span_of", "totals", "versions", "x_names"]

HEADLINES: Final = ("log_loss", "pinball", "mae", "rmse", "accuracy")
"""The measure that a report goes by: the first of these that is measured."""
SECOND: Final = ("auc", "accuracy", "rmse", "r2")
"""Drawn beside it: the first of these that is measured, and is another."""
HIGHER: Final = frozenset({"auc", "average_precision", "accuracy", "precision", "recall", "specificity", "f1", "f2", "kappa",
                           "kappa_temporal", "value", "r2", "macro_f1", "weighted_f1"})  # fmt: skip
"""Of these more is better, of all others less."""
MEANS: Final = frozenset({"log_loss", "brier", "accuracy", "value", "mae", "bias", "pinball"})
"""Means over outcomes: of several cohorts together, the mean weighted by outcomes is exact."""
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
        {name: _means(group, name) for name in ("prior", "last")},
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
    return measured(quality, value=records.model.value) if quality.n > 0 and quality.bins_true else {}


def _means(group: Sequence[Restated], who: str) -> dict[str, float]:
    """Means weighted by outcomes, of the measures that are means; of a single cohort all of its measures."""
    if len(group) == 1:
        return {name: measure.value for name, measure in group[0].known.measures.get(who, {}).items()}
    sums: dict[str, list[float]] = {}
    for pair in group:
        for name, measure in pair.known.measures.get(who, {}).items():
            if name in MEANS:
                sums.setdefault(name, []).extend((measure.value * outcomes(pair), float(outcomes(pair))))
    return {name: sum(found[::2]) / sum(found[1::2]) for name, found in sums.items() if sum(found[1::2]) > 0}


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
    blocks.append(Table(("measure", "served", "95 % interval", "prior", "last label"), table, brief=4))
    blocks.append(_restated(firsts, name))
    young = sum(not pair.known.complete for pair in cohorts)
    if young:
        blocks.append(Note(f"Of {young} of {len(cohorts)} cohorts not every label is in: they will be restated."))
    better, said = compared(total, cohorts, name)
    return Section("quality", title, said, blocks, better)


def compared(total: Mapping[str, Measure], cohorts: Sequence[Restated], name: str) -> tuple[Tone, str]:
    """Whether what was served is better than the prior by more than its interval; as a tone and a sentence."""
    served, prior = total[name], _means(cohorts, "prior").get(name)
    n = sum(map(outcomes, cohorts))
    said = f"{begun(spoken(name))} {figure(served.value)} {interval(served)} on {n:,} outcomes"
    if prior is None:
        return "", f"{said}; there is no prior to hold it against."
    gain = served.value - prior if name in HIGHER else prior - served.value
    half = served.value - served.low if name in HIGHER else served.high - served.value
    other = served.high - served.value if name in HIGHER else served.value - served.low
    word: Tone = "good" if gain > half else "bad" if gain < -other else "warn"
    text = {
        "good": "surely better than the prior",
        "warn": "not surely different from the prior",
        "bad": "surely worse than the prior, that is, than no model",
    }
    return word, f"{said}: {text[word]} ({figure(prior)})."


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
    for name in ("prior", "last"):
        other = [step.baselines[name].get(measure) for step in found]
        known = [value for value in other if value is not None]
        if known and max(known) <= max(3 * top, 1e-9) and measure != "auc":
            lines.append(Line(name=_BESIDE[name], tone=name, points=points(other)))
    first = [step.first.get(measure) for step in found]
    if any(a is not None and b is not None and a != b for a, b in zip(first, values, strict=True)):
        lines.append(Line(name="as known first", tone="first", points=points(first)))
    lines.reverse()  # what was served is drawn last
    marks = [
        (d.at.timestamp(), "bad" if d.evidence.get("rolled_back") else "good", f"{d.version} in charge: {d.reason}"[:200])
        for d in records.champions
        if records.inside(d.at)
    ]
    shades = [
        (
            one.raised.at.timestamp(),
            (one.end or records.until).timestamp(),
            f"{one.raised.signal} alarm since {day(one.raised.at)}",
        )
        for one in episodes(records.alarms)
        if one.end is None or one.end > records.start
    ]
    picture = chart(lines, f"{spoken(measure)} over time", span_of(records), x_names(records), marks, shades)
    keys = [(line.tone, line.name) for line in reversed(lines)] + ([("mark", "a version takes charge")] if marks else [])
    keys += [("shade", "an alarm stands")] if shades else []
    way = "more is better" if measure in HIGHER else "less is better"
    return Drawn(picture + key(keys), f"{begun(spoken(measure))} by when the answers were given ({way})")


_BESIDE: Final = {"prior": "prior", "last": "last label"}


def _middle(step: Step) -> float:
    return (step.start.timestamp() + step.end.timestamp()) / 2


def _title(step: Step, measure: str) -> str:
    found = step.served.get(measure)
    if found is None:
        return f"{day(step.start)}: nothing known"
    first = step.first.get(measure)
    restated = f", first {figure(first)}" if first is not None and first != found.value else ""
    return f"{day(step.start)}: {figure(found.value)} {interval(found)}, {step.outcomes:,} outcomes{restated}"


def span_of(records: Records) -> tuple[float, float]:
    """The period as the two ends of an axis."""
    return records.start.timestamp(), records.until.timestamp()


def x_names(records: Records, most: int = 6) -> list[tuple[float, str]]:
    """Times under a chart, at round hours or days."""
    low, high = span_of(records)
    step = next((s for s in _ROUND if (high - low) / s <= most), math.ceil((high - low) / DAY_SECONDS / most) * DAY_SECONDS)
    form = "%d %b %H:%M" if step < DAY_SECONDS else "%d %b" if high - low < 300 * DAY_SECONDS else "%b %Y"
    first = math.ceil(low / step) * step if step < DAY_SECONDS else math.ceil(low / DAY_SECONDS) * DAY_SECONDS
    places = [float(first + step * at) for at in range(int((high - first) // step) + 1)]
    return [(at, f"{datetime.fromtimestamp(at, records.start.tzinfo):{form}}") for at in places]


DAY_SECONDS: Final = 86_400
_ROUND: Final = (900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY_SECONDS)


def _row(name: str, total: Measure, cohorts: Sequence[Restated]) -> tuple[str | Cell, ...]:
    beside = [_means(cohorts, who).get(name) for who in ("prior", "last")]
    return (spoken(name), figure(total.value), interval(total), *("–" if v is None else figure(v) for v in beside))


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


def versions(records: Records) -> Section:
    """Every version that answered, or was asked beside the one that did."""
    title, quality = "Versions", records.quality()
    before = quality.pop(NOBODY, Quality()).n
    served = quality.pop(SERVED, Quality()).n
    found = {name: (q, measures_of(records, q)) for name, q in quality.items() if q.n > 0}
    name = next((m for m in HEADLINES if any(m in measures for _, measures in found.values())), "")
    if not found or not name:
        what = "No version has an outcome that counts in this period"
        return Section("versions", title, f"{what}.", [Missing(f"{what}; {before:,} were of answers before there was a model.")])
    champion = records.champion
    order = sorted(found, key=lambda v: (kin(v) != kin(champion), _natural(v)))
    second = next((m for m in SECOND if m != name and any(m in measures for _, measures in found.values())), "")
    rows = []
    for version in order:
        q, measures = found[version]
        paired = _paired(records, version, champion)
        rows.append(
            (
                Cell(f"{version} ●" if version == champion else version),
                f"{q.n:,}",
                _figured(measures.get(name)),
                _figured(measures.get(second)),
                "in charge" if version == champion else _difference(paired),
                "" if version == champion else f"{paired.n:,}",
            )
        )
    loss = next((getattr(s, "loss", "log loss") for s in records.statistics), "log loss")
    heads = ("version", "outcomes", spoken(name), spoken(second), f"{loss} minus that of {champion}", "on the same answers")
    blocks: list[Block] = [Table(heads, rows)]
    blocks.append(
        Note("Versions were asked about different answers; only the last two columns compare like with like. ● in charge.")
    )
    if before:
        blocks.append(
            Note(f"{before:,} outcomes are of answers that were given before there was a model, and say nothing of one.")
        )
    if any(kin(version) != version for _, known in records.cohorts for version in known.quality):
        blocks.append(Note("Snapshots of an online learner are counted together."))
    said = f"{len(found)} versions were judged on {served:,} outcomes; {champion or 'none'} is in charge."
    return Section("versions", title, said, blocks)


def _paired(records: Records, version: str, champion: str) -> Paired:
    total = Paired()
    for statistic in records.statistics:
        names = [name for name in statistic.quality if kin(name) == version]
        for name in names:
            total = added(total, statistic.versus(name, champion))
    return total


def _difference(paired: Paired) -> Cell:
    if paired.n < 2:
        return Cell("–")
    mean = paired.sum / paired.n
    error = math.sqrt(max(paired.squares / paired.n - mean**2, 0.0) / paired.n)
    tone: Tone = "bad" if mean - 1.96 * error > 0 else "good" if mean + 1.96 * error < 0 else ""
    return Cell(f"{mean:+.4f} ± {1.96 * error:.4f}", tone)


def _figured(measure: Measure | None) -> str:
    return "–" if measure is None else f"{figure(measure.value)} {interval(measure)}"


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


def _natural(version: str) -> tuple[int, str]:
    """The newest first: v12 before v9.

    >>> sorted(["v9", "v12", "online"], key=_natural)
    ['v12', 'v9', 'online']
    """
    digits = version.lstrip("v")
    return (-int(digits), version) if digits.isascii() and digits.isdigit() else (1, version)
