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

Values of a view with a `ttl` or a `lateness` that are right in the order of time alone are wrong: it forgets nothing, and nothing
is too late in it. A second row of an event is `unexplained`. Rows that are not there are for `audit` to find; cursors are looked
at where values differ.

Where the store lost its state, rows that were published before stay, while what comes late after the loss is processed in another
order than it would have been: before rows that are out already, or, where a block of it has yet to pass a hop, after them. The
cursor of such a row counts fewer or more events than come before it by now, or as many, but others: then those of other rows of
the partition tell of the loss. Where so many, of one or two sources, give all that was served, that is said (`late`); else it is
`unexplained`.

Nothing here uses the kernel that the stream runs: each entity's events are walked through once in either order (`walk`), and
aggregates kept up exactly (`running`), which the tests compare with `replay`, the written-down meaning. Numbers that are added up
may differ by a relative 1e-9, for they are added in another order; all others must be the same.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..event import Event, from_micros
from ..feature import View
from ..topology import Topology
from .history import Past
from .recompute import timely
from .running import ESTIMATE, OFF, SAME
from .walk import Order, Walked, gives, walk

__all__ = ["CAUSES", "Difference", "Judge", "Report", "Served", "verify"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CAUSES: Final = ("version", "late", "expiry", "estimate", "unarchived", "unexplained")
KEPT: Final = 1_000
"""Differences of one cause that a report keeps in full; all are counted."""
TRIED: Final = 100
"""Ways in which a row may have been put elsewhere that are tried: each is a walk through the events of its entity."""
FARTHEST: Final = 20
"""Events by which one source is moved where two are."""


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
    archived: bool = True
    """Whether the row's event is in the tables: without it nobody can say of whom the row is, and `entity` is None."""


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


def verify(
    topology: Topology,
    past: Past,
    rows: Sequence[Served],
    sample: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
) -> Report:
    """Compare `sample` archived rows (None: all), drawn with `seed`, with a recomputation from `past`. `progress` is told what is
    being done, how many rows of how many are."""
    report = Report(of=sum(map(len, rows)), events=len(past))
    drawn = np.arange(report.of)
    if sample is not None and sample < report.of:
        drawn = np.sort(np.random.default_rng(seed).choice(report.of, sample, replace=False))
    judge, first = Judge(topology, past, rows, progress), 0
    for served in rows:
        own = drawn[(drawn >= first) & (drawn < first + len(served))] - first
        first += len(served)
        here = judge.events[served.event][own]
        kept, lost = own[here >= 0], own[here < 0]
        report.rows += len(own)
        differing: set[int] = set()
        for key, view in judge.read(served.event):
            if view.name not in report.views:
                report.views.append(view.name)
            report.values += len(view.columns) * len(own)
            for found in (judge.why(key, view, served, kept, report.causes), judge.lost(view, served, lost)):
                for row, differences in found:
                    differing.update([row] if differences else [])
                    for difference in differences:
                        report.add(difference)
        report.differing += len(differing)
    return report


class Judge:
    """Says of served values whether they are those that the archived events give, and why not."""

    def __init__(
        self,
        topology: Topology,
        past: Past,
        rows: Sequence[Served],
        progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
    ) -> None:
        self.topology, self.past, self.progress = topology, past, progress
        self.served = {served.event: served for served in rows}
        self.twice = {served.event: _twice(served) for served in rows}
        """By kind which rows have the event of another one before them."""
        self.events = {served.event: self._asked(served) for served in rows}
        """By kind the event of each row; -1 where the tables have none at its position, or it has a row already."""
        self._ends: dict[str, int] = {}
        self._timely: dict[tuple[str, int], Ints] = {}
        self._upset: dict[str, set[int]] = {}

    def read(self, event: Event) -> list[tuple[str, View]]:
        """The views in the rows of an event, each with the key by which it is kept."""
        wanted = self.topology.reads[event]
        return [(hop.key, view) for hop in self.topology.hops for view in hop.views if view in wanted]

    def _asked(self, served: Served) -> Ints:
        recorded, start = self.past.recorded[served.event], self.past.starts[served.event]
        places = {at: i for i, at in enumerate(zip(recorded.partitions.tolist(), recorded.offsets.tolist(), strict=True))}
        found = [places.get((int(partition), int(offset)), -1) for partition, offset in served.sources.tolist()]
        same = [i >= 0 and recorded.ids[i] == name for i, name in zip(found, served.ids, strict=True)]
        events = np.array([start + i if ok else -1 for i, ok in zip(found, same, strict=True)], np.int64)
        return np.where(self.twice[served.event], -1, events)

    def why(
        self, key: str, view: View, served: Served, rows: Ints, counted: Mapping[str, int] | None = None
    ) -> Iterator[tuple[int, list[Difference]]]:
        """The differences of those of the `rows` that have any in `view`. `counted` says how many of each cause there are
        already: beyond KEPT the events behind a difference are not looked up."""
        asked, columns = self.events[served.event][rows], np.array(view.columns)
        told = np.column_stack([served.columns.get(name, np.full(len(served), np.nan))[rows] for name in view.columns])
        whole = all(name in served.columns for name in view.columns)
        # The order of time forgets nothing, and nothing is too late in it. Of a late row nobody can say what was: its entity may
        # have been let go already.
        bounded = ~self.past.late[asked] & (view.ttl is not None or view.lateness is not None)

        def walked(order: Order, some: Ints, doing: str) -> tuple[Walked, Ints]:
            """Of some of the rows, and whether all that was served is what this gives (n)."""
            said = f"{view.name}: {doing}"
            self.progress(said, 0, len(some))
            found = walk(
                self.past, self.past.history(key), view, order, asked[some], told[some],
                lambda done: self.progress(said, done, len(some)),
            )  # fmt: skip
            self.progress(said, len(some), len(some))
            return found, (found.beside != OFF).all(axis=1)

        by_time, agrees_by_time = walked("time", np.arange(len(rows)), "recomputing rows")
        wrong = np.flatnonzero((by_time.beside != SAME).any(axis=1) | bounded)
        others = {i: said for i in wrong.tolist() if (said := _version(view, served.views[int(rows[i])], whole))}
        exact = ((by_time.beside == SAME) | (by_time.beside == ESTIMATE)).all(axis=1) & ~bounded
        doubted = np.array([i for i in wrong.tolist() if i not in others and not exact[i]], np.int64)
        processed, agrees = walked("position", doubted, "looking for causes")
        begun = np.zeros(len(doubted), bool)
        if view.ttl is not None:
            begun[~agrees] = walked("forgetting", doubted[~agrees], "looking for what was forgotten")[1]
        place = {i: n for n, i in enumerate(doubted.tolist())}
        for i in wrong.tolist():
            row, event, off = int(rows[i]), int(asked[i]), by_time.beside[i] != SAME
            again = dict(zip(view.columns, by_time.values[i].tolist(), strict=True))
            one = _Row(self, key, view, served, row, event, again, bool(agrees_by_time[i]), counted or {})
            names = columns[off].tolist()
            if i in others:
                yield row, one.differences("version", others[i], names)
            elif i not in place:
                yield row, one.differences("estimate", "an estimate, within its error", names)
            elif not names and (agrees[place[i]] or begun[place[i]]):
                continue
            elif agrees[place[i]] and processed.expired[place[i]]:
                yield row, one.differences("expiry", "the newest of its events was older than the view's ttl", names)
            elif agrees[place[i]]:
                yield row, one.late(names)
            elif begun[place[i]]:
                yield row, one.differences("expiry", "its events were forgotten after the view's ttl of quiet", names)
            else:
                lacks = processed.beside[place[i]] == OFF
                yield row, one.left(columns[off & ~lacks].tolist(), columns[(off | bounded[i]) & lacks].tolist())

    def timely(self, key: str, view: View, entity: int) -> Ints:
        """The events of an entity that came in time to change a view."""
        if (view.name, entity) not in self._timely:
            own = self.past.history(key).of(entity)
            self._timely[view.name, entity] = own[timely(self.past, view, own)]
        return self._timely[view.name, entity]

    def missing(self, key: str, served: Served, row: int, event: int) -> int:
        """How many events the cursor of a row counts beyond those that are archived and come before it (0 when it has none). In
        the order of one log it is never less: then the row was published before the store lost its state, with its order."""
        history, cursor = self.past.history(key), served.cursors.get(key)
        if cursor is None or history.entities[event] < 0:
            return 0
        return int(cursor[row, 1]) - history.count(event)

    def upset(self, key: str, event: int) -> bool:
        """Whether the cursors of some rows of the event's partition at a hop tell that the store has lost its state there."""
        history = self.past.history(key)
        if key not in self._upset:
            self._upset[key] = {
                int(history.partitions[event])
                for served in self.served.values()
                for row, event in enumerate(self.events[served.event].tolist())
                if event >= 0 and self.missing(key, served, row, event) and not self.behind(key, event)
            }
        return int(history.partitions[event]) in self._upset[key]

    def lost(self, view: View, served: Served, rows: Ints) -> Iterator[tuple[int, list[Difference]]]:
        """The differences of rows whose events are not in the tables, or have a row already."""
        for row in rows.tolist():
            partition, offset = served.sources[row].tolist()
            behind = offset > self.past.recorded[served.event].ends.get(partition, -1)
            because = f"its event, {served.event.topic}/{partition} at {offset}, is not in the table{' yet' if behind else ''}"
            if twice := bool(self.twice[served.event][row]):
                because = "its event has a row already"
            cause = "unarchived" if behind and not twice else "unexplained"
            time = from_micros(int(served.times[row]))
            yield (
                row,
                [
                    Difference(
                        name, served.ids[row], None, time, _known(float(column[row])), None, cause, because, archived=False
                    )
                    for name in view.columns
                    if (column := served.columns.get(name)) is not None
                ],
            )

    def behind(self, key: str, event: int) -> bool:
        """Whether a table that feeds a hop ends before an event."""
        if key not in self._ends:
            ends = []
            for kind, recorded in self.past.recorded.items():
                if key in self.topology.routes[kind].path:
                    numbers = recorded.ends or [0]
                    ends += [int(recorded.moved[recorded.partitions == number].max(initial=0)) for number in numbers]
            self._ends[key] = min(ends, default=0)
        return self._ends[key] < int(self.past.moved[event])


@dataclass(frozen=True)
class _Row:
    """One row of which values in a view differ from what all archived events give."""

    judge: Judge
    key: str
    view: View
    served: Served
    row: int
    event: int
    again: Mapping[str, float]
    near: bool
    """Whether they differ by no more than the order of addition may make."""
    counted: Mapping[str, int]

    def differences(self, cause: str, because: str, names: Sequence[str], events: Ints | None = None) -> list[Difference]:
        """Of these values; `events` are behind them."""
        past, served, history = self.judge.past, self.served, self.judge.past.history(self.key)
        spoken = [] if events is None or self.counted.get(cause, 0) >= KEPT else [past.spoken(e) for e in events.tolist()]
        entity = int(history.entities[self.event])
        whose, time = history.names[entity] if entity >= 0 else None, from_micros(int(served.times[self.row]))
        told = {name: float(served.columns[name][self.row]) for name in names if name in served.columns}
        return [
            Difference(c, served.ids[self.row], whose, time, _known(told.get(c)), _known(self.again[c]), cause, because, spoken)
            for c in names
        ]

    def late(self, names: Sequence[str]) -> list[Difference]:
        """Values that are right for what had been processed: it is not what lies before the row in time. Only what is late has
        another place in the one order than in the other, so that is all there is to look at, unless the row is late itself."""
        past, event, history = self.judge.past, self.event, self.judge.past.history(self.key)
        entity, late = int(history.entities[event]), bool(past.late[event])
        own = history.of(entity) if late else history.late(entity)
        there = past.by_position[own] < past.by_position[event]
        if self.view.lateness is not None:
            there &= np.isin(own, self.judge.timely(self.key, self.view, entity))
        before = past.by_time[own] < past.by_time[event]
        missed, early = own[before & ~there], own[there & ~before]
        if len(missed):
            because, events = f"{len(missed)} of the events before it in time came after it", missed
        elif len(early):
            because, events = f"it came late itself: {len(early)} later events were there before it", early
        elif self.near:
            return []
        else:
            because, events = "of the events before it some of one time came in another order, as they came late", own[there]
            events = events[past.late[events]]
        return self.differences("late", because, names, np.sort(events))

    def left(self, right: Sequence[str], wrong: Sequence[str]) -> list[Difference]:
        """Values that no order gives which is known, of a row of which the others are `right`."""
        missing = self.judge.missing(self.key, self.served, self.row, self.event)
        if missing > 0 and self.judge.behind(self.key, self.event):
            because = f"{missing} events that its cursor counts are not in the tables yet"
            return self.differences("unarchived", because, [*right, *wrong])
        late = self.late(right) if right else []
        moved = self._moved(missing) if missing or self.judge.upset(self.key, self.event) else None
        if moved is None:
            return late + self.differences("unexplained", "no events that can have been before it give this value", wrong)
        counted = f"its cursor counts {abs(missing)} {'fewer' if missing < 0 else 'more'} events than come before it"
        counted = counted if missing else "its cursor counts as many events as come before it, but others"
        return late + self.differences(
            "late", f"{counted}: the store had lost its state, and order changed with it", wrong, moved
        )

    def _moved(self, missing: int) -> Ints | None:
        """The events of its entity that were on the other side of the row than the log alone says, where its cursor counts
        `missing` more (0: as many, of others). What a row knows is all of each source up to some place, and of its own source all
        that is before it: in the line, or in its topic, as events of one effective time may have been released apart. So up to
        two others are moved on or back until as many are counted and give all values of the row. None where none do."""
        past, history, event = self.judge.past, self.judge.past.history(self.key), self.event
        line, at, preceding = history.line(event), history.count(event), history.preceding(event)
        own = history.of(int(history.entities[event]))
        sources = past.ranks[line] * (past.partitions + 1) + past.sources[line]
        others = np.unique(sources[sources != sources[at]]).tolist()
        back = {source: line[:at][sources[:at] == source][::-1] for source in others}
        on = {source: line[at + 1 :][sources[at + 1 :] == source] for source in others}
        told = np.array([self.served.columns.get(n, np.full(len(self.served), np.nan))[self.row] for n in self.view.columns])
        mine = line[sources == sources[at]]  # events are numbered in the order of their source
        ahead, behind = np.setdiff1d(mine[mine > event], line[at:]), np.setdiff1d(mine[mine < event], line[:at])
        steps = sorted(range(-FARTHEST, FARTHEST + 1), key=abs)
        asides = [(line[:0], line[:0])] + [(ahead, behind)] * bool(len(ahead) or len(behind))
        tried: list[set[tuple[int, ...]]] = [set() for _ in asides]
        for (seen, (first, last)), (one, other) in itertools.product(
            zip(tried, asides, strict=True), itertools.combinations_with_replacement(others, 2)
        ):
            for step in steps if one != other else [0]:
                moves = [(one, step), (other, missing + len(first) - len(last) - step)]
                gone = np.concatenate([first, *(back[source][:-by] if by < 0 else line[:0] for source, by in moves)])
                come = np.concatenate([last, *(on[source][:by] if by > 0 else line[:0] for source, by in moves)])
                moved = np.intersect1d(np.append(gone, come), own)
                if len(gone) - len(come) != -missing or tuple(moved.tolist()) in seen or len(seen) >= TRIED:
                    continue
                seen.add(tuple(moved.tolist()))
                events = np.setxor1d(preceding, moved)
                beside = gives(past, self.view, events[np.argsort(past.by_position[events])], event, told)
                if (beside != OFF).all():
                    return moved
        return None


def _twice(served: Served) -> npt.NDArray[np.bool_]:
    """Which rows have the event of another one before them."""
    again = np.ones(len(served), bool)
    again[np.unique(served.sources, axis=0, return_index=True)[1]] = False
    return again


def _version(view: View, views: Mapping[str, str], whole: bool) -> str | None:
    """How another definition of the view made a row, if one did. `whole`: whether the table has all of its columns."""
    made = views.get(view.name)
    if made is not None and made != view.fingerprint:
        return f"made by {view.name} {made}; the project's is {view.fingerprint}"
    if made is None and views:
        return "the definitions that made the row had no such view"
    if made is None and not whole:
        return "the table has no such column: these rows are of another definition"
    return None


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
