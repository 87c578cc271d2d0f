"""Verification: served rows against a recomputation from the archived events, and a cause for every difference. Pure.

Each value is first computed as a person would join it: the entity's archived events that lie before the row's event in time.
Where the served value is another one, it is sought, in this order:

    version      the row says that another definition of the view made it
    late         the value is exact for the events that had been processed when the row was made, in the order in which they
                 were (see `penstock.order`): some that lie before it came after it, or it came late itself
    expiry       the value is exact where the view forgets: it is missing, or begins anew, after `ttl` of quiet
    estimate     the value is one of those that are estimates when they are of many (distinct, quantile, top), and near enough
    unarchived   the row's cursor counts events that are not in the tables yet
    unexplained  none of these: the tables, the stream or this code is wrong

One thing is not told apart from a fault: where the store lost its state after a source had been passed, rows that were published
before stay, while what came late may be processed in another order when the work is done again. Where the cursor of such a row
counts fewer events than come before it by now, that is said (`late`); where as many, but others, it is `unexplained`.

Nothing here uses the kernel that the stream runs. Plain aggregates are cut out of sorted columns by binary search; all others,
and every value that differs, come from `replay`, the written-down meaning. Numbers that are added up may
differ by a relative 1e-9, for they are added in another order; all others must be the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..event import Event, from_micros
from ..feature import View
from ..topology import Topology
from .history import Past
from .recompute import (
    ESTIMATED,
    agrees,
    close,
    cut,
    derive,
    effective_of,
    expired,
    nearly,
    parts_of,
    plain,
    timely,
    tolerance_of,
    value,
    values,
)

__all__ = ["CAUSES", "Difference", "Judge", "Report", "Served", "verify"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CAUSES: Final = ("version", "late", "expiry", "estimate", "unarchived", "unexplained")
KEPT: Final = 1_000
"""Differences of one cause that a report keeps in full; all are counted."""


@dataclass(frozen=True)
class Served:
    """Archived rows of one event: parallel columns. `columns` holds what the table has (NaN where missing)."""

    event: Event
    ids: Sequence[str]
    times: Ints
    sources: Ints
    """(n, 2): partition and offset of the event."""
    cursors: Mapping[str, Ints]
    """By hop (n, 2): partition, events before; -1 where the row did not read there."""
    columns: Mapping[str, Floats]
    views: Sequence[Mapping[str, str]]
    """View -> fingerprint, as the rows say; empty for rows of before they said so."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Difference:
    """One value that is not what the archived events give, and why."""

    column: str
    id: str
    entity: str | None
    time: datetime
    served: float | None
    recomputed: float | None
    """By all that is archived, in the order of time."""
    cause: str
    because: str
    events: Sequence[Mapping[str, Any]] = ()
    """The late ones (see `Past.spoken`)."""


