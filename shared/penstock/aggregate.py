"""Aggregates: what a view knows of an entity, each a number or a few, over windows of one event.

    payments_1h = ps.count(Payment, over="1h")
    abroad_7d   = ps.sum(Payment.amount, over="7d", where=lambda p: p.country != "NZ")
    by_kind     = ps.sum(Payment.amount, over="24h", per=ps.among(Payment.kind, "food", "fuel"))
    usual       = ps.quantile(Payment.amount, 0.5, over="30d")
    recent      = ps.last_k(Payment.amount, 3)

A window covers events that came strictly before, from `floor(E - length, hop)` on (see `feature`); without `over` it is the
entity's lifetime. Of equal event times the one processed later is the newer. A missing value (None, NaN, infinite) is not
there: it is not counted, not summed, not the last. An empty window counts 0, sums to 0, has 0 distinct values, and of nothing
else a value: NaN (null on the wire).

Text enters as its `code`, one number per text, so that rows stay numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType
from typing import Any, Generic, Self, overload

from typing_extensions import TypeVar

from . import duration
from .event import Column, Event, column_of, event_of
from .mistake import mistake, nearest
from .source import names_read, source_of

__all__ = [
    "Aggregate", "Condition", "Feature", "Per", "among", "code", "count", "decayed_count", "decayed_mean", "decayed_sum",
    "distinct", "first", "hop_of", "last", "last_k", "max", "mean", "min", "quantile", "ratio", "since_last", "std", "sum",
    "top", "var",
]  # fmt: skip

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E")
R = TypeVar("R", default=float)

LONGEST = 5 * 366 * duration.DAY
MOST_LAST, MOST_TOP, MOST_CATEGORIES = 64, 16, 64
"""Bounds of one feature: each value is a column of every row."""
FOREVER = 1 << 62
"""The hop of a lifetime."""
_HOPS = (
    (10 * duration.MINUTE, 5 * duration.SECOND),
    (duration.HOUR, duration.MINUTE),
    (12 * duration.HOUR, 5 * duration.MINUTE),
    (12 * duration.DAY, duration.HOUR),
    (365 * duration.DAY, duration.DAY),
)


def hop_of(length: int) -> int:
    """The hop of a window in microseconds: by which its tail moves, so that its real length lies in [length, length + hop).

    5 min below 12 h, 1 h below 12 d, then 1 d, as in Chronon; finer below an hour (1 min, below 10 min 5 s), where 5 min
    would make some windows twice as long as they say, and coarser (7 d) from a year on, where 1,800 tiles would say no more.
    A hop is never more than a tenth of its window. 0, a lifetime, has one tile.
    """
    if not length:
        return FOREVER
    return next((hop for below, hop in _HOPS if length < below), 7 * duration.DAY)


@lru_cache(1 << 16)
def code(text: str) -> float:
    """The number that stands for a text in rows: 52 bits of its BLAKE2b digest. Two of a million texts share one with a
    probability of 0.01 %.

    >>> code("food") == code("food"), code("food") == code("fuel")
    (True, False)
    """
    return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 12)


class Value(Generic[T_co]):
    """One value of a row: on the view class a reference, on a row the number (or numbers)."""

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

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns in a row."""
        return (repr(self),)


@dataclass(frozen=True)
class Condition:
    """Which events an aggregate is about: those for which the predicate holds and whose category is the one named.

    A predicate that cannot be evaluated, because a value is missing, does not hold.
    """

    source: str = ""
    predicate: Callable[[Any], bool] | None = None
    column: Column | None = None
    category: object = None
    others: tuple[object, ...] = ()

    def holds(self, event: Any) -> bool:
        if self.column is not None:
            found = getattr(event, self.column.name)
            if found in self.others if self.others else found != self.category:
                return False
        if self.predicate is None:
            return True
        try:
            return bool(self.predicate(event))
        except Exception:
            return False

    @property
    def key(self) -> tuple[object, ...]:
        """Conditions with the same key hold for the same events."""
        return self.source, self.column, self.category, self.others


