"""How far the inputs and answers of a model have moved within the levels of a segment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..evidence import excess
from . import screen

if TYPE_CHECKING:
    from ..model import Model
    from ..records import LevelStatistic, Population, Statistic
    from ..segment import Segment

__all__ = ["show"]


def show(model: Model, segment: Segment, said: Statistic | None, at: str | None) -> None:
    """Print the levels of the newest window, those cells first that exceed their limits most."""
    if said is None:
        over = "over" if at is None else f"over by {at}"
        screen.answer({}, [])
        screen.note(
            f"nothing of {model.name} is counted by {segment.name} yet: that needs a fitted version, and a window that is {over}"
        )
        return
    levels: Mapping[str, LevelStatistic] = (said.levels or {}).get(segment.name, {})
    reference = said.reference
    rows: list[tuple[float, tuple[str, ...]]] = []
    for level in segment.ordered(levels):
        of = levels[level]
        moments = of.moments.get(reference, {})
        for name in sorted({*of.drift, *of.missing, *moments}):
            shift, found = of.drift.get(name), moments.get(name)
            mean = "" if found is None else f"{found.mean:.4g}"
            deviation = "" if found is None or found.variance is None else f"{found.variance**0.5:.4g}"
            far, word, n = ("–", "–", "–", "–"), "not judged", "" if found is None else f"{found.n:,}"
            if shift is not None:
                far = (f"{shift.ks:.3f}", f"{shift.critical:.3f}", f"{shift.floor or 0.0:.3f}", f"{shift.psi:.3f}")
                word, n = "drift" if excess(shift) > 1 else "", f"{shift.n:,}"
            cells = (screen.printable(level.encode()), name, *far, mean, deviation, n, word)
            rows.append((-excess(shift) if shift is not None else 1.0, cells))
    heads = (segment.name, "watched", "distance", "chance", "material", "PSI", "mean", "deviation", "values", "")
    counted = {name for of in levels.values() for name in (*of.drift, *of.missing, *of.moments.get(reference, {}))}
    left_out = [name for name in model.inputs if name not in counted] if counted else []
    population, mix = (said.population or {}).get(segment.name), (said.mix or {}).get(segment.name)
    value: dict[str, Any] = {
        "start": said.start,
        "end": said.end,
        "reference": reference,
        "segment": segment.name,
        "levels": levels,
        "population": population,
        "mix": mix,
        "left_out": left_out,
    }
    table = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
    screen.answer({model.name: value}, screen.rows([heads, *table]) if table else [])
    screen.note(f"  {model.name} by {segment.name}: {_span(said.start, said.end)}, against {reference or 'nothing'}")
    for level in segment.ordered(levels):
        for variant, took in levels[level].latency.items():
            about = f"{screen.printable(level.encode())}, {variant}: {took.n:,} answers"
            screen.note(f"  {about}, half within {took.p50 * 1e3:.3g} ms, 99 % within {took.p99 * 1e3:.3g} ms")
    _mix(mix, f"the training rows of {reference}")
    _mix(population, "the weeks before")
    if waiting := sorted({why for of in levels.values() for why in of.missing.values()}):
        screen.note(f"  not judged: {'; '.join(waiting)}")
    if left_out:
        few = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        screen.note(f"  not counted by level, as there are too many levels for so many inputs: {few}")


def _mix(moved: Population | None, against: str) -> None:
    if moved is not None:
        word = "have moved" if moved.stability > moved.chance else "have not moved"
        screen.note(f"  shares of the levels {word} against {against}: PSI {moved.stability:.3f}, by chance {moved.chance:.3f}")


def _span(start: datetime, end: datetime) -> str:
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
