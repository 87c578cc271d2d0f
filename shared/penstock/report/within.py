"""Within: inputs that drifted within a level of a segment, and whether the shares of the levels have moved."""

from __future__ import annotations

from typing import Final

from ..evidence import excess
from ..pages.words import cut
from ..records import Shift, Statistic
from ..segment import at_level
from .records import Records, day
from .section import Block, Cell, Missing, Table, Tone

__all__ = ["inside", "within"]

SHOWN: Final = 12
"""Cells in a table: those beyond their limits most often."""


def inside(statistic: Statistic) -> dict[str, Shift]:
    """How far each input moved within each level, by the name of both."""
    segments = (statistic.levels or {}).items()
    return {
        at_level(name, segment, level): shift
        for segment, levels in segments
        for level, of in levels.items()
        for name, shift in of.drift.items()
    }


def within(records: Records) -> list[Block]:
    """Nothing where no segment is declared."""
    if not records.model.segments:
        return []
    found: dict[str, list[tuple[Statistic, Shift]]] = {}
    for statistic in records.statistics:
        for name, shift in inside(statistic).items():
            found.setdefault(name, []).append((statistic, shift))
    if not found:
        return [Missing("No input was compared within the levels of a segment.")]
    beyond = {name: [each for each in windows if excess(each[1]) > 1] for name, windows in found.items()}
    worst = {name: max(windows, key=lambda each: excess(each[1])) for name, windows in beyond.items() if windows}
    order = sorted(worst, key=lambda name: (-len(beyond[name]), -excess(worst[name][1]), name))
    rows: list[tuple[str | Cell, ...]] = [
        (
            cut(name, 90),
            f"{len(beyond[name])} of {len(found[name])}",
            Cell(f"{excess(worst[name][1]):.2f} ×", "bad"),
            day(worst[name][0].start),
            f"{worst[name][1].ks:.3f}",
            f"{max(worst[name][1].critical, worst[name][1].floor or 0.0):.3f}",
            f"{worst[name][1].psi:.2f}",
        )
        for name in order[:SHOWN]
    ]
    heads = ("within a level", "windows beyond", "most", "on", "distance", "limit", "PSI")
    rest = (
        f"{len(found) - len(rows)} others" if len(order) <= SHOWN else f"{len(order) - SHOWN} that drifted less often, and others"
    )
    blocks: list[Block] = [Table(heads, [*rows, (rest, "none" if len(order) <= SHOWN else "", "", "", "", "", "")], numbers=1)]
    newest = next(s for s in reversed(records.statistics) if s.levels)
    mixes = []
    for segment in records.model.segments:
        for against, moved in (
            (f"the training rows of {newest.reference}", (newest.mix or {}).get(segment.name)),
            ("the weeks before", newest.population.get(segment.name)),
        ):
            if moved is not None:
                tone: Tone = "warn" if moved.stability > moved.chance else ""
                cells = (Cell(f"{moved.stability:.3f}", tone), f"{moved.chance:.3f}", f"{moved.n:,}")
                mixes.append((segment.name, against, *cells))
    if mixes:
        blocks.append(
            Table(("shares of the levels", "against", "PSI", "by chance", "answers of the newest window"), mixes, numbers=2)
        )
    return blocks
