"""How good the answers of a model were: by cohort, as known now or at another time, beside what was known first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from ..log import Readable
from . import broker, screen

if TYPE_CHECKING:
    from ..model import Model
    from ..records import Cohort, Estimate, Measure, Quality
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["cell", "held", "nothing", "show", "table", "whole"]

T = TypeVar("T")

MOST: Final = 3
"""So many measures fit on a line, one fewer beside the first model; --json has all."""


def held(settings: Settings, topics: Topics, model: str) -> list[Cohort]:
    """All that was said of the cohorts of a model."""
    from ..records import Cohort

    return _all(settings, topics, topics.cohorts(model), Cohort)


def _all(settings: Settings, topics: Topics, topic: str, kind: type[T]) -> list[T]:
    import msgspec

    async def work(log: Readable) -> list[T]:
        broker.known(topic, await log.describe())
        return [msgspec.json.decode(found.value or b"", type=kind) async for found in broker.held(log, topic)]

    return broker.read(settings, topics, work, f"reading {topic}")


def show(settings: Settings, topics: Topics, model: Model, cohorts: int, known: datetime | None) -> None:
    """Print the newest cohorts of a model."""
    from ..report.beside import differences, first_of, spoken
    from ..report.records import as_known
    from ..statistics.confused import confused
    from ..statistics.kinds import kind_of

    shown = as_known(held(settings, topics, model.name), model.label, known)[-cohorts:]
    total, beside = whole(model, [b for _, b in shown]), differences([b for _, b in shown])
    screen.answer(
        {
            "model": model.name,
            "cohorts": [{"first": a, "known": b} for a, b in shown],
            "total": total,
            "against": beside,
            "confusion": confused(model.label, sums([b for _, b in shown]), model.value),
        },
        screen.rows(table(model, shown, total)) if shown else [],
    )
    if not shown:
        screen.note(nothing(model.name, known))
        return
    if why := unjudged(settings, topics, model, known):
        screen.note(f"  the skill monitor judged nothing in the newest window: {why}")
    until = max(last.known_until for _, last in shown)
    screen.note(f"  known until {until:%Y-%m-%d %H:%M}; ± half of the 95 % interval; first: as first known")
    screen.note("  prior: answering all with what labels were before; --json has the usual label of the window before, too")
    if (quantile := model.label.quantile) is not None:
        screen.note(f"  coverage: the share of truths that are at most the answer; {quantile:g} of them are meant to be")
    if first := first_of(last for _, last in shown):
        screen.note(f"  {first}: the first model, unchanged, where it was asked about all (keep_first=True asks it for good)")
    for line in spoken(kind_of(model.label), [b for _, b in shown], first):
        screen.note(f"  served is {line}")
    if not screen.form.json and any(last.estimated for _, last in shown):
        screen.answer(None, ["", *screen.rows(expected([last for _, last in shown]))])
        screen.note("  expected from the answers alone, with what held 9 in 10 before -> what came true; blind to concept drift")


def unjudged(settings: Settings, topics: Topics, model: Model, known: datetime | None) -> str:
    """Why the skill monitor did not judge the newest window; "" where it did, or there is none."""
    from ..policy import Skill
    from ..records import Statistic

    if not any(isinstance(monitor, Skill) for monitor in model.monitors):
        return ""
    said = _all(settings, topics, topics.statistics(model.name), Statistic)
    newest = max((s for s in said if known is None or s.end <= known), key=lambda s: s.end, default=None)
    return newest.missing.get("skill_monitor", "") if newest is not None else ""


def nothing(model: str, known: datetime | None) -> str:
    """Why nothing is shown."""
    when = f"was known by {known.isoformat()}" if known else "is known yet: the first is told when a window has closed after it"
    return f"no quality of {model} {when}"


def sums(cohorts: Sequence[Cohort]) -> Quality:
    """Of what was served in all cohorts together."""
    from functools import reduce

    from ..records import Quality
    from ..statistics.quality import added

    return reduce(added, [cohort.quality["served"] for cohort in cohorts if "served" in cohort.quality], Quality())


def whole(model: Model, cohorts: Sequence[Cohort]) -> dict[str, Measure]:
    """The measures of all cohorts together, of what was served."""
    from ..statistics.kinds import kind_of

    kind = kind_of(model.label)
    return kind.measured(kind.told(sums(cohorts)), model.value, None)


def table(model: Model, shown: Sequence[tuple[Cohort, Cohort]], total: dict[str, Measure] | None = None) -> list[tuple[str, ...]]:
    """Lines for people: of each cohort the answers, how many are settled, the measures, the first of them as it was known first,
    and that of each baseline; at the end all of them together."""
    from ..report.beside import first_of
    from ..statistics.kinds import kind_of

    wanted = kind_of(model.label).shown
    besides = [name for name in ("prior", "first") if any(wanted[0] in b.measures.get(name, {}) for _, b in shown)]
    most = MOST - ("first" in besides)
    names = [name for name in wanted if any(name in b.measures.get("served", {}) for _, b in shown)][:most]
    days = all(last.start.hour == last.start.minute == 0 for _, last in shown)
    heads = [name.replace("_", " ") for name in names]
    first = first_of(last for _, last in shown)
    titles = {"prior": "prior", "first": first}
    found: list[tuple[str, ...]] = [("scored from", "answers", "settled", *heads, "first", *(titles[b] for b in besides))]
    answers, settled = 0, 0
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in besides}
    for begun, last in shown:
        served, over = last.measures.get("served", {}), last.labels + last.silent + last.unanswered
        before = begun.measures.get("served", {}).get(wanted[0])
        n = last.quality["served"].n if "served" in last.quality else 0
        answers, settled = answers + last.answers, settled + over
        beside = {name: last.measures.get(name, {}).get(wanted[0]) for name in besides}
        for name, measure in beside.items():
            if measure is not None:
                sums[name] = [sums[name][0] + _summed(model, measure.value) * n, sums[name][1] + n]
        found.append(
            (
                f"{last.start:%Y-%m-%d}" if days else f"{last.start:%Y-%m-%d %H:%M}",
                f"{last.answers:,}",
                "all" if last.complete else _share(over, last.answers),
                *(cell(served.get(name)) for name in names),
                "–" if before is None else _number(before.value),
                *("–" if measure is None else _number(measure.value) for measure in beside.values()),
            )
        )
    if total is not None and len(shown) > 1:
        whole = sum(last.quality["served"].n for _, last in shown if last.measures.get("served"))
        fair = {name: n > 0 and (name != "first" or n == whole) for name, (_, n) in sums.items()}  # else of other outcomes
        means = (_number(_mean(model, summed / n)) if fair[name] else "–" for name, (summed, n) in sums.items())
        cells = (cell(total.get(name)) for name in names)
        state = "all" if all(last.complete for _, last in shown) else _share(settled, answers)
        found.append(("together", f"{answers:,}", state, *cells, "", *means))
    return found


def expected(cohorts: Sequence[Cohort]) -> list[tuple[str, ...]]:
    """Lines for people: what was expected of cohorts before their labels came, by how much such estimates had been wrong, and of
    those that are complete what came true."""
    from ..report.expected import came_true

    names = sorted({name for cohort in cohorts for name in cohort.estimated})
    found: list[tuple[str, ...]] = [("scored from", *(f"{name.replace('_', ' ')} expected" for name in names), "compared")]
    for cohort in cohorts:
        true = came_true(cohort)
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
    if estimate.low is None or estimate.high is None:
        within = "error not yet known"
    else:
        within = f"{_number(estimate.low)} to {_number(estimate.high)}"
    return f"{_number(estimate.value)} ({within})" + ("" if true is None else f" -> {_number(true)}")


def _summed(model: Model, loss: float) -> float:
    """What adds up of a measure that is the loss: of a root its square."""
    return loss * loss if model.label.task == "regression" and model.label.quantile is None else loss


def _mean(model: Model, loss: float) -> float:
    return float(loss**0.5) if model.label.task == "regression" and model.label.quantile is None else loss


def _share(over: int, answers: int) -> str:
    return f"{100 * over // answers}%" if answers else "–"


def _number(value: float) -> str:
    """
    >>> _number(0.51234), _number(23.456), _number(1234567.0), _number(0.0)
    ('0.5123', '23.46', '1.235e+06', '0.0000')
    """
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 10_000 else f"{value:.3e}"


def cell(measure: Measure | None) -> str:
    """
    >>> from penstock.records import Measure
    >>> cell(Measure(value=0.5, low=0.25, high=0.75)), cell(None)
    ('0.5000 ±0.2500', '–')
    """
    return "–" if measure is None else f"{_number(measure.value)} ±{_number((measure.high - measure.low) / 2)}"
