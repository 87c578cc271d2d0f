"""The heat-map: how far each input moved in each window, relative to its limit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from penstock.duration import DAY
from penstock.evidence import excess
from penstock.model import Model
from penstock.policy import Drift
from penstock.records import Shift, Statistic
from penstock.report.within import inside
from penstock.segment import input_of

__all__ = ["COLUMNS", "ROWS", "Heat", "heat_of"]

COLUMNS = 60
"""Windows of a heat-map, the newest."""
ROWS = 48
"""Inputs of a heat-map, those first that moved most; beside those of the whole such as drifted within a level of a segment."""


class HeatRow(msgspec.Struct, frozen=True):
    """One input: per column [Kolmogorov-Smirnov distance, limit, values compared], or null where nothing was tested."""

    input: str
    cells: list[tuple[float, float, int] | None]


class Heat(msgspec.Struct, frozen=True):
    columns: list[datetime]
    """Ends of the windows."""
    rows: list[HeatRow]
    inputs: int
    """How many inputs were tested in all."""
    reference: str


def heat_of(windows: Sequence[Statistic], model: Model) -> Heat:
    """The newest windows in which inputs were tested; a column for each that is missing between them too."""
    tested = [s for s in windows if s.drift]
    if not tested:
        return Heat([], [], 0, "")
    monitors = [m for m in model.monitors if isinstance(m, Drift)]
    material = {name: m.material for m in reversed(monitors) for name in m.inputs or model.inputs}
    every = timedelta(microseconds=min((m.every for m in monitors), default=DAY))
    if not monitors:
        every = min(s.end - s.start for s in tested)
    last = tested[-1].end
    places = {COLUMNS - 1 - round((last - s.end) / every): s for s in tested}
    first = max(min(places), 0)
    shown = {place: s for place, s in places.items() if place >= first}
    order = {name: at for at, name in enumerate(model.inputs)}
    rows = []
    levels = {place: inside(s) for place, s in shown.items() if s.levels}
    within = {name for of in levels.values() for name, shift in of.items() if excess(shift) > 1}
    moved = {place: {**s.drift, **levels.get(place, {})} for place, s in shown.items()}
    names = {name for s in shown.values() for name in s.drift} | within
    for name in sorted(names, key=lambda n: (order.get(input_of(n), len(order)), n)):
        cells = [_cell(moved[p].get(name) if p in shown else None, material.get(name, 0.0)) for p in range(first, COLUMNS)]
        rows.append(HeatRow(name, cells))
    inputs = len(rows)
    if inputs > ROWS:
        worst = sorted(rows, key=lambda row: -max(ks / limit if limit else 0.0 for ks, limit, _ in filter(None, row.cells)))
        chosen = {row.input for row in worst[:ROWS]}
        rows = [row for row in rows if row.input in chosen]
    columns = [last - every * (COLUMNS - 1 - place) for place in range(first, COLUMNS)]
    return Heat(columns, rows, inputs, tested[-1].reference)


def _cell(shift: Shift | None, material: float) -> tuple[float, float, int] | None:
    """`material` is what the project declares, for records that do not say what the monitor went by."""
    if shift is None:
        return None
    limit = max(shift.critical, material if shift.floor is None else shift.floor)
    return round(shift.ks, 4), round(limit, 4), shift.n
