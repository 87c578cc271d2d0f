"""How good the answers of a model were: by cohort, as known now or at another time, beside what was known first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..log import Log
from . import broker, screen

if TYPE_CHECKING:
    from ..records import Cohort, Measure
    from ..settings import Settings

__all__ = ["show"]

SHOWN: Final = ("auc", "log_loss", "accuracy", "calibration_error", "value")
"""Measures of the table; --json has all."""


def show(settings: Settings, topic: str, model: str, cohorts: int, known: datetime | None) -> None:
    """Print the newest cohorts of a model."""
    import msgspec

    from ..records import Cohort
    from ..report.records import as_known

    async def work(log: Log) -> list[Cohort]:
        broker.known(topic, await log.describe())
        return [msgspec.json.decode(found.value or b"", type=Cohort) async for found in broker.held(log, topic)]

    shown = as_known(broker.use(settings, work, f"reading {topic}"), known)[-cohorts:]
    screen.answer(
        {"model": model, "cohorts": [{"first": a, "known": b} for a, b in shown]}, screen.rows(table(shown)) if shown else []
    )
    if not shown:
        when = (
            f"was known by {known.isoformat()}" if known else "is known yet: the first is told when a window has closed after it"
        )
        screen.note(f"no quality of {model} {when}")
        return
    screen.note("  each with its 95 % interval; (now) first known -> as known; prior: answering with the label rate of before")


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
                *(_cell(served.get(name), before.get(name) if first is not last else None) for name in names),
                "–" if prior is None else f"{prior.value:.4f}",
            )
        )
    return found


def _cell(measure: Measure | None, first: Measure | None) -> str:
    """
    >>> from penstock.records import Measure
    >>> _cell(Measure(value=0.5, low=0.25, high=0.75), None), _cell(None, None)
    ('0.5000 (0.2500 to 0.7500)', '–')
    """
    if measure is None:
        return "–"
    restated: Any = "" if first is None or first.value == measure.value else f"{first.value:.4f} -> "
    return f"{restated}{measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f})"
