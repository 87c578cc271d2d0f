"""Views: what an entity has been doing lately, as windows over events that came strictly before.

    @ps.features(by=Payment.card_id)
    class Card:
        payments_1h = ps.count(Payment, over="1h")
        usual_amount = ps.mean(Payment.amount, over="30d")

        @ps.derived
        def surge(self, now: Payment) -> float:
            return now.amount / (self.usual_amount + 1.0)

A row for event *e* covers the events of the same entity processed before *e*; its windows end at the entity's *effective
time* E (the running maximum of its event times, *e* included) and begin at `floor(E - length, hop)`: a sawtooth, whose tail
moves in hops (5 min below 12 h, 1 h below 12 d, else 1 d) and whose head is exact. A number that is missing is NaN (null on
the wire); an empty window counts 0, sums to 0, and has no mean, minimum, maximum or last value.
"""

from __future__ import annotations

import builtins
import dis
import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, overload

from . import duration
from .errors import DefinitionError
from .event import Column, Event, column_of, event_of
from .mistake import mistake, nearest

__all__ = [
    "Derived",
    "Feature",
    "View",
    "count",
    "derived",
    "features",
    "hop_of",
    "last",
    "max",
    "mean",
    "min",
    "since_last",
    "sum",
    "view_of",
]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


def hop_of(length: int) -> int:
    """The hop of a window in microseconds (Chronon's five-minute resolution: < 12 h, < 12 d, longer)."""
    if length < 12 * duration.HOUR:
        return 5 * duration.MINUTE
    return duration.HOUR if length < 12 * duration.DAY else duration.DAY


class _Value(Generic[T_co]):
    """One value of a row: on the view class a reference, on a row the number."""

    owner: type = object
    name, view = "", ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name, self.view = owner, name, owner.__name__

    @overload
    def __get__(self, row: None, owner: type) -> Self: ...
    @overload
    def __get__(self, row: object, owner: type) -> T_co: ...
    def __get__(self, row: object | None, owner: type) -> Self | T_co:
        return self if row is None else row.__dict__[self.name]

    def __repr__(self) -> str:
        return f"{self.view}.{self.name}"


class Feature(_Value[T_co]):
    """A windowed aggregate; `over` is 0 where there is no window."""

    def __init__(self, kind: str, event: Event, column: Column | None, over: str | None = None) -> None:
        self.kind, self.event, self.column = kind, event, column
        self.over = 0 if over is None else duration.micros(over)
        if self.over and self.over < (hop := hop_of(self.over)):
            mistake(f'a window of "{over}" is shorter than its hop of {duration.spoken(hop)}', 'the shortest window is "5m"')
        if column is not None and column.kind != "number":
            mistake(f"{kind}({column!r}): the column holds {column.kind}, not a number", "aggregate a numeric column")

    def spelled(self) -> str:
        """As it was written, for fingerprints and pages."""
        source = repr(self.column or self.event)
        return f"{self.kind}({source}{f', over={duration.spoken(self.over)!r}' if self.over else ''})"


class Derived(_Value[T_co]):
    """Arithmetic over a row of the view and, when the method takes one more argument, the event being answered."""

    def __init__(self, body: Callable[..., T_co]) -> None:
        self.body, self.name = body, body.__name__
        self.__doc__ = body.__doc__
        hints = [h for n, h in getattr(body, "__annotations__", {}).items() if n not in ("return", "self")]
        self.wants_event = len(hints) == 1
        self.event_hint: Any = hints[0] if hints else None

    def spelled(self) -> str:
        """The body's source."""
        return inspect.getsource(self.body)

    def check(self, features: Sequence[str], events: Iterable[Event]) -> None:
        """Note every name that the body reads and that is neither a feature above it nor a column of the event."""
        code = self.body.__code__
        if code.co_argcount != 1 + self.wants_event:
            mistake(f"{self!r} is given a row, and an event if it names one", "write it as (self) or (self, now: Payment)")
        hinted = [event.columns for event in events if self.event_hint in (event.type, event.type.__name__)]
        known = dict(zip(code.co_varnames, [features, *hinted], strict=False))
        for loaded, read in itertools.pairwise(dis.get_instructions(code)):
            owner = loaded.argval if loaded.opname.startswith("LOAD_FAST") else None
            if read.opname == "LOAD_ATTR" and owner in known and read.argval not in known[owner]:
                line = (loaded.positions.lineno if loaded.positions else None) or code.co_firstlineno
                mistake(
                    f"{self!r}: {owner} has no {read.argval}", nearest(read.argval, known[owner]), at=(code.co_filename, line)
                )


def derived(body: Callable[..., T]) -> Derived[T]:
    """A feature computed from the others of its row. Written for one row; numpy arrays pass through the same arithmetic."""
    return Derived(body)


def count(event: type, over: str) -> Feature[float]:
    """How many events in the window."""
    return Feature("count", event_of(event), None, over)


def sum(column: float | None, over: str) -> Feature[float]:  # noqa: A001  (the field's word; used as ps.sum)
    """The sum of a column over the window; missing values add nothing."""
    return _over("sum", column, over)


def mean(column: float | None, over: str) -> Feature[float]:
    """The mean of the values present in the window; NaN when there is none."""
    return _over("mean", column, over)