@dataclass
class Report:
    """What was compared, and what came of it: counts of values by cause, of rows, and differences in full (KEPT of each)."""

    rows: int = 0
    of: int = 0
    """Rows archived; `rows` of these were drawn."""
    values: int = 0
    events: int = 0
    views: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    differing: int = 0
    """Rows with any difference."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def same(self) -> int:
        return self.values - self.causes.total()

    def add(self, found: Difference) -> None:
        self.causes[found.cause] += 1
        if self.causes[found.cause] <= KEPT:
            self.differences.append(found)


def verify(topology: Topology, past: Past, rows: Sequence[Served], sample: int | None = None, seed: int = 0) -> Report:
    """Compare `sample` archived rows (None: all), drawn with `seed`, with a recomputation from `past`."""
    report = Report(of=sum(map(len, rows)), events=len(past))
    drawn = np.arange(report.of)
    if sample is not None and sample < report.of:
        drawn = np.sort(np.random.default_rng(seed).choice(report.of, sample, replace=False))
    judge, first = Judge(topology, past, rows), 0
    for served in rows:
        own = drawn[(drawn >= first) & (drawn < first + len(served))] - first
        first += len(served)
        _Comparison(topology, judge, served, own, report).run()
    return report


class _Comparison:
    """The rows of one event that were drawn."""

    def __init__(self, topology: Topology, judge: Judge, served: Served, drawn: Ints, report: Report) -> None:
        self.past, self.served, self.report = judge.past, served, report
        self.topology, self.judge = topology, judge
        here = judge.events[served.event][drawn]
        self.drawn, self.here = drawn[here >= 0], here[here >= 0]
        """Rows and the events that asked for them."""
        report.rows += len(drawn)
        self.lost = drawn[here < 0]

    def run(self) -> None:
        differing: set[int] = set()
        for hop in self.topology.hops:
            for view in hop.views:
                if view in self.topology.reads[self.served.event]:
                    if view.name not in self.report.views:
                        self.report.views.append(view.name)
                    differing |= self._view(hop.key, view)
        self.report.differing += len(differing)

    def _view(self, key: str, view: View) -> set[int]:
        """Compare the values of one view; the rows that differ."""
        again = self._recomputed(key, view)
        given = {name: self.served.columns.get(name) for name in view.columns}
        self.report.values += len(view.columns) * (len(self.drawn) + len(self.lost))
        wrong: dict[int, list[str]] = {}
        parts = parts_of(view)
        for name in view.columns:
            column = given[name]
            told = np.full(len(self.drawn), np.nan) if column is None else column[self.drawn]
            off = ~np.isclose(told, again[name], rtol=tolerance_of(parts.get(name)), atol=0.0, equal_nan=True)
            for i in np.flatnonzero(off).tolist():
                wrong.setdefault(i, []).append(name)
        differing = set()
        for i, names in wrong.items():
            row, event = int(self.drawn[i]), int(self.here[i])
            values = {name: float(again[name][i]) for name in names}
            found = self.judge.why(key, view, row, event, values)
            differing |= {row} if found else set()
            for difference in found:
                self.report.add(difference)
        for row in self.lost.tolist():
            differing.add(row)
            for difference in self.judge.lost(view, row, self.served):
                self.report.add(difference)
        return differing

    def _recomputed(self, key: str, view: View) -> dict[str, Floats]:
        """All values of a view for the drawn rows, from what lies before each in time."""
        past, history = self.past, self.past.history(key)
        whose, before, moments = history.entities[self.here], past.by_time[self.here], past.times[self.here]
        found: dict[str, Floats] = {}
        for name, part in parts_of(view).items():
            if plain(part):
                found[name] = cut(past, history, part, whose, before, moments)
            else:
                rows = zip(whose.tolist(), before.tolist(), moments.tolist(), strict=True)
                many = [value(past, part, history.until(entity, place), moment) for entity, place, moment in rows]
                found[name] = np.array(many, np.float64)
        if view.derived:
            lines = [dict(zip(found, line, strict=True)) for line in zip(*(v.tolist() for v in found.values()), strict=True)]
            made = [derive(view, line, past.typed(event)) for line, event in zip(lines, self.here.tolist(), strict=True)]
            found |= {repr(item): np.array([each[repr(item)] for each in made], np.float64) for item in view.derived}
        return found


class Judge:
    """Says why a served value is not the one that all archived events give."""

    def __init__(self, topology: Topology, past: Past, rows: Sequence[Served]) -> None:
        self.topology, self.past = topology, past
        self.served = {served.event: served for served in rows}
        self.events = {served.event: self._asked(served) for served in rows}
        """By kind the event of each row; -1 where the tables have none at its position."""

    def _asked(self, served: Served) -> Ints:
        recorded, start = self.past.recorded[served.event], self.past.starts[served.event]
        places = {at: i for i, at in enumerate(zip(recorded.partitions.tolist(), recorded.offsets.tolist(), strict=True))}
        found = [places.get((int(partition), int(offset)), -1) for partition, offset in served.sources.tolist()]
        same = [i >= 0 and recorded.ids[i] == name for i, name in zip(found, served.ids, strict=True)]
        return np.array([start + i if ok else -1 for i, ok in zip(found, same, strict=True)], np.int64)

    def why(self, key: str, view: View, row: int, event: int, by_time: Mapping[str, float]) -> list[Difference]:
        """The differences of a row in `view`, of which `by_time` has the values that all archived events give; none when the
        values agree after all, which sums of great numbers may that nearly cancel."""
        served, history = self.served[self.past.topology.events[int(self.past.ranks[event])]], self.past.history(key)
        told = {name: float(column[row]) for name in view.columns if (column := served.columns.get(name)) is not None}
        entity = int(history.entities[event])

        def differences(
            cause: str, because: str, events: Ints | None = None, names: Collection[str] = by_time.keys()
        ) -> list[Difference]:
            spoken = [] if events is None else [self.past.spoken(e) for e in events.tolist()]
            whose = history.names[entity] if entity >= 0 else None
            time = from_micros(int(served.times[row]))
            return [
                Difference(c, served.ids[row], whose, time, _known(told.get(c)), _known(by_time[c]), cause, because, spoken)
                for c in by_time
                if c in names
            ]

        made = served.views[row].get(view.name)
        if made is not None and made != view.fingerprint:
            return differences("version", f"made by {view.name} {made}; the project's is {view.fingerprint}")
        if made is None and served.views[row]:
            return differences("version", "the definitions that made the row had no such view")
        if made is None and len(told) < len(view.columns):
            return differences("version", "the table has no such column: these rows are of another definition")
        before, processed = history.until(entity, int(self.past.by_time[event])), history.preceding(event)

        def late(names: Collection[str] = by_time.keys()) -> list[Difference]:
            counted = processed[timely(self.past, view, processed)]
            missed, early = np.setdiff1d(before, counted), np.setdiff1d(counted, before)
            if not len(missed) and not len(early) and agrees(self.past, view, told, before, event):
                return []
            because, events = _late(missed, early)
            return differences("late", because, processed[self.past.late[processed]] if events is None else events, names)

        if self._estimates(view, told, by_time, before, event):
            return differences("estimate", "an estimate, within its error")
        if agrees(self.past, view, told, processed, event):
            effective = effective_of(self.past, processed, int(self.past.times[event]))
            if expired(self.past, view, processed, effective):
                return differences("expiry", "the newest of its events was older than the view's ttl")
            return late()
        kept = _unforgotten(self.past, view, processed, event)
        if kept is not None and agrees(self.past, view, told, kept, event):
            return differences("expiry", f"{len(processed) - len(kept)} events were forgotten after the view's ttl")
        missing = self.missing(key, event)
        if missing > 0 and self._behind(key, event):
            return differences("unarchived", f"{missing} events that its cursor counts are not in the tables yet")
        again, parts = values(self.past, view, processed, int(self.past.times[event]), self.past.typed(event)), parts_of(view)
        right = {name for name in by_time if name in told and close(told[name], again[name], part=parts.get(name))}
        if missing < 0:
            because = f"{-missing} of the events before it came after it: the store had lost its state, and went back behind it"
            return late(right) + differences("late", because, names=by_time.keys() - right)
        because = "no events that can have been before it give this value"
        return late(right) + differences("unexplained", because, names=by_time.keys() - right)

    def _estimates(self, view: View, told: Mapping[str, float], by_time: Mapping[str, float], before: Ints, event: int) -> bool:
        """Whether all values that differ are estimates of the exact ones."""
        parts, moment = parts_of(view), int(self.past.times[event])
        return all(
            name in told
            and name in parts
            and parts[name].kind in ESTIMATED
            and nearly(self.past, parts[name], told[name], exact, before, moment)
            for name, exact in by_time.items()
        )

    def missing(self, key: str, event: int) -> int:
        """How many events the cursor of a row counts beyond those that are archived and come before it (0 when it has none). In
        the order of one log it is never less: then the row was published before the store lost its state, with its order."""
        served = self.served[self.past.topology.events[int(self.past.ranks[event])]]
        history, cursor = self.past.history(key), served.cursors.get(key)
        row = np.flatnonzero(self.events[served.event] == event)
        if cursor is None or not len(row) or history.entities[event] < 0:
            return 0
        return int(cursor[row[0], 1]) - history.count(event)

    def processed(self, key: str, view: View, row: int, event: int) -> tuple[Ints, bool]:
        """What of its entity had been processed before a row, in order, and whether that gives the values served."""
        served = self.served[self.topology.events[int(self.past.ranks[event])]]
        told = {name: float(column[row]) for name in view.columns if (column := served.columns.get(name)) is not None}
        found = self.past.history(key).preceding(event)
        return found, agrees(self.past, view, told, found, event)

    def lost(self, view: View, row: int, served: Served) -> list[Difference]:
        """The differences of a row whose event is not in the tables."""
        partition, offset = served.sources[row].tolist()
        behind = offset > self.past.recorded[served.event].ends.get(partition, -1)
        cause = "unarchived" if behind else "unexplained"
        because = f"its event, {served.event.topic}/{partition} at {offset}, is not in the table{' yet' if behind else ''}"
        time = from_micros(int(served.times[row]))
        return [
            Difference(name, served.ids[row], None, time, _known(float(column[row])), None, cause, because)
            for name in view.columns
            if (column := served.columns.get(name)) is not None
        ]

    def _behind(self, key: str, event: int) -> bool:
        """Whether a table that feeds a hop ends before an event."""
        ends = []
        for kind, recorded in self.past.recorded.items():
            if key in self.topology.routes[kind].path:
                numbers = recorded.ends or [0]
                ends += [int(recorded.moved[recorded.partitions == number].max(initial=0)) for number in numbers]
        return min(ends, default=0) < int(self.past.moved[event])


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _late(missed: Ints, early: Ints) -> tuple[str, Ints | None]:
    """Why a row differs from what is known now, and by which events; None where they only came in another order."""
    if len(missed):
        return f"{len(missed)} of the events before it in time came after it", missed
    if len(early):
        return f"it came late itself: {len(early)} later events were there before it", early
    return "of the events before it some of one time came in another order, as they came late", None


def _unforgotten(past: Past, view: View, processed: Ints, event: int) -> Ints | None:
    """What is left of events when the view forgets an entity after its ttl of quiet; None where nothing was forgotten."""
    if view.ttl is None:
        return None
    times = np.maximum.accumulate(np.append(past.times[processed], past.times[event]))
    quiet = np.flatnonzero(np.diff(times) > view.ttl) + 1
    return processed[quiet[-1] :] if len(quiet) else None
