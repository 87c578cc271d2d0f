"""Replay: the meaning of a view written down plainly. Slow, obvious, the users' test harness and the oracle of the kernel.

The stream, the gateway and `compute` run one kernel and agree to the last bit. Replay shares no code with it. What is only
taken (counts, extremes, first, last, quantiles, texts) is the same to the last bit, up to the sizes from which sketches
estimate; what is added up (sums, means, deviations, decayed ones, ratios of these) is added here in order, and there by tiles.
Two orders of adding n numbers differ by n * 2^-52 of the sum of their magnitudes at most (Higham 2002, section 4.2); the other
added ones stay within 1e-9.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from .aggregate import Aggregate, code, hop_of
from .codec import entity_of
from .errors import PenstockError
from .event import Column, event_of, to_micros
from .feature import Derived, view_of

__all__ = ["derive", "replay", "value"]

V = TypeVar("V")


def replay(view: type[V], events: Sequence[object]) -> list[V]:
    """The rows of a view for events in the order given, which is the order in which they are processed.

    One row per event that names the entity; it covers the entity's events strictly before it. (The windows of a late event end
    at the newest event of its entity. In the stream that is the newest that any view of the project by this key knows.)
    PenstockError for an event whose time has no zone.

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
    if not isinstance(events, Sequence):
        raise PenstockError(f"{events!r} is no list of events", f"ps.replay({declared.name}, [event, event])")
    history: dict[str, list[tuple[int, Any, bool]]] = {}
    rows: list[V] = []
    for event in events:
        kind = event_of(type(event))
        entity = entity_of(declared.by[kind], event) if kind in declared.by else None
        all_earlier = history.setdefault(entity, []) if entity is not None else []
        moment = getattr(event, kind.time.name)
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise PenstockError(f"{kind.time!r} is {moment!r}, no moment with a time zone", "datetime(2026, 1, 31, tzinfo=UTC)")
        time = to_micros(moment)
        effective = max([time, *(t for t, _, _ in all_earlier)])
        earlier = [(t, e) for t, e, counted in all_earlier if counted]
        if kind in declared.by:
            row = object.__new__(view)
            for feature in declared.features:
                feature.put(row.__dict__, [value(part, earlier, effective, declared.ttl) for part in feature.parts])
            for item in declared.derived:
                row.__dict__[item.name] = derive(item, row, event)
            rows.append(row)
        all_earlier.append((time, event, declared.lateness is None or time >= effective - declared.lateness))
    return rows


def value(part: Aggregate, earlier: Sequence[tuple[int, Any]], effective: int, ttl: int | None = None) -> float:
    """One aggregate by its definition, exactly (no sketch): of the entity's (time, event) so far, in order of processing. When
    the newest that it has values of is older than `ttl` (microseconds), all is as if it had never been."""
    if part.of:
        over, under = (value(each, earlier, effective, ttl) for each in part.of)
        return over / under if under else math.nan
    met = [(t, e) for t, e in earlier if event_of(type(e)) is part.event and part.condition.holds(e)]
    pairs = [(t, v) for t, e in met if not math.isnan(v := 1.0 if part.column is None else _number(part.column, e))]
    if ttl is not None and max((t for t, _ in pairs), default=effective) < effective - ttl:
        pairs = []
    if part.over:
        start = (effective - part.over) // hop_of(part.over) * hop_of(part.over)
        pairs = [(t, v) for t, v in pairs if t >= start]
    values = [v for _, v in pairs]
    newest = [v for _, _, v in sorted(((t, i, v) for i, (t, v) in enumerate(pairs)), reverse=True)]
    match part.kind:
        case "count":
            return float(len(values))
        case "sum":
            return float(sum(values))
        case "distinct":
            return float(len(set(values)))
        case "decayed_count" | "decayed_sum" | "decayed_mean":
            # a mean is the same at any moment, and the newest is as good as now, where all weights would round to 0
            moment = max((t for t, _ in pairs), default=effective) if part.kind == "decayed_mean" else effective
            weights = [2.0 ** ((t - moment) / part.argument) for t, _ in pairs]
            weight, total = sum(weights), sum(w * v for w, v in zip(weights, values, strict=True))
            if part.kind == "decayed_mean":
                return total / weight if weight else math.nan
            return float(weight if part.kind == "decayed_count" else total)
        case "last_k":
            return newest[int(part.argument)] if part.argument < len(newest) else math.nan
        case "top":
            common = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
            return common[int(part.argument)][0] if part.argument < len(common) else math.nan
    if not values:
        return math.nan
    match part.kind:
        case "mean":
            return float(sum(values) / len(values))
        case "min":
            return float(min(values))
        case "max":
            return float(max(values))
        case "var":
            return float(statistics.pvariance(values))
        case "std":
            return float(statistics.pstdev(values))
        case "first":
            return min(pairs, key=lambda pair: pair[0])[1]
        case "last":
            return newest[0]
        case "since_last":
            return (effective - max(t for t, _ in pairs)) / 1e6
        case "quantile":
            return sorted(values)[max(math.ceil(part.argument * len(values)), 1) - 1]
    raise AssertionError(part.kind)


def _number(column: Column, event: Any) -> float:
    found = getattr(event, column.name)
    if found is None or (isinstance(found, float) and not math.isfinite(found)):
        return math.nan
    return code(found) if column.kind == "text" else float(found)


def derive(item: Derived[float], row: object, event: object) -> float:
    """A derived feature of one row, by the arithmetic that columns have (IEEE 754): what is divided by zero, or is made of what
    is missing, is missing, and raises nothing. `event` is the one being answered, or None."""
    import numpy as np

    arguments = [_Numbers({name: _held(value) for name, value in vars(row).items()})]
    if item.wants_event:
        if item.event_hint not in (type(event), type(event).__name__):
            return math.nan
        columns = [column for column in event_of(type(event)).columns.values() if column.kind == "number"]
        arguments.append(_Numbers({column.name: np.float64(_number(column, event)) for column in columns}))
    with np.errstate(all="ignore"):
        found = float(item.body(*arguments))
    return found if math.isfinite(found) else math.nan


class _Numbers:
    """Numbers by attribute, for bodies of derived features."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        self.__dict__.update(numbers)


def _held(value: Any) -> Any:
    """The value of a feature (a number, or a tuple or mapping of them) as numpy's, which divide as columns do."""
    import numpy as np

    if isinstance(value, tuple):
        return tuple(map(_held, value))
    return {name: _held(each) for name, each in value.items()} if isinstance(value, dict) else np.float64(value)
