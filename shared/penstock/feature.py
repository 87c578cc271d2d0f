"""Views: what an entity has been doing lately, as aggregates over events that came strictly before.

    @ps.features(by=Payment.card_id, fresh_within="1h", ttl="90d", lateness="1d")
    class Card:
        payments_1h = ps.count(Payment, over="1h")
        usual_amount = ps.mean(Payment.amount, over="30d")

        @ps.derived
        def surge(self, now: Payment) -> float:
            return now.amount / (self.usual_amount + 1.0)

A row for event *e* covers the events of the same entity processed before *e*; its windows end at the entity's *effective
time* E (the running maximum of its event times, *e* included) and begin at `floor(E - length, hop)`: a sawtooth, whose tail
moves in hops (`hop_of`) and whose head is exact. A number that is missing is NaN (null on the wire).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from . import duration
from .aggregate import Feature, Value
from .errors import DefinitionError
from .event import Column, Event, column_of
from .mistake import mistake, nearest
from .source import names_read, source_of

__all__ = ["Derived", "View", "columns_of", "derived", "features", "references", "view_of"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Derived(Value[T_co]):
    """Arithmetic over a row of the view and, when the method takes one more argument, the event being answered."""

    def __init__(self, body: Callable[..., T_co]) -> None:
        self.body, self.name = body, body.__name__
        self.__doc__ = body.__doc__
        hints = [h for n, h in getattr(body, "__annotations__", {}).items() if n not in ("return", "self")]
        self.wants_event = len(hints) == 1
        self.event_hint: Any = hints[0] if hints else None

    def spelled(self) -> str:
        """The body's source."""
        return source_of(self.body)

    def check(self, features: Sequence[str], events: Iterable[Event]) -> None:
        """Note every name that the body reads and that is neither a feature above it nor a column of the event."""
        if self.body.__code__.co_argcount != 1 + self.wants_event:
            mistake(f"{self!r} is given a row, and an event if it names one", "write it as (self) or (self, now: Payment)")
        hinted = [event.columns for event in events if self.event_hint in (event.type, event.type.__name__)]
        for argument, known in enumerate([features, *hinted]):
            for name, at in names_read(self.body, argument):
                if name not in known:
                    owner = self.body.__code__.co_varnames[argument]
                    mistake(f"{self!r}: {owner} has no {name}", nearest(name, known), at=at)


def derived(body: Callable[..., T]) -> Derived[T]:
    """A feature computed from the others of its row. Written for one row; numpy arrays pass through the same arithmetic."""
    return Derived(body)


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """What Penstock knows of a view class. `by` maps each event to the columns that name the entity in it."""

    type: type
    name: str
    by: dict[Event, tuple[Column, ...]]
    features: tuple[Feature[Any], ...]
    derived: tuple[Derived[float], ...]
    lateness: int | None = None
    """An event that is later than this, microseconds before E, changes no value; None: as far as windows reach."""
    fresh_within: int | None = None
    """The promise: values are at most this old, microseconds; a read of older ones says `stale`."""
    ttl: int | None = None
    """A value whose newest event is older than this, microseconds, is as if nothing had ever come."""

    def __repr__(self) -> str:
        return f"<view {self.name}>"

    @property
    def key(self) -> str:
        """The name of the key: its columns, as the first event spells them."""
        return "+".join(column.name for column in next(iter(self.by.values())))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all values of a row, windows first, then derived."""
        return tuple(name for item in (*self.features, *self.derived) for name in item.columns)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits over the meaning of the view: its key, its aggregates, the code of its derived features.
        State and tables of another fingerprint belong to another definition."""
        said = [  # the promise is left out: it changes no value
            [self.name, [repr(column) for columns in self.by.values() for column in columns], self.lateness, self.ttl],
            [[feature.name, feature.spelled()] for feature in self.features],
            [[item.name, item.spelled()] for item in self.derived],
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]

    @property
    def updates(self) -> tuple[Event, ...]:
        """The events whose arrival changes this view."""
        return tuple(dict.fromkeys(event for feature in self.features for event in feature.events))


def features(
    by: object, *, lateness: str | None = None, fresh_within: str | None = None, ttl: str | None = None
) -> Callable[[type[T]], type[T]]:
    """Declare a view of one entity. `by` is a column, a tuple of columns (a compound key), or a list of these, one for
    each event that names the entity: `by=[Payment.card_id, Login.card_id]`.

    `lateness` bounds what a late event may still correct. `fresh_within` is the view's promise to its readers: older values are
    called stale. A value whose newest event is older than `ttl` is as if nothing had ever come, in rows as in reads, and what
    is forgotten gives its memory back. Other views by the same key neither keep a view alive nor age it.
    """
    late, promise, lives = (None if text is None else duration.micros(text) for text in (lateness, fresh_within, ttl))

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
        for missing in sorted({repr(event) for feature in found for event in feature.events if event not in keys}):
            mistake(
                f"{cls.__name__} has features over {missing}, but `by` names no column of it",
                f"add it: by=[..., {missing}.<column>]",
            )
        over = max(
            (part.over for feature in found for part in (*feature.parts, *(o for p in feature.parts for o in p.of))), default=0
        )
        if lives is not None and lives < over:
            mistake(
                f'{cls.__name__}: ttl="{ttl}" is shorter than its longest window, {duration.spoken(over)}',
                f'give at least ttl="{duration.spoken(over)}", or shorten the window',
            )
        if lives is not None and promise is not None and promise > lives:
            mistake(
                f'{cls.__name__}: fresh_within="{fresh_within}" is longer than ttl="{ttl}": it would expire before it is stale',
                "give a shorter promise or a longer ttl",
            )
        derived = tuple(item for item in items if isinstance(item, Derived))
        view = View(cls, cls.__name__, keys, found, derived, late, promise, lives)
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


def references(item: object) -> Sequence[Column | Feature[Any] | Derived[float]]:
    """What an entry of `features=[...]` stands for: a column, one feature, or all values of a view."""
    if isinstance(item, Feature | Derived):
        return [item]
    if isinstance(item, type):
        view = view_of(item)
        return [*view.features, *view.derived]
    return [column_of(item)]


def columns_of(item: Column | Feature[Any] | Derived[Any]) -> tuple[str, ...]:
    """The names of its numbers among a model's inputs: one, but for features that are lists or split by categories."""
    return (repr(item),) if isinstance(item, Column) else item.columns
