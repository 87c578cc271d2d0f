"""Rows in, as columns: finished rows of one event become values, decoding only what some model wants.

An input is `Event.column` (from the event inside the row) or `View.feature` (from the row's features). Missing is None, NaN
in the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec.structs import astuple

from penstock.errors import Refused
from penstock.event import Event
from penstock.inputs import Matrix
from penstock.model import Model
from penstock.segment import Segment

__all__ = ["RowReader", "Rows", "Values", "matrix", "segmented"]

Values = tuple[float | None, ...]
Pick = Callable[[Values], Values]


def matrix(values: Sequence[Values], width: int) -> Matrix:
    """Values as float32 (rows, width): what every scorer takes. Beyond float32 is infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32).reshape(len(values), width)


def segmented(segments: Sequence[Segment], events: Sequence[Any]) -> list[dict[str, str]]:
    """The levels of events, by segment; nothing where there are no segments."""
    if not segments:
        return []
    found = [(segment.name, segment.level, attrgetter(segment.column.name)) for segment in segments]
    return [{name: level(value(event)) for name, level, value in found} for event in events]


@dataclass
class Rows:
    """Rows that could be read, as parallel columns, and by index the refusals of those that could not."""

    ids: list[str] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    """What was decoded of the event of each row: the columns that are inputs of some model, or segments."""
    places: list[int] = field(default_factory=list)
    """Index of each row among the records given."""
    refused: dict[int, Refused] = field(default_factory=dict)


class RowReader:
    """Reads rows of `event` for the models that score it. `names` is the order of `Rows.values`: the first model's
    inputs, then what others want beside."""

    def __init__(self, event: Event, models: Sequence[Model]) -> None:
        self.names = tuple(dict.fromkeys(name for model in models for name in model.inputs))
        apart = {segment.column for model in models for segment in model.segments}
        columns = [column for column in event.columns.values() if repr(column) in self.names or column in apart]
        lenient = {
            c for c in columns if c.optional or repr(c) not in self.names
        }  # a row may be older than the column of a segment
        columns.sort(key=lambda column: column in lenient)  # as Structs want their fields
        owned = [repr(column) for column in columns]
        features = {f"f{n}": name for n, name in enumerate(self.names) if name not in owned}
        wanted: list[Any] = [
            (c.name, (c.type if c.type in (bool, str) else float) | None, *([None] if c in lenient else [])) for c in columns
        ]
        fields: list[Any] = [
            ("id", Annotated[str, msgspec.Meta(min_length=1)]),
            ("time", Annotated[datetime, msgspec.Meta(tz=True)]),
            ("event", msgspec.defstruct(repr(event), wanted, gc=False)),
            ("features", msgspec.defstruct("features", [(n, float | None) for n in features], rename=features, gc=False)),
        ]
        row: Any = msgspec.defstruct("Row", fields, gc=False)
        self._decode = msgspec.json.Decoder(row).decode
        self._order = _picker([*owned, *features.values()], self.names)
        self._bools = any(column.type is bool and repr(column) in self.names for column in columns)

    def read(self, records: Sequence[bytes | None]) -> Rows:
        """Decode; what does not fit is refused (decode, schema) and leaves the others alone."""
        rows, decode, order = Rows(), self._decode, self._order
        for place, record in enumerate(records):
            try:
                row = decode(record or b"")
            except msgspec.ValidationError as error:
                rows.refused[place] = Refused("schema", f"row: {error}")
                continue
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                rows.refused[place] = Refused("decode", f"row: {error}")
                continue
            values = astuple(row.event) + astuple(row.features)
            rows.ids.append(row.id)
            rows.times.append(row.time)
            rows.values.append(values if order is None else order(values))
            rows.events.append(row.event)
            rows.places.append(place)
        if self._bools:
            rows.values = [tuple(float(v) if type(v) is bool else v for v in values) for values in rows.values]
        return rows

    def picker(self, model: Model) -> Pick | None:
        """What takes one model's inputs out of a row's values; None when it is all of them, in order."""
        return _picker(self.names, model.inputs)


def _picker(have: Sequence[str], want: Sequence[str]) -> Pick | None:
    if list(have) == list(want):
        return None
    places = [have.index(name) for name in want]
    if len(places) == 1:
        return lambda values: (values[places[0]],)
    return itemgetter(*places)
