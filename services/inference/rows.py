"""Rows in, as columns: finished rows of one event become a matrix, decoding only what some model wants.

An input is `Event.column` (from the event inside the row) or `View.feature` (from the row's features). Missing is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec.structs import astuple

from penstock.errors import Refused
from penstock.event import Event
from penstock.inputs import Matrix
from penstock.model import Model

__all__ = ["Inputs", "RowReader", "Rows", "Values", "matrix"]

Values = tuple[float | None, ...]


def matrix(values: Sequence[Sequence[float | None]], width: int) -> Matrix:
    """Values (None for missing) as float32 (rows, width): what every scorer takes. Beyond float32 is infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32).reshape(len(values), width)


class Inputs:
    """The inputs of one model: their JSON as used, in the model's order, filled by position."""

    def __init__(self, model: Model) -> None:
        self.names = model.inputs
        fields: list[Any] = [(f"i{n}", float | None) for n in range(len(self.names))]
        rename = {f"i{n}": name for n, name in enumerate(self.names)}
        self._struct = msgspec.defstruct("Inputs", fields, rename=rename, gc=False)
        self._encode = msgspec.json.Encoder().encode

    def json(self, values: Values) -> msgspec.Raw:
        """One row's inputs as a JSON object; NaN and None are null."""
        return msgspec.Raw(self._encode(self._struct(*values)))


@dataclass
class Rows:
    """Rows that could be read, as parallel columns, and by index the refusals of those that could not."""

    ids: list[str] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Index of each row among the values given."""
    refused: dict[int, Refused] = field(default_factory=dict)


class RowReader:
    """Reads rows of `event` for the models that score it. `names` is the order of `Rows.values`: the first model's
    inputs, then what others want beside."""

    def __init__(self, event: Event, models: Sequence[Model]) -> None:
        items = {repr(item): item for model in models for item in model.items}
        owned = {repr(column): column for column in event.columns.values()}
        columns = [owned[name] for name in items if name in owned]
        features = [name for name in items if name not in owned]
        fields: list[Any] = [
            ("id", Annotated[str, msgspec.Meta(min_length=1)]),
            ("time", Annotated[datetime, msgspec.Meta(tz=True)]),
        ]
        if columns:
            wanted: list[Any] = [
                (c.name, bool | None if c.type is bool else float | None, *([None] if c.optional else []))
                for c in sorted(columns, key=lambda c: c.optional)
            ]
            fields.append(("event", msgspec.defstruct(repr(event), wanted, gc=False)))
        if features:
            named = {f"f{n}": name for n, name in enumerate(features)}
            found = msgspec.defstruct("features", [(n, float | None) for n in named], rename=named, gc=False)
            fields.append(("features", found))
        self._decode = _decoder(msgspec.defstruct("Row", fields, gc=False))
        read = [repr(c) for c in sorted(columns, key=lambda c: c.optional)] + features
        self.names = tuple(items)
        self._values = _values(bool(columns), bool(features), read, self.names)
        self._flags = [n for n, name in enumerate(self.names) if name in owned and owned[name].type is bool]

    def read(self, values: Sequence[bytes | None]) -> Rows:
        """Decode; what does not fit is refused (decode, schema) and leaves the others alone."""
        rows, decode, pick = Rows(), self._decode, self._values
        ids, times, picked, places = rows.ids, rows.times, rows.values, rows.places
        for place, value in enumerate(values):
            try:
                row = decode(value or b"")
            except msgspec.ValidationError as error:
                rows.refused[place] = Refused("schema", f"row: {error}")
                continue
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                rows.refused[place] = Refused("decode", f"row: {error}")
                continue
            ids.append(row.id)
            times.append(row.time)
            picked.append(pick(row))
            places.append(place)
        if self._flags:
            rows.values = [self._numbers(found) for found in picked]
        return rows

    def _numbers(self, found: Values) -> Values:
        numbers = list(found)
        for n in self._flags:
            value = numbers[n]
            numbers[n] = None if value is None else float(value)
        return tuple(numbers)

    def of(self, model: Model) -> Callable[[Values], Values] | None:
        """What takes one model's inputs out of a row's values; None when it is all of them, in order."""
        return _picker(self.names, model.inputs)


def _decoder(struct: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(struct).decode


def _picker(have: Sequence[str], want: Sequence[str]) -> Callable[[Values], Values] | None:
    if list(have) == list(want):
        return None
    places = [have.index(name) for name in want]
    if len(places) == 1:
        only = places[0]
        return lambda values: (values[only],)
    return itemgetter(*places)


def _values(columns: bool, features: bool, read: Sequence[str], names: Sequence[str]) -> Callable[[Any], Values]:
    """What makes a row's values, in the order of `names`, from its decoded parts."""
    taken: Callable[[Any], Values]
    if columns and features:
        taken = lambda row: astuple(row.event) + astuple(row.features)  # noqa: E731
    elif columns:
        taken = lambda row: astuple(row.event)  # noqa: E731
    else:
        taken = lambda row: astuple(row.features)  # noqa: E731
    order = _picker(read, names)
    return taken if order is None else lambda row: order(taken(row))
