"""Events: what happened, as plain frozen dataclasses. `Payment.amount` is a typed reference to a column.

    @ps.event("payments")
    class Payment:
        payment_id: ps.Id[str]
        card_id: ps.Key[str]
        amount: float
        paid_at: ps.EventTime

On the wire an event is a JSON object with these fields, times as ISO-8601 with an offset; unknown fields are ignored.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from .errors import DefinitionError
from .mistake import mistake, nearest, together

if TYPE_CHECKING:
    from .expectation import Expectation

__all__ = ["Column", "Event", "EventTime", "Id", "Key", "column_of", "event", "event_of", "from_micros", "moment_of", "to_micros"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Role:
    name: str


ID, KEY, TIME = _Role("id"), _Role("key"), _Role("time")

Id = Annotated[T, ID]
"""The field that names one event; labels answer by it. What has the id and the key of one of the 65,000 events before
it in its partition is a repeat, and dead-lettered. One id under two keys is two events, however many partitions there are; but
predictions and labels know only the first of them."""
Key = Annotated[T, KEY]
"""The field that is the record's key, hence chooses the partition: the entity, or for a label the id of what it answers."""
EventTime = Annotated[datetime, TIME]
"""When it happened (with a time zone). Windows, horizons and schedules run on it."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLAIN: dict[Any, str] = {str: "text", int: "number", float: "number", bool: "number", datetime: "time"}


def to_micros(moment: datetime) -> int:
    """Integer microseconds since 1970 UTC."""
    return (moment - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The moment, in UTC."""
    return EPOCH + timedelta(microseconds=micros)


def moment_of(said: datetime | str) -> datetime:
    """A moment with a time zone, or its text in ISO 8601; ValueError for one without, and for what is none: how to write one.

    >>> moment_of("2013-02-01T12:00Z")
    datetime.datetime(2013, 2, 1, 12, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        found = datetime.fromisoformat(said) if isinstance(said, str) else said
        zone = found.tzinfo
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{str(said)[:80]!r} is no moment: write 2013-02-01T12:00:00Z") from None
    if zone is None:
        raise ValueError(f"{said} has no time zone: write {found.isoformat()}Z, or datetime(2013, 2, 1, 12, tzinfo=UTC)")
    return found


@dataclass(frozen=True, slots=True)
class Column:
    """One field of one event. `kind` is text, number (int, float, bool) or time."""

    event: Event
    name: str
    type: Any
    kind: str
    optional: bool

    def __repr__(self) -> str:
        return f"{self.event.type.__name__}.{self.name}"


class NoColumn(DefinitionError, AttributeError):
    """`Payment.amont`: a column that the event has not."""


class _Columns(type):
    """The type of event classes, so that a misspelt column is answered with the nearest one."""

    def __getattr__(cls, name: str) -> Any:
        event = cls.__dict__.get("__penstock_event__")
        if event is None or name.startswith("_"):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        mistake(f"{event!r} has no column {name}", nearest(name, event.columns), NoColumn)
        return Column(event, name, bool, "number", False)  # fits wherever a column is asked for


class Event:
    """What Penstock knows of an event class: topic, columns, and which of them is id, key and time."""

    def __init__(self, cls: type, topic: str) -> None:
        self.type, self.topic = cls, topic
        self.columns: dict[str, Column] = {}
        roles: dict[str, list[Column]] = {"id": [], "key": [], "time": []}
        for name, hint in get_type_hints(cls, include_extras=True).items():
            marks = [a for a in get_args(hint)[1:] if isinstance(a, _Role)] if get_origin(hint) is Annotated else []
            bare = get_args(hint)[0] if marks else hint
            inner = [a for a in get_args(bare) if a is not type(None)] if get_origin(bare) in (Union, types.UnionType) else [bare]
            optional = len(inner) == 1 and inner != [bare]
            if len(inner) != 1 or inner[0] not in _PLAIN:
                known = "str, int, float, bool, datetime or one of them | None"
                mistake(f"{cls.__name__}.{name}: {getattr(bare, '__name__', bare)} is not a column type", f"use {known}")
                inner = [str if marks else bool]
            column = Column(self, name, inner[0], _PLAIN[inner[0]], optional)
            self.columns[name] = column
            for mark in marks:
                roles[mark.name].append(column)
        for role, many in (("time", True), ("key", True), ("id", False)):
            found = roles[role]
            if len(found) > 1 or (many and not found):
                hint = {"time": "ps.EventTime", "key": "ps.Key[str]", "id": "ps.Id[str]"}[role]
                mistake(f"{cls.__name__} has {len(found)} {role} columns", f"mark exactly one as {hint}")
        for column in (*roles["key"], *roles["id"]):
            if column.type not in (str, int):
                mistake(f"{column} is an id or key, and {column.type.__name__}", "declare it as str or int")
        stand_in = Column(self, "missing", str, "text", False)
        self.key, self.time = (roles["key"] or [stand_in])[0], (roles["time"] or [stand_in])[0]
        self.id = roles["id"][0] if roles["id"] else None
        self.expectations: list[Expectation] = []
        """What ps.expect declares of it."""

    def __repr__(self) -> str:
        return self.type.__name__


@dataclass_transform(frozen_default=True)
def event(topic: str) -> Callable[[type[T]], type[T]]:
    """Declare an event and the topic it is published to; DefinitionError names what is wrong with its columns."""

    def declare(cls: type[T]) -> type[T]:
        body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        columned = _Columns(cls.__name__, cls.__bases__, {**body, "__qualname__": cls.__qualname__})
        made: Any = dataclasses.dataclass(frozen=True, slots=True)(columned)
        with together():
            made.__penstock_event__ = Event(made, topic)
        return made  # type: ignore[no-any-return]

    return declare


def event_of(cls: type) -> Event:
    """The Event behind a class; DefinitionError when it is none."""
    found = cls.__dict__.get("__penstock_event__") if isinstance(cls, type) else None
    if not isinstance(found, Event):
        named = "give its class, such as Payment, not its name"
        raise DefinitionError(
            f"{cls!r} is not an event", named if isinstance(cls, str) else 'decorate the class with @ps.event("topic")'
        )
    return found


def column_of(reference: object) -> Column:
    """The Column behind `Payment.amount` (at run time the slot of the dataclass, which knows its class and its name)."""
    if isinstance(reference, Column):
        return reference
    owner, name = getattr(reference, "__objclass__", None), getattr(reference, "__name__", "")
    if owner is None:
        raise DefinitionError(f"{reference!r} is not a column", "refer to it as Event.column, such as Payment.amount")
    return event_of(owner).columns[name]
