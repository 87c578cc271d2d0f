"""Features in retrospect: the rows of a view over a history that is given as one DataFrame per event, without any server.

The kernel is the stream's (`window`), and so is the order (`penstock.order`), as if each event had come in its time: ties of
different events in the order in which their frames are given, ties of one event by its id, else as given. A row that *is* an
event covers those before it; a row at a time t covers events with a time strictly before t, none at t itself. With
`order="arrival"` the frames say where each event lay in its topic (`partition`, `offset`, as in the offline tables), and a row
covers what had *arrived* before it, in the order in which the stream merged them as long as it passed none of their partitions.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from ..aggregate import Condition, code
from ..errors import PenstockError
from ..event import Column, Event, event_of
from ..feature import View, view_of
from ..order import order_of
from ..windows.panes import Panes
from ..windows.plan import Plan
from ..windows.shape import Shape, Track
from . import columns as frames
from .columns import MISSING

__all__ = ["compute"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STATE_BYTES = 64 << 20
"""Entities are worked through in groups, and the window state of one group is at most this large (or one entity's)."""
AT_ONCE = 65_536
"""Events in one call of the kernel: bounds what it logs of its tiles."""
NOBODY = cast(Event, SimpleNamespace(type=object, columns={}))
"""Stands for the event where rows are not about one: derived features that take an event are missing then."""


class _Part(NamedTuple):
    """Rows of one kind on their way through the kernel; parallel arrays of n rows."""

    said: str
    frame: pd.DataFrame
    event: Event
    """What these rows are, or how the rows asked for are spelled."""
    times: Ints
    places: Ints
    """The effective time: the time, or what time it was in the topic when this arrived."""
    turns: Ints
    """The last word: where it lies in its topic, or in its frame."""
    rank: int
    kind: int
    """Index in the shape's events; -1: it changes nothing."""
    wanted: bool


def compute(
    view: type,
    events: Mapping[type, pd.DataFrame],
    at: pd.DataFrame | type,
    *,
    time: str | None = None,
    order: Literal["time", "arrival"] = "time",
) -> pd.DataFrame:
    """The features of a view at rows of (key, time), from plain DataFrames, by the kernel that the stream runs.

    `events` has one frame per event that the view aggregates: the columns it needs under the names of the declaration, rows in
    any order. `at` asks:

    - a DataFrame with the columns that name the entity (as one of the events of `by` spells them) and a time: in the column
      `time`, else named as that event's time, else "time". If it has all numeric columns of that event, derived features that
      take the event are computed as for the event; otherwise they are missing.
    - an event, such as `Payment`: one row for each row of `events[Payment]`, as the stream would give it.

    Returns float64 columns "View.feature", one row per row asked for, in its order and with its index. An entity that is not
    known, or whose name is missing, has the values of one to which nothing has happened (counts 0, means NaN); a row without
    a time has NaN. Bits are those of the stream. Memory beside the frames: some 130 MB per million events for five windows.

    PenstockError says which frame lacks what, or holds what the stream would refuse.

    >>> import pandas as pd, penstock as ps
    >>> @ps.event("payments")
    ... class Payment:
    ...     card_id: ps.Key[str]
    ...     amount: float
    ...     paid_at: ps.EventTime
    >>> @ps.features(by=Payment.card_id)
    ... class Card:
    ...     spend_24h = ps.sum(Payment.amount, over="24h")
    >>> hours = lambda *h: pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(h, unit="h")
    >>> paid = pd.DataFrame({"card_id": ["c", "c"], "amount": [10.0, 5.0], "paid_at": hours(0, 1)})
    >>> asked = pd.DataFrame({"card_id": ["c", "c", "d"], "time": hours(1, 2, 2)})
    >>> ps.compute(Card, {Payment: paid}, at=asked)["Card.spend_24h"].tolist()
    [10.0, 15.0, 0.0]
    """
    if order not in ("time", "arrival"):
        raise PenstockError(f"order={order!r} is no order", 'order="time"   or order="arrival"')
    declared = view_of(view)
    given = {event_of(cls): frame for cls, frame in events.items()}
    shape = Shape([declared])
    plan = Plan(shape)
    parts = _parts(declared, shape, given, at, time, order)
    asked = parts[-1]
    windows = _windows(shape, parts)
    about = asked.event if isinstance(at, type) else _about(declared, at)
    values = plan.complete(windows, about, _decoded(declared, about, asked.frame))
    values[asked.times == MISSING] = np.nan
    return pd.DataFrame(values, index=asked.frame.index, columns=list(plan.columns))


# --- reading frames ------------------------------------------------------------------------------------------------------


def _parts(
    view: View, shape: Shape, given: Mapping[Event, pd.DataFrame], at: pd.DataFrame | type, time: str | None, order: str
) -> list[_Part]:
    """What goes through the kernel: every event that names an entity of the view, and last the rows asked for."""
    for event in view.updates:
        if event not in given:
            raise PenstockError(
                f"{view.name} aggregates {event!r}, and no frame of it is given",
                f"events={{..., {event!r}: frame}}   or an empty one, {event!r}: pd.DataFrame(), if there were none",
            )
    parts = []
    for rank, (event, frame) in enumerate(given.items()):
        if event not in view.by or (isinstance(frame, pd.DataFrame) and not len(frame) and at is not event.type):
            continue
        said = f"the frame of {event!r}"
        times = frames.micros(frames.place(frame, event.time.name, said), repr(event.time))
        if (times == MISSING).any():
            raise PenstockError(
                f"{event.time!r} is missing in {int((times == MISSING).sum()):,} rows, and an event has a time",
                f'frame.dropna(subset=["{event.time.name}"])',
            )
        places, turns = times, np.arange(len(frame))
        if order == "arrival":
            places, turns = frames.arrived(times, *(frames.place(frame, n, said) for n in ("partition", "offset")))
        kind = shape.events.index(event) if event in shape.events else -1
        parts.append(_Part(said, frame, event, times, places, turns, rank, kind, at is event.type))
    if not isinstance(at, type):
        event, moment = _spelled(view, at, time)
        times = frames.micros(frames.place(at, moment, "`at`"), f"`at`, column {moment},")
        return [*parts, _Part("`at`", at, event, times, times, np.arange(len(at)), -1, -1, True)]
    parts.sort(key=lambda part: part.wanted)
    if not parts or not parts[-1].wanted:
        known = ", ".join(repr(event) for event in given if event in view.by) or "none"
        raise PenstockError(
            f"rows are asked for each {event_of(at)!r}, which names no entity of {view.name} or has no frame",
            f"give one of: {known}",
        )
    return parts


def _spelled(view: View, at: pd.DataFrame, time: str | None) -> tuple[Event, str]:
    """The event as which the rows asked for name their entity (of several the one of which they have most), and their time."""
    if not isinstance(at, pd.DataFrame):
        raise PenstockError(f"`at` is a {type(at).__name__}", "give a DataFrame of rows, or an event: at=Payment")
    there = set(at.columns)
    spelled = [event for event, columns in view.by.items() if there.issuperset(c.name for c in columns)]
    if not spelled:
        ways = " or ".join("(" + ", ".join(c.name for c in columns) + ")" for columns in view.by.values())
        raise PenstockError(f"`at` has no column that names an entity of {view.name}", f"it needs {ways}")
    event = max(spelled, key=lambda e: len(there.intersection(e.columns)))
    moment = time or next((name for name in (event.time.name, "time") if name in there), event.time.name)
    return event, moment


def _about(view: View, at: pd.DataFrame) -> Event:
    """The event whose derived features can be computed at these rows."""
    hints = {item.event_hint for item in view.derived if item.wants_event}
    for event in view.by:
        if hints & {event.type, event.type.__name__} and {c.name for c in _numeric(event)} <= set(at.columns):
            return event
    return NOBODY


def _numeric(event: Event) -> list[Column]:
    return [column for column in event.columns.values() if column.kind == "number"]


def _decoded(view: View, about: Event, frame: pd.DataFrame) -> Sequence[Any]:
    """The rows as objects with the numeric columns of an event: what derived features take, and nobody else needs."""
    if about is NOBODY or not any(item.wants_event for item in view.derived):
        return ()
    return _objects({c.name: frames.numbers(frames.place(frame, c.name, "`at`"), c).tolist() for c in _numeric(about)})


def _objects(columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    row: Any = msgspec.defstruct("Row", list(columns), gc=False)
    return list(map(row, *columns.values()))


def _tracks(shape: Shape, part: _Part) -> Floats:
    """What `Shape.values` gives for decoded events, for a frame of them: (n, tracks) values, NaN where missing."""
    decoded: list[Any] = []

    def values(track: Track) -> Floats:
        if track.condition.predicate is not None:  # a function of an event: as in the stream, one by one
            if not decoded:
                decoded.extend(_events(part))
            return track.values(decoded)
        found = np.ones(len(part.frame)) if track.column is None else column_of(track.column)
        if track.condition.column is not None:
            found = np.where(_within(track.condition, column_of(track.condition.column)), found, np.nan)
        return found

    def column_of(column: Column) -> Floats:
        series = frames.place(part.frame, column.name, part.said)
        return frames.codes(series, column) if column.kind == "text" else frames.numbers(series, column)

    return shape.filled(part.event if part.kind >= 0 else NOBODY, len(part.frame), values)


def _within(condition: Condition, values: Floats) -> npt.NDArray[np.bool_]:
    """Whether events are of the category that a condition names, or of none of the `others`."""
    text = condition.column is not None and condition.column.kind == "text"
    named: list[Any] = [code(str(c)) if text else c for c in condition.others or (condition.category,)]
    there: npt.NDArray[np.bool_] = np.isin(values, np.array(named, np.float64))
    return ~there if condition.others else there


def _events(part: _Part) -> list[Any]:
    """The rows as the stream decodes events: every declared column that the frame has."""
    columns = {}
    for name in part.event.columns:
        if name in part.frame.columns:
            series = frames.place(part.frame, name, part.said)
            columns[name] = series.astype(object).where(series.notna(), None).tolist()
    return _objects(columns)


# --- working -------------------------------------------------------------------------------------------------------------


def _windows(shape: Shape, parts: Sequence[_Part]) -> Floats:
    """The window features of the last part, (n, features) in its order."""
    asked = parts[-1]
    found = np.tile(_nothing(shape), (len(asked.frame), 1))
    whose, kept = _seen(shape.views[0], parts)

    def joined(arrays: Iterable[Any]) -> Any:
        """An array (or one value for all) of each part, as one of all rows that are kept."""
        return np.concatenate([np.broadcast_to(a, len(p.frame))[k] for a, p, k in zip(arrays, parts, kept, strict=True)])

    places, turns, ranks = (joined(a) for a in ((p.places for p in parts), (p.turns for p in parts), (p.rank for p in parts)))
    late = joined(p.times < p.places for p in parts)
    order = order_of(places, late, ranks, partial(_ids, parts, kept), (turns,), whose)
    tracks = [_tracks(shape, p)[k] for p, k in zip(parts, kept, strict=True)]
    whose, values = whose[order], np.concatenate(tracks)[order]
    times, kinds, want = (
        joined(a)[order] for a in ((p.times for p in parts), (p.kind for p in parts), (p.wanted for p in parts))
    )
    rows = joined(np.arange(len(p.frame)) for p in parts)[order]
    starts = np.append(np.flatnonzero(np.diff(whose, prepend=-1)), len(whose))
    group = max(STATE_BYTES // (8 * (shape.words + shape.merged_words)), 1)
    for first in range(0, len(starts) - 1, group):
        borders = starts[first : first + group + 1]
        panes = Panes(shape, capacity=len(borders) - 1)
        slots = np.repeat([panes.slot(str(i)) for i in range(len(borders) - 1)], np.diff(borders))
        for begin in range(int(borders[0]), int(borders[-1]), AT_ONCE):
            now = slice(begin, min(begin + AT_ONCE, int(borders[-1])))
            own = slots[now.start - borders[0] : now.stop - borders[0]]
            out, _ = panes.apply(own, times[now], kinds[now], values[now], want[now].astype(np.int64))
            found[rows[now][want[now]]] = out[want[now]]
    return found


def _seen(view: View, parts: Sequence[_Part]) -> tuple[Ints, list[Ints]]:
    """Which rows of each part a row asked for may see (its entity's, and no later ones), and the entity of each of them."""
    asked = parts[-1]
    entities = frames.entities([(part.frame, view.by[part.event], part.said) for part in parts])
    entities[-1] = np.where(asked.times == MISSING, -1, entities[-1])
    theirs = np.zeros(max(int(codes.max(initial=-1)) for codes in entities) + 2, bool)
    theirs[entities[-1]] = True
    theirs[-1] = False  # where rows without an entity, -1, have left their mark
    until = int(asked.places.max(initial=MISSING))
    kept = [np.flatnonzero(theirs[codes] & (part.places <= until)) for part, codes in zip(parts, entities, strict=True)]
    return np.concatenate([codes[k] for codes, k in zip(entities, kept, strict=True)]), kept


def _nothing(shape: Shape) -> Floats:
    """The window values of an entity that nothing has happened to."""
    zero, tracks = np.zeros(1, np.int64), np.full((1, max(len(shape.tracks), 1)), np.nan)
    rows, _ = Panes(shape, capacity=1).apply(zero, zero, zero - 1, tracks, zero + 1, keep=False)
    nothing: Floats = rows[0]
    return nothing


def _ids(parts: Sequence[_Part], kept: Sequence[Ints], rows: Ints) -> npt.NDArray[Any]:
    """The ids of some of the rows that are kept, "" where they have none."""
    names, starts = np.full(len(rows), "", object), np.cumsum([0, *map(len, kept)])
    for i, part in enumerate(parts):
        own = np.flatnonzero((rows >= starts[i]) & (rows < starts[i + 1]))
        name = (part.event.id or part.event.key).name
        if part.rank >= 0 and len(own) and name in part.frame.columns:
            names[own] = part.frame[name].iloc[kept[i][rows[own] - starts[i]]].map(str).to_numpy(object)
    return names
