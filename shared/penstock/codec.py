"""Users' events between bytes and typed values, strictly: what does not fit the declaration is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from .errors import Refused
from .event import Column, Event, to_micros
from .expectation import Gate

if TYPE_CHECKING:  # `import penstock` stays light, and `penstock --help` quick
    import numpy as np
    import numpy.typing as npt

__all__ = ["FUTURE_MICROS", "MAX_BYTES", "EventDecoder", "entities_of", "entity_of"]

MAX_BYTES = 1 << 20
"""Larger events are refused: Kafka's own default bound, and far above what a row of columns needs."""
FUTURE_MICROS = 300 * 1_000_000
"""An event may be this far ahead of the wall clock (clock skew between hosts); beyond, its time is an error."""

_WIRE: dict[type, Any] = {
    str: str,
    int: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    float: float,
    bool: bool,
    datetime: Annotated[datetime, msgspec.Meta(tz=True)],
}
_NAMED: dict[type, Any] = {str: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)], int: _WIRE[int]}


class EventDecoder:
    """Decodes and validates one kind of event; what does not meet an expectation that dead-letters is refused, too.

    A decoded value is a msgspec Struct with the event's columns as attributes (`datetime` for times). Missing optional
    columns are None; unknown fields are ignored, so a producer may be ahead of us.
    """

    def __init__(self, event: Event, expectations: bool = True) -> None:
        """`expectations=False` is for whoever counts by itself which records do not meet them."""
        self.event = event
        named = (event.key, *([event.id] if event.id else []))
        fields: list[Any] = []
        for column in sorted(event.columns.values(), key=lambda c: c.optional):
            wire = _NAMED[column.type] if column in named else _WIRE[column.type]
            fields.append((column.name, wire | None, None) if column.optional else (column.name, wire))
        self.struct = msgspec.defstruct(event.type.__name__, fields, frozen=True)
        self._decode = msgspec.json.Decoder(self.struct).decode
        self._moment: Callable[[Any], datetime] = attrgetter(event.time.name)
        self._gate = Gate(event if expectations else None)

    def decode(self, value: bytes | None, now: float) -> Any:
        """One event. Raises Refused with reason decode, schema, range, too_large, future or expectation."""
        decoded = self._one(value, now)
        self._gate.check(decoded)
        return decoded

    def _one(self, value: bytes | None, now: float) -> Any:
        if value is None:
            raise Refused("decode", "the record has no value (a tombstone)")
        if len(value) > MAX_BYTES:
            raise Refused("too_large", f"{len(value)} bytes; an event has at most {MAX_BYTES}")
        try:
            if not value.isascii():
                value.decode()
            decoded = self._decode(value)
        except msgspec.ValidationError as error:
            raise Refused("schema", f"{self.event!r}: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("decode", f"not a JSON object of {self.event!r}: {error}") from None
        micros = to_micros(self._moment(decoded))
        if micros < 0:
            raise Refused("range", f"{self.event.time!r} lies before 1970")
        if micros > now * 1_000_000 + FUTURE_MICROS:
            raise Refused("future", f"{self.event.time!r} lies more than 5 minutes in the future")
        return decoded

    def decode_all(
        self, values: Sequence[bytes | None], now: float
    ) -> tuple[list[Any], npt.NDArray[np.int64], dict[int, Refused]]:
        """Events in order (None where one was refused), their times in microseconds (0 there), and the refusals by index."""
        refused: dict[int, Refused] = {}
        try:
            events, micros = self._straight(values, now)
        except (TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, Refused):
            events, micros, refused = self._one_by_one(values, now)
        if self._gate:
            places = [i for i in range(len(events)) if i not in refused] if refused else range(len(events))
            for at, refusal in self._gate.refused([events[i] for i in places] if refused else events).items():
                refused[places[at]], events[places[at]], micros[places[at]] = refusal, None, 0
        return events, micros, refused

    def _straight(self, values: Sequence[bytes | None], now: float) -> tuple[list[Any], npt.NDArray[np.int64]]:
        """All at once, for a batch in which nothing is wrong; raises when something is."""
        import numpy as np

        if not all(map(bytes.isascii, values)):  # type: ignore[arg-type]
            b"\n".join(values).decode()  # type: ignore[arg-type]
        if max(map(len, values), default=0) > MAX_BYTES:  # type: ignore[arg-type]
            raise Refused("too_large", "one of them")
        events = list(map(self._decode, values))  # type: ignore[arg-type]
        # exact until 2106: until then a second is a float64 to a quarter of a microsecond
        seconds = np.fromiter(map(datetime.timestamp, map(self._moment, events)), np.float64, len(events))
        micros = np.rint(seconds * 1e6).astype(np.int64)
        if len(micros) and not 0 <= micros.min() <= micros.max() <= now * 1_000_000 + FUTURE_MICROS:
            raise Refused("future", "one of them")
        return events, micros

    def _one_by_one(
        self, values: Sequence[bytes | None], now: float
    ) -> tuple[list[Any], npt.NDArray[np.int64], dict[int, Refused]]:
        import numpy as np

        events: list[Any] = [None] * len(values)
        micros, refused = np.zeros(len(values), np.int64), {}
        for index, value in enumerate(values):
            try:
                events[index] = self._one(value, now)
                micros[index] = to_micros(self._moment(events[index]))
            except Refused as refusal:
                refused[index] = refusal
        return events, micros, refused


def entity_of(columns: tuple[Column, ...], event: Any) -> str | None:
    """The name of the entity in an event; None when a part of it is missing (missing ones are never one entity).

    A compound key is a JSON array, so that ("1", "11") and ("11", "1") differ.
    """
    if len(columns) == 1:
        value = getattr(event, columns[0].name)
        return None if value is None else str(value)
    values = [getattr(event, column.name) for column in columns]
    return None if None in values else msgspec.json.encode(values).decode()


def entities_of(columns: tuple[Column, ...], events: Sequence[Any]) -> list[str | None]:
    """`entity_of` each event."""
    if len(columns) > 1:
        return [entity_of(columns, event) for event in events]
    column = columns[0]
    values: list[Any] = list(map(attrgetter(column.name), events))
    return values if column.type is str else [None if v is None else str(v) for v in values]
