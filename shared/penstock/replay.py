"""Replay: the meaning of a view written down plainly. Slow, obvious, the users' test harness and the oracle of the kernel."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from .codec import entity_of
from .event import event_of, to_micros
from .feature import Derived, Feature, hop_of, view_of

__all__ = ["replay"]

V = TypeVar("V")


def replay(view: type[V], events: Sequence[object]) -> list[V]:
    """The rows of a view for events in the order given, which is the order in which they are processed.

    One row per event that names the entity; it covers the entity's events strictly before it.

    >>> import penstock as ps
    >>> from datetime import UTC, datetime, timedelta
    >>> @ps.event("payments")
    ... class Payment:
    ...     card_id: ps.Key[str]
    ...     amount: float
    ...     paid_at: ps.EventTime
    >>> @ps.features(by=Payment.card_id)
    ... class Card:
    ...     spend_24h = ps.sum(Payment.amount, over="24h")
    >>> def pay(hours: float, amount: float) -> Payment:
    ...     return Payment("c", amount, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours))
    >>> [row.spend_24h for row in ps.replay(Card, [pay(0, 10), pay(0.5, 5), pay(25, 1)])]
    [0.0, 10.0, 0.0]
    """
    declared = view_of(view)
    history: dict[str, list[tuple[int, Any]]] = {}
    rows: list[V] = []
    for event in events:
        kind = event_of(type(event))
        entity = entity_of(declared.by[kind], event) if kind in declared.by else None
        earlier = history.setdefault(entity, []) if entity is not None else []
        time = to_micros(getattr(event, kind.time.name))
        effective = max([time, *(t for t, _ in earlier)])
        if kind in declared.by:
            row = object.__new__(view)
            for feature in declared.features:
                row.__dict__[feature.name] = _value(feature, earlier, effective)
            for item in declared.derived:
                row.__dict__[item.name] = _derived(item, row, event)
            rows.append(row)
        earlier.append((time, event))
    return rows


def _value(feature: Feature[float], earlier: list[tuple[int, Any]], effective: int) -> float:
    """One window by its definition."""
    found = [(t, e) for t, e in earlier if event_of(type(e)) is feature.event]
    if feature.column is not None:
        found = [(t, float(v)) for t, e in found if (v := getattr(e, feature.column.name)) is not None]
    if feature.over:
        hop = hop_of(feature.over)
        start = (effective - feature.over) // hop * hop
        found = [(t, v) for t, v in found if t >= start]
    values = [v for _, v in found]
    if feature.kind == "count":
        return float(len(found))
    if feature.kind == "sum":
        return float(sum(values))
    if not found:
        return math.nan
    newest, value = max(enumerate(found), key=lambda pair: (pair[1][0], pair[0]))[1]
    if feature.kind == "since_last":
        return (effective - newest) / 1e6
    kinds = {"mean": lambda: sum(values) / len(values), "min": lambda: min(values), "max": lambda: max(values)}
    return float(value) if feature.kind == "last" else float(kinds[feature.kind]())


def _derived(item: Derived[float], row: object, event: object) -> float:
    if item.wants_event:
        if item.event_hint not in (type(event), type(event).__name__):
            return math.nan
        return float(item.body(row, event))
    return float(item.body(row))