EVERY = Condition()


@dataclass(frozen=True)
class Aggregate:
    """One number: `kind` over the values of `column` (or the events) that meet `condition`, in the last `over` microseconds
    (0: ever). `argument` is the q of a quantile, the place in a list, the half-life of what decays; `of` the two of a ratio."""

    kind: str
    event: Event
    column: Column | None
    over: int = 0
    condition: Condition = EVERY
    argument: float = 0.0
    length: int = 0
    """Of what is a list (last_k, top): how long."""
    of: tuple[Aggregate, ...] = ()


class Feature(Value[T_co]):
    """An aggregate as declared: one number, a tuple of them, or a mapping of them by category."""

    def __init__(self, parts: Mapping[object, Aggregate], form: str, spelled: str) -> None:
        self.parts, self.form, self._spelled = tuple(parts.values()), form, spelled
        self.labels = tuple(parts)

    @property
    def kind(self) -> str:
        return self.parts[0].kind

    @property
    def event(self) -> Event:
        return self.parts[0].event

    @property
    def column(self) -> Column | None:
        return self.parts[0].column

    @property
    def over(self) -> int:
        """Microseconds; 0 for a lifetime."""
        return self.parts[0].over

    @property
    def events(self) -> tuple[Event, ...]:
        """The events whose arrival changes it."""
        return tuple(dict.fromkeys(each.event for part in self.parts for each in (part.of or (part,))))

    @property
    def columns(self) -> tuple[str, ...]:
        return (repr(self),) if self.form == "number" else tuple(f"{self!r}[{label}]" for label in self.labels)

    def spelled(self) -> str:
        """As it was written, for fingerprints and pages."""
        return self._spelled

    def put(self, row: dict[str, Any], values: Any) -> None:
        """Set the feature in a row from the values of its parts, in order: floats or arrays."""
        if self.form == "number":
            row[self.name] = values[0]
        else:
            row[self.name] = tuple(values) if self.form == "list" else dict(zip(self.labels, values, strict=True))


@dataclass(frozen=True)
class Per(Generic[T_co]):
    """A value for each category of a column: made by `among`."""

    column: Column
    categories: tuple[object, ...]


def among(column: str | float | None, *categories: str | int) -> Per[Mapping[str, float]]:
    """Split an aggregate by a categorical column: a value for each category named, and one, "other", for all the rest, so that
    rows have the same columns whatever comes. `row.by_kind["food"]`; its column is `View.by_kind[food]`."""
    found = column_of(column)
    if not 1 <= len(set(categories)) == len(categories) <= MOST_CATEGORIES or "other" in categories:
        mistake(f"among({found!r}, ...) needs 1 to {MOST_CATEGORIES} different categories", '"other" is added by itself')
    for category in categories:
        if not isinstance(category, found.type) or isinstance(category, float):
            mistake(f"among({found!r}, {category!r}): the column holds {found.type.__name__}", "name categories as they come")
        if isinstance(category, str) and (len(category) > 64 or not category.isprintable() or set(category) & set('"\\{}[]')):
            mistake(f"among({found!r}, {category!r}) cannot be the name of a column", 'at most 64 characters, without "\\{}[]')
    return Per(found, categories)


