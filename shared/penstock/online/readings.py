"""Readings: what a read of many rows found, and the forms in which people want it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..event import from_micros, to_micros
from .freshness import STATUSES

if TYPE_CHECKING:
    import pandas as pd

    from .query import Answer

__all__ = ["Reading", "Readings"]


@dataclass(frozen=True)
class Reading:
    """What one view says of one entity: `values` by name, None where missing, with windows that end at `as_of` (microseconds).

    `status` is one of `freshness.STATUSES`; `age` is seconds from the view's newest event to `as_of`, None when there was none.
    What the store cannot know is how far behind the stream it is.
    """

    values: Mapping[str, float | None]
    as_of: int
    status: str
    age: float | None = None


@dataclass(frozen=True, eq=False)
class Readings:
    """n rows of values, and how each view stands in each row.

    `columns` name the values (`"Card.spend_24h"`); `values` is float64 (n, columns), NaN where missing, in the order asked for.
    Per row and view of `views`, (n, views): `codes` are places in `freshness.STATUSES`, `as_of` is when its windows end, and
    `newest` the time of its newest event (microseconds since 1970; -1: there was none).
    """

    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]
    views: tuple[str, ...]
    codes: npt.NDArray[np.int8]
    as_of: npt.NDArray[np.int64]
    newest: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> dict[str, Reading]:
        """One row, by view."""
        found = [None if math.isnan(v) else v for v in self.values[row].tolist()]
        values: dict[str, dict[str, float | None]] = {view: {} for view in self.views}
        for name, value in zip(self.columns, found, strict=True):
            view, _, feature = name.partition(".")
            values[view][feature] = value
        return {
            view: Reading(
                values[view],
                int(self.as_of[row, at]),
                STATUSES[self.codes[row, at]],
                None if self.newest[row, at] < 0 else int(self.as_of[row, at] - self.newest[row, at]) / 1e6,
            )
            for at, view in enumerate(self.views)
        }

    @cached_property
    def status(self) -> dict[str, list[str]]:
        """By view, how it stands in each row: one of `freshness.STATUSES`."""
        return {view: [STATUSES[c] for c in self.codes[:, at].tolist()] for at, view in enumerate(self.views)}

    @cached_property
    def age(self) -> dict[str, npt.NDArray[np.float64]]:
        """By view, seconds from its newest event to when its windows end, (n,); NaN where it had none."""
        ages = np.where(self.newest < 0, np.nan, (self.as_of - self.newest) / 1e6)
        return {view: ages[:, at] for at, view in enumerate(self.views)}

    def to_dict(self) -> dict[str, Any]:
        """As the JSON answer: columns of values by name, and by view its status, age and as_of. None where missing."""
        values = np.where(np.isnan(self.values), None, self.values.astype(object))  # type: ignore[call-overload]
        ages = {view: [None if math.isnan(a) else a for a in age.tolist()] for view, age in self.age.items()}
        return {
            "features": {name: values[:, at].tolist() for at, name in enumerate(self.columns)},
            "views": {
                view: {
                    "status": self.status[view],
                    "age": ages[view],
                    "as_of": [from_micros(micros) for micros in self.as_of[:, at].tolist()],
                }
                for at, view in enumerate(self.views)
            },
        }

    @classmethod
    def from_answer(cls, answer: Answer) -> Readings:
        """The inverse of `to_dict`."""
        values = np.array(list(answer.features.values()), np.float64).T  # None becomes NaN
        codes = np.array([list(map(STATUSES.index, view.status)) for view in answer.views.values()], np.int8).T
        as_of = np.array([list(map(to_micros, view.as_of)) for view in answer.views.values()], np.int64).T
        ages = np.array([view.age for view in answer.views.values()], np.float64).T
        newest = np.where(np.isnan(ages), -1, as_of - np.rint(np.nan_to_num(ages) * 1e6).astype(np.int64))
        return cls(tuple(answer.features), values, tuple(answer.views), codes, as_of, newest)

    def to_pandas(self, status: bool = False) -> pd.DataFrame:
        """A frame of the values, a row for each key asked about, in order; with `status` also `<view>:status`, `<view>:age`
        (seconds) and `<view>:as_of` of each view."""
        import pandas as pd

        frame = pd.DataFrame(self.values, columns=list(self.columns))
        if status:
            for at, view in enumerate(self.views):
                frame[f"{view}:status"] = self.status[view]
                frame[f"{view}:age"] = self.age[view]
                frame[f"{view}:as_of"] = pd.to_datetime(self.as_of[:, at], unit="us", utc=True)
        return frame

    def to_arrow(self) -> Any:
        """A pyarrow.RecordBatch: the values as float64 columns (null where missing), and of each view `<view>:status` (a
        dictionary of text), `<view>:newest` and `<view>:as_of` (timestamps in UTC; newest is null where there was no event)."""
        pa = import_module("pyarrow")  # untyped: a user's own mypy would trip over it
        n, (schema, moment, words) = len(self), _schema(self.columns, self.views)

        def columns(of: Any, matrix: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> list[Any]:
            """Each column as it lies in memory. `pa.array` takes longer, and imports pandas: seconds, and 40 MB."""
            data = pa.py_buffer(np.ascontiguousarray(matrix.T))
            valid = [None] * matrix.shape[1]
            for at in np.flatnonzero(missing.any(axis=0)).tolist():
                valid[at] = pa.py_buffer(np.packbits(~missing[:, at], bitorder="little"))
            size = n * matrix.itemsize
            return [pa.Array.from_buffers(of, n, [some, data.slice(at * size, size)]) for at, some in enumerate(valid)]

        arrays, never = columns(pa.float64(), self.values, np.isnan(self.values)), self.newest < 0
        none = np.zeros_like(never)
        codes = columns(pa.int8(), self.codes, none)
        for code, newest, as_of in zip(
            codes, columns(moment, self.newest, never), columns(moment, self.as_of, none), strict=True
        ):
            arrays += pa.DictionaryArray.from_arrays(code, words), newest, as_of
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    @classmethod
    def from_arrow(cls, batch: Any) -> Readings:
        """The inverse of `to_arrow`."""
        pa = import_module("pyarrow")
        names = batch.schema.names
        columns = tuple(name for name in names if ":" not in name)
        views = tuple(name.removesuffix(":status") for name in names if name.endswith(":status"))
        values = np.array(batch.select(columns).to_tensor(null_to_nan=True).to_numpy()).reshape(batch.num_rows, len(columns))
        codes = np.empty((batch.num_rows, len(views)), np.int8)
        as_of, newest = np.empty(codes.shape, np.int64), np.empty(codes.shape, np.int64)
        for at, view in enumerate(views):
            codes[:, at] = batch.column(f"{view}:status").indices
            as_of[:, at] = batch.column(f"{view}:as_of").view(pa.int64())
            newest[:, at] = batch.column(f"{view}:newest").view(pa.int64()).fill_null(-1)
        return cls(columns, values, views, codes, as_of, newest)


@lru_cache(maxsize=1000)
def _schema(columns: tuple[str, ...], views: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Of these columns and views: the schema of `to_arrow`, its type of moments, the words of its dictionaries. Made once: it
    takes a tenth of a short read."""
    pa = import_module("pyarrow")
    fields, moment = [pa.field(name, pa.float64()) for name in columns], pa.timestamp("us", "UTC")
    for view in views:
        fields.append(pa.field(f"{view}:status", pa.dictionary(pa.int8(), pa.string())))
        fields += pa.field(f"{view}:newest", moment), pa.field(f"{view}:as_of", moment)
    ends = np.cumsum([0, *map(len, STATUSES)], dtype=np.int32)
    words = pa.StringArray.from_buffers(len(STATUSES), pa.py_buffer(ends), pa.py_buffer("".join(STATUSES).encode()))
    return pa.schema(fields), moment, words