def min(column: float | None, over: str) -> Feature[float]:  # noqa: A001
    """The least value in the window; NaN when there is none."""
    return _over("min", column, over)


def max(column: float | None, over: str) -> Feature[float]:  # noqa: A001
    """The greatest value in the window; NaN when there is none."""
    return _over("max", column, over)


def last(column: float | None) -> Feature[float]:
    """The value with the greatest event time so far (of ties the one processed last); NaN before the first."""
    return _over("last", column, None)


def since_last(event: type) -> Feature[float]:
    """Seconds from the newest event of this kind to the effective time; NaN before the first."""
    return Feature("since_last", event_of(event), None)


def _over(kind: str, column: object, over: str | None) -> Feature[float]:
    found = column_of(column)
    return Feature(kind, found.event, found, over)


@dataclass(frozen=True, eq=False)
class View:
    """What Penstock knows of a view class. `by` maps each event to the columns that name the entity in it."""

    type: type
    name: str
    by: dict[Event, tuple[Column, ...]]
    features: tuple[Feature[float], ...]
    derived: tuple[Derived[float], ...]
    fresh_within: int = 0
    """The promise: a view whose newest event is older (microseconds) is called stale. 0: none was made."""
    ttl: int = 0
    """A view whose newest event is older (microseconds) has no values any more. 0: they never expire."""

    @property
    def key(self) -> str:
        """The name of the key: its columns, as the first event spells them."""
        return "+".join(column.name for column in next(iter(self.by.values())))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all values of a row, windows first, then derived."""
        return tuple(map(repr, (*self.features, *self.derived)))

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits over the meaning of the view: its key, its aggregates, the code of its derived features.
        State and tables of another fingerprint belong to another definition."""
        said = [
            [self.name, [repr(column) for columns in self.by.values() for column in columns]],
            [[feature.name, feature.spelled()] for feature in self.features],
            [[item.name, item.spelled()] for item in self.derived],
        ]
        if self.ttl:  # the promise is left out: it changes no value
            said.append([["ttl", str(self.ttl)]])
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]

    @property
    def updates(self) -> tuple[Event, ...]:
        """The events whose arrival changes this view."""
        return tuple(dict.fromkeys(feature.event for feature in self.features))


def features(by: object, fresh_within: str | None = None, ttl: str | None = None) -> Callable[[type[T]], type[T]]:
    """Declare a view of one entity. `by` is a column, a tuple of columns (a compound key), or a list of these, one for
    each event that names the entity: `by=[Payment.card_id, Login.card_id]`.

    `fresh_within="1h"` is a promise: a read says `stale` when the entity's newest event in this view is older. `ttl="90d"` is
    when the view forgets an entity: its values are missing (`expired`) once its newest event in this view is older. It is no
    shorter than the longest window. Other views by the same key neither keep it alive nor age it.
    """

    def declare(cls: type[T]) -> type[T]:
        alternatives = by if isinstance(by, list) else [by]
        keys: dict[Event, tuple[Column, ...]] = {}
        for alternative in alternatives:
            columns = tuple(column_of(c) for c in (alternative if isinstance(alternative, tuple) else (alternative,)))
            if len({c.event for c in columns}) != 1:
                mistake(f"{cls.__name__}: a compound key mixes events {columns}", "name columns of one event per tuple")
            keys[columns[0].event] = columns
        items = list(cls.__dict__.values())
        found = tuple(item for item in items if isinstance(item, Feature))
        for missing in sorted({repr(f.event) for f in found if f.event not in keys}):
            mistake(
                f"{cls.__name__} has features over {missing}, but `by` names no column of it",
                f"add it: by=[..., {missing}.<column>]",
            )
        promise, life = (0 if said is None else duration.micros(said) for said in (fresh_within, ttl))
        longest = builtins.max((f.over for f in found), default=0)
        if life and life < longest:
            mistake(
                f'{cls.__name__}: ttl="{ttl}" is shorter than its longest window, {duration.spoken(longest)}',
                f'give at least ttl="{duration.spoken(longest)}", or shorten the window',
            )
        if life and promise > life:
            mistake(
                f'{cls.__name__}: fresh_within="{fresh_within}" is longer than ttl="{ttl}": it would expire before it is stale',
                "give a shorter promise or a longer ttl",
            )
        view = View(cls, cls.__name__, keys, found, tuple(item for item in items if isinstance(item, Derived)), promise, life)
        known = [feature.name for feature in found]
        for item in view.derived:
            item.check(known, keys)
            known.append(item.name)
        cls.__penstock_view__ = view  # type: ignore[attr-defined]
        return cls

    return declare


def view_of(cls: object) -> View:
    """The View behind a class; DefinitionError when it is none."""
    found = cls.__dict__.get("__penstock_view__") if isinstance(cls, type) else None
    if not isinstance(found, View):
        raise DefinitionError(f"{cls!r} is not a view", "decorate the class with @ps.features(by=Event.column)")
    return found


def references(item: object) -> Sequence[Column | Feature[float] | Derived[float]]:
    """What an entry of `features=[...]` stands for: a column, one feature, or all values of a view."""
    if isinstance(item, Feature | Derived):
        return [item]
    if isinstance(item, type):
        view = view_of(item)
        return [*view.features, *view.derived]
    return [column_of(item)]