def count(
    event: type[E], over: str | None = None, *, where: Callable[[E], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """How many events."""
    return _made("count", event_of(event), None, over, where, per)


def sum(  # noqa: A001  (the field's word; used as ps.sum)
    column: float | None, over: str | None = None, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The sum of a column."""
    return _of("sum", column, over, where, per)


def mean(
    column: float | None, over: str | None = None, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The mean."""
    return _of("mean", column, over, where, per)


def min(  # noqa: A001
    column: float | None, over: str | None = None, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The least value."""
    return _of("min", column, over, where, per)


def max(  # noqa: A001
    column: float | None, over: str | None = None, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The greatest value."""
    return _of("max", column, over, where, per)


def var(
    column: float | None, over: str | None = None, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The variance of the values themselves (divided by n): 0 for a single one. Welford 1962, merged as by Chan et al. 1979."""
    return _of("var", column, over, where, per)


def std(
    column: float | None, over: str | None = None, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The standard deviation, the root of `var`."""
    return _of("std", column, over, where, per)


def first(
    column: str | float | None,
    over: str | None = None,
    *,
    where: Callable[[Any], bool] | None = None,
    per: Per[R] | None = None,
) -> Feature[R]:
    """The value with the least event time (of ties the one processed first)."""
    return _of("first", column, over, where, per)


def last(
    column: str | float | None,
    over: str | None = None,
    *,
    where: Callable[[Any], bool] | None = None,
    per: Per[R] | None = None,
) -> Feature[R]:
    """The value with the greatest event time (of ties the one processed last)."""
    return _of("last", column, over, where, per)


def last_k(
    column: str | float | None, k: int, over: str | None = None, *, where: Callable[[Any], bool] | None = None
) -> Feature[tuple[float, ...]]:
    """The k newest values, newest first: `row.recent[0]` is the last."""
    return _list("last_k", column, k, MOST_LAST, over, where)


def since_last(event: type[E], *, where: Callable[[E], bool] | None = None, per: Per[R] | None = None) -> Feature[R]:
    """Seconds from the newest event to the effective time."""
    return _made("since_last", event_of(event), None, None, where, per)


def distinct(
    column: str | float | None,
    over: str | None = None,
    *,
    where: Callable[[Any], bool] | None = None,
    per: Per[R] | None = None,
) -> Feature[R]:
    """How many different values: exact up to 128 in a window, beyond it estimated (HyperLogLog, standard error 3.3 %)."""
    return _of("distinct", column, over, where, per)


def quantile(
    column: float | None,
    q: float,
    over: str | None = None,
    *,
    where: Callable[[Any], bool] | None = None,
    per: Per[R] | None = None,
) -> Feature[R]:
    """The least value whose rank is at least q n: exact up to 256 values in a window, beyond it a KLL sketch (2016) whose
    ranks are off by about 1 % of n (measured in tests/laws: at most 3 %)."""
    if not 0.0 <= q <= 1.0:
        mistake(f"quantile({column!r}, {q}) asks for a share of values", "0.5 is the median, 0.99 nearly the greatest")
    return _of("quantile", column, over, where, per, float(q))


def top(
    column: str | float | None, k: int, over: str | None = None, *, where: Callable[[Any], bool] | None = None
) -> Feature[tuple[float, ...]]:
    """The k most common values, most common first (of equal counts the smaller first); exact while at most max(32, 4 k) different
    ones come, beyond it a value that makes up more than 1 / max(32, 4 k) is never missed (Misra, Gries 1982)."""
    return _list("top", column, k, MOST_TOP, over, where)


def decayed_count(
    event: type[E], half_life: str, *, where: Callable[[E], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """Events, each worth 2 ** (-age / half-life); age counts to the effective time."""
    return _made("decayed_count", event_of(event), None, None, where, per, float(duration.micros(half_life)))


def decayed_sum(
    column: float | None, half_life: str, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The sum of values, each worth 2 ** (-age / half-life) of itself."""
    return _of("decayed_sum", column, None, where, per, float(duration.micros(half_life)))


def decayed_mean(
    column: float | None, half_life: str, *, where: Callable[[Any], bool] | None = None, per: Per[R] | None = None
) -> Feature[R]:
    """The mean of values weighted by 2 ** (-age / half-life)."""
    return _of("decayed_mean", column, None, where, per, float(duration.micros(half_life)))


def ratio(over: Feature[float], under: Feature[float]) -> Feature[float]:
    """One aggregate divided by another; NaN where the divisor is 0 or one of them is missing.

    ps.ratio(ps.count(Payment, "7d", where=lambda p: p.declined), ps.count(Payment, "7d"))
    """
    for each in (over, under):
        if not isinstance(each, Feature) or each.form != "number" or each.kind == "ratio":
            mistake(f"ratio({each!r}) divides two aggregates that are numbers", "write ps.ratio(ps.sum(...), ps.count(...))")
            return each if isinstance(each, Feature) else under if isinstance(under, Feature) else over
    made = Aggregate("ratio", over.event, None, of=(over.parts[0], under.parts[0]))
    return Feature({"": made}, "number", f"ratio({over.spelled()}, {under.spelled()})")


_TEXT = ("first", "last", "last_k", "distinct", "top")


def _of(
    kind: str, column: object, over: str | None, where: Callable[[Any], bool] | None, per: Per[Any] | None, argument: float = 0.0
) -> Feature[Any]:
    found = column_of(column)
    return _made(kind, found.event, found, over, where, per, argument)


def _list(
    kind: str, column: object, k: int, most: int, over: str | None, where: Callable[[Any], bool] | None
) -> Feature[tuple[float, ...]]:
    found = column_of(column)
    if not 1 <= k <= most:
        mistake(f"{kind}({found!r}, {k}): each value is a column of every row", f"ask for 1 to {most}")
        k = 1
    return _made(kind, found.event, found, over, where, None, length=k)


def _made(
    kind: str,
    event: Event,
    column: Column | None,
    over: str | None,
    where: Callable[[Any], bool] | None,
    per: Per[Any] | None,
    argument: float = 0.0,
    length: int = 0,
) -> Feature[Any]:
    window = 0 if over is None else duration.micros(over)
    if window and not duration.MINUTE <= window <= LONGEST:
        mistake(f'a window of "{over}" is not between a minute and five years', 'write "1m" to "1830d", or no window for ever')
    if column is not None and column.kind != "number" and not (column.kind == "text" and kind in _TEXT):
        mistake(f"{kind}({column!r}): the column holds {column.kind}, not a number", "aggregate a numeric column")
    source = ""
    if where is not None and not isinstance(where, FunctionType):
        mistake(f"where={where!r} is no function", "write where=lambda payment: payment.amount > 100")
    elif where is not None:
        source = source_of(where)
        for name, at in names_read(where, 0):
            if name not in event.columns:
                mistake(f"where= of {kind}({column or event!r}): {event!r} has no {name}", nearest(name, event.columns), at=at)
    said = [repr(column or event)]
    said += [str(length)] if length else [repr(argument)] if argument else []
    said += [f"over={duration.spoken(window)!r}"] if window else []
    said += [f"where={source}"] if source else []
    plain = Condition(source, where)
    if per is not None and not isinstance(per, Per):
        mistake(f"per= of {kind}({column or event!r}) names no categories", 'write per=ps.among(Payment.kind, "food", "fuel")')
        per = None
    if per is None:
        parts: dict[object, Aggregate] = {
            place: Aggregate(kind, event, column, window, plain, float(place) if length else argument, length)
            for place in range(length or 1)
        }
        return Feature(parts, "list" if length else "number", f"{kind}({', '.join(said)})")
    if per.column.event is not event:
        mistake(f"per={per.column!r} is no column of {event!r}, the event that is aggregated", "split by one of its own columns")
    conditions = {name: Condition(source, where, per.column, name) for name in per.categories}
    conditions["other"] = Condition(source, where, per.column, None, per.categories)
    said.append(f"per=among({', '.join(map(repr, (per.column, *per.categories)))})")
    parts = {str(name): Aggregate(kind, event, column, window, each, argument) for name, each in conditions.items()}
    return Feature(parts, "mapping", f"{kind}({', '.join(said)})")
