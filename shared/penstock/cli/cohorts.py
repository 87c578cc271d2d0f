"""How good the answers of a model were: by cohort, as known now or at another time, beside what was known first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..log import Log
from . import broker, screen

if TYPE_CHECKING:
    from ..records import Cohort, Estimate, Measure
    from ..settings import Settings

__all__ = ["as_known", "cell", "held", "nothing", "show"]

SHOWN: Final = ("auc", "log_loss", "accuracy", "calibration_error", "value")
"""Measures of the table; --json has all."""


def as_known(records: Iterable[Cohort], until: datetime | None = None) -> list[tuple[Cohort, Cohort]]:
    """Of each cohort, in order, what was known of it first, and what by a time (None: now)."""
    first: dict[datetime, Cohort] = {}
    last: dict[datetime, Cohort] = {}
    for record in records:
        if until is not None and record.known_until > until:
            continue
        if record.start not in first or record.known_until < first[record.start].known_until:
            first[record.start] = record
        if record.start not in last or record.known_until >= last[record.start].known_until:
            last[record.start] = record
    return [(first[start], last[start]) for start in sorted(last)]


def held(settings: Settings, topic: str) -> list[Cohort]:
    """All that was said of the cohorts of a model."""
    import msgspec

    from ..records import Cohort

    async def work(log: Log) -> list[Cohort]:
        broker.known(topic, await log.describe())
        return [msgspec.json.decode(found.value or b"", type=Cohort) async for found in broker.held(log, topic)]

    return broker.use(settings, work, f"reading {topic}")


def show(settings: Settings, topic: str, model: str, cohorts: int, known: datetime | None) -> None:
    """Print the newest cohorts of a model."""
    shown = as_known(held(settings, topic), known)[-cohorts:]
    screen.answer(
        {"model": model, "cohorts": [{"first": a, "known": b} for a, b in shown]}, screen.rows(table(shown)) if shown else []
    )
    if not shown:
        screen.note(nothing(model, known))
        return
    screen.note("  each with its 95 % interval; (now) first known -> as known; prior: answering with the label rate of before")
    if not screen.form.json and any(last.estimated for _, last in shown):
        screen.answer(None, ["", *screen.rows(expected([last for _, last in shown]))])
        screen.note("  expected from the scores alone, with what held 9 in 10 before -> what came true; blind to concept drift")


def nothing(model: str, known: datetime | None) -> str:
    """Why nothing is shown."""
    when = f"was known by {known.isoformat()}" if known else "is known yet: the first is told when a window has closed after it"
    return f"no quality of {model} {when}"


def table(shown: Sequence[tuple[Cohort, Cohort]]) -> list[tuple[str, ...]]:
    """Lines for people: of each cohort the answers, how many are settled, the measures, and beside log loss that of the prior."""
    names = [name for name in SHOWN if any(name in b.measures.get("served", {}) for _, b in shown)]
    found: list[tuple[str, ...]] = [
        ("scored from", "known until", "answers", "settled", *(n.replace("_", " ") for n in names), "prior")
    ]
    for first, last in shown:
        served, before = last.measures.get("served", {}), first.measures.get("served", {})
        prior = last.measures.get("prior", {}).get("log_loss")
        over = last.labels + last.silent + last.unanswered
        state = "all" if last.complete else f"{100 * over // last.answers}%" if last.answers else "–"
        found.append(
            (
                f"{last.start:%Y-%m-%d %H:%M}",
                f"{last.known_until:%Y-%m-%d %H:%M}",
                f"{last.answers:,}",
                state,
                *(cell(served.get(name), before.get(name) if first is not last else None) for name in names),
                "–" if prior is None else f"{prior.value:.4f}",
            )
        )
    return found


def expected(cohorts: Sequence[Cohort]) -> list[tuple[str, ...]]:
    """Lines for people: what was expected of cohorts before their labels came, by how much such estimates had been wrong, and of
    those that are complete what came true."""
    names = sorted({name for cohort in cohorts for name in cohort.estimated})
    found: list[tuple[str, ...]] = [("scored from", *(f"{name.replace('_', ' ')} expected" for name in names), "compared")]
    for cohort in cohorts:
        served, sums = cohort.measures.get("served", {}), cohort.quality.get("served")
        true = {name: measure.value for name, measure in served.items()} if cohort.complete else {}
        if cohort.complete and sums is not None and sums.n > 0:
            true["label_rate"] = sums.positives / sums.n
        cells = [_expected(cohort.estimated.get(name), true.get(name)) for name in names]
        compared = max((each.compared for each in cohort.estimated.values()), default=0)
        found.append((f"{cohort.start:%Y-%m-%d %H:%M}", *cells, f"{compared}"))
    return found


def _expected(estimate: Estimate | None, true: float | None) -> str:
    """
    >>> from penstock.records import Estimate
    >>> _expected(Estimate(value=0.7), None), _expected(Estimate(value=0.7, low=0.65, high=0.75), 0.71)
    ('0.7000 (error not yet known)', '0.7000 (0.6500 to 0.7500) -> 0.7100')
    """
    if estimate is None:
        return "–"
    within = "error not yet known" if estimate.low is None else f"{estimate.low:.4f} to {estimate.high:.4f}"
    return f"{estimate.value:.4f} ({within})" + ("" if true is None else f" -> {true:.4f}")


def cell(measure: Measure | None, first: Measure | None = None) -> str:
    """
    >>> from penstock.records import Measure
    >>> cell(Measure(value=0.5, low=0.25, high=0.75)), cell(None)
    ('0.5000 (0.2500 to 0.7500)', '–')
    """
    if measure is None:
        return "–"
    restated: Any = "" if first is None or first.value == measure.value else f"{first.value:.4f} -> "
    return f"{restated}{measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f})"
