"""Drift: how far each input moved from what the version in charge was fitted on, with both distributions from counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..event import to_micros
from ..evidence import excess
from ..pages.document import facts
from ..pages.drawing import LISTED, distributions, key, pairs, strip
from ..pages.words import cut, short
from ..policy import ANSWERS, Drift
from ..records import Shift, Statistic
from ..statistics.quality import added
from .records import Records, day
from .section import Block, Cards, Cell, Missing, Note, Section, Table, Tone
from .within import within

__all__ = ["drift"]

PICTURES: Final = 24
"""Inputs that have a picture: those that moved most."""
CELLS: Final = 90
"""Windows of a strip, the newest."""


class Moved(NamedTuple):
    """An input over the period: each window that compared it, oldest first."""

    input: str
    windows: Sequence[tuple[Statistic, Shift]]

    @property
    def worst(self) -> tuple[Statistic, Shift]:
        return max(self.windows, key=lambda found: excess(found[1]))

    @property
    def beyond(self) -> int:
        return sum(excess(shift) > 1 for _, shift in self.windows)


def drift(records: Records) -> Section:
    """Those inputs first that moved most."""
    title, tested = "Drift of the inputs", [s for s in records.statistics if s.drift]
    if not tested:
        why = "No window of the period was compared with a reference."
        fix = "That begins with the first fitted version, whose training rows are the reference."
        return Section("drift", title, why, [Missing(fix, "penstock status")], "unknown")
    names = sorted({name for s in tested for name in s.drift})
    found = [Moved(name, [(s, s.drift[name]) for s in tested if name in s.drift]) for name in names]
    found.sort(key=lambda moved: (-moved.beyond, -excess(moved.worst[1]), moved.input))
    shown = tested[-CELLS:]
    rows = [_row(moved, shown) for moved in found]
    heads = ("watched", "over time", "windows beyond", "most", "on", "distance", "limit", "in the newest")
    blocks: list[Block] = [Table(heads, rows, numbers=2, brief=8)]
    cards, why = _cards(records, found)
    if cards:
        blocks.append(Cards(cards))
        rest = len(found) - PICTURES
        more = f" Of the {rest} that moved least there is no picture." if rest > 0 else ""
        blocks.append(
            Note(
                f"Bars are the reference, the line is what was asked, each in the window in which it moved most.{more}",
                drawn=True,
            )
        )
    if why:
        blocks.append(Missing(why))
    blocks += within(records)
    moved = [each for each in found if each.beyond]
    newest = [each.input for each in found if each.windows[-1][0] is tested[-1] and excess(each.windows[-1][1]) > 1]
    tone: Tone = "warn" if newest else "" if moved else "good"
    few = ", ".join(cut(each.input, 40) for each in moved[:3]) + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
    now = f"{len(newest)} still in the newest window" if newest else "none in the newest window"
    said = (
        f"{len(moved)} of {len(found)} watched were beyond their limits in some of {len(tested)} windows ({few}); {now}."
        if moved
        else f"Nothing of {len(found)} watched was beyond its limits in {len(tested)} windows."
    )
    return Section("drift", title, said, blocks, tone)


def _row(moved: Moved, shown: Sequence[Statistic]) -> tuple[str | Cell, ...]:
    statistic, shift = moved.worst
    by = {s.start: found for s, found in moved.windows}
    values = [excess(by[s.start]) if s.start in by else None for s in shown]
    words = [f"{day(s.start)}: {short(value)} times its limit" for s, value in zip(shown, values, strict=True)]
    limit, last = max(shift.critical, shift.floor or 0.0), moved.windows[-1][1]
    picture = strip(values, words, f"{moved.input}: how far it moved in each of {len(values)} windows")
    return (
        cut(moved.input),
        Cell("", html=picture),
        f"{moved.beyond} of {len(moved.windows)}" if moved.beyond else "none",
        Cell(f"{excess(shift):.2f} ×", "bad" if excess(shift) > 1 else ""),
        day(statistic.start),
        f"{shift.ks:.3f}",
        f"{limit:.3f}",
        Cell(f"{excess(last):.2f} ×", "bad" if excess(last) > 1 else ""),
    )


def _cards(records: Records, found: Sequence[Moved]) -> tuple[list[tuple[str, str]], str]:
    """Both distributions of each input, from the counts of the window in which it moved most; and why some are missing."""
    edges = {d.version: d.candidate.edges for d in records.decisions if d.candidate is not None and d.candidate.edges}
    every = min((m.every for m in records.model.monitors if isinstance(m, Drift)), default=0)
    cards, bare = [], dict[str, list[str]]()
    for moved in found[:PICTURES]:
        statistic, shift = moved.worst
        version, name = statistic.reference, moved.input
        start = min(statistic.start, statistic.end - timedelta(microseconds=every))
        now, then = counts(records, name, version, start, statistic.end)
        if now is None or then is None:
            own = name in ANSWERS  # their reference is in no partial: see services/monitoring/monitors/debut.py
            why = "it is compared with the first answers of its version" if own else "the counts of its window are gone"
            bare.setdefault(why, []).append(cut(name))
            continue
        picture = _picture(name, edges.get(version, {}).get(name), then, now)
        gone = [float(each[-1] / each.sum()) for each in (then, now)]
        said = [
            ("on", day(statistic.start)),
            ("distance", f"{shift.ks:.3f}"),
            ("PSI", f"{shift.psi:.2f}"),
            ("values", f"{shift.n:,}"),
        ]
        said += [("missing", f"{gone[0]:.1%} → {gone[1]:.1%}")] if max(gone) >= 0.0005 else []
        cards.append((cut(name), picture + key([("then", version), ("now", "asked")]) + facts(said)))
    return cards, " ".join(f"Of {', '.join(names)} there is no picture: {why}." for why, names in bare.items())


def counts(
    records: Records, name: str, version: str, start: datetime, end: datetime
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None]:
    """How often an input fell into each bin, missing values last, in a span of time; and what the reference made expect."""
    now: list[int] = []
    expected: list[int] = []
    baseline: list[int] = []
    for partial in records.partials:
        if partial.reference != version or not (to_micros(start) <= partial.start and partial.end <= to_micros(end)):
            continue
        now = added(now, partial.inputs.get(name, []))
        expected = added(expected, partial.expected.get(name, []))
        baseline = partial.baseline.get(name, baseline)
    then = expected or baseline
    if len(now) != len(then) or sum(now) <= 0 or sum(then) <= 0:
        return None, None
    return np.array(now, np.float64), np.array(then, np.float64)


def _picture(name: str, edges: Sequence[float] | None, then: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> str:
    """Few bins as pairs of bars, more as both distributions; missing values are told in words."""
    past, present = then[:-1], now[:-1]
    if not past.sum() or not present.sum():
        return '<p class="none">Every value is missing on one side.</p>'
    if edges is None or len(edges) != len(past) - 1:
        return pairs([f"bin {at + 1}" for at in range(len(past))], past, present)
    if len(edges) <= LISTED:
        return pairs(_bins(edges), past, present)
    return distributions(name, edges, past, present)


def _bins(edges: Sequence[float]) -> list[str]:
    if not edges:
        return ["any"]
    middle = [f"{short(a)} to {short(b)}" for a, b in pairwise(edges)]
    return [f"below {short(edges[0])}", *middle, f"from {short(edges[-1])}"]
