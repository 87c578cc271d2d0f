"""Features: what the feature store says of events, and which times are closed."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Charge", "Clock", "LateEvent", "Passed", "Row"]


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """A closed time: everything before `before` is out, up to these positions (topic -> next offset per partition)."""

    publisher: str
    before: int
    """Integer microseconds since 1970 UTC."""
    ends: dict[str, dict[int, int]]


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """Which generation of the views is in charge: whose rows are the rows. Each record follows the one that counted before it:
    `number` is one more, `previous` was in charge. What does not follow is void, so of two swaps at once one counts."""

    number: int
    generation: str
    previous: str = ""
    views: dict[str, str] = {}
    """View -> fingerprint."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An event with the values of its views as they were before it."""

    id: str
    time: datetime
    event: msgspec.Raw
    features: msgspec.Raw
    cursor: dict[str, list[int]]
    """Hop -> [partition, events of that hop processed before this one]; `source` -> [partition, offset]."""
    views: dict[str, str] = {}
    """View -> fingerprint of the definition that made its values; empty in rows of before these were written."""
    late: bool = False
    """Whether the event came too late to change some view (see `LateEvent`)."""
    as_of: datetime | None = None
    """Where its windows end, if that is after `time`: the event came late, and the values know newer events of its entities."""


class LateEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that came later than its view allows: it changed nothing in that view."""

    event: str
    """Its topic."""
    id: str
    time: datetime
    view: str
    entity: str
    as_of: datetime
    """The entity's effective time when it came."""
    partition: int
    offset: int
    value: msgspec.Raw
    """As published."""


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    """A source had been passed when this event came: the stream had gone on without it, as it was silent, or as somebody had
    closed its time. With it `before` becomes the effective time of its partition, if that was less (see `order`)."""

    event: str
    """Its topic."""
    partition: int
    offset: int
    before: int
    """Everything before this had been processed. Integer microseconds since 1970 UTC."""
