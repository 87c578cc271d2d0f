"""One column of a profile, and how the columns of a pandas frame become values that it takes.

A missing value is None, NaN, NaT or NA.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import PenstockError
from ..event import from_micros, to_micros
from ..records import Described, Frequent
from .exact import Pairs
from .summary import Numbers, Texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["QUANTILES", "ColumnProfile", "Values", "columns_of", "either", "present"]

QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Floats = npt.NDArray[np.float64]
Values = tuple[str, npt.NDArray[Any] | Sequence[Any]]
"""A column: its kind, and its values. bool, int, float, time (microseconds): arrays of numbers; text: strings or None; empty."""
_RANK: Final = {"empty": 0, "bool": 1, "int": 2, "float": 3}


class ColumnProfile:
    """One column. `missing` is by row, None where a column has no value at all."""

    __slots__ = ("kind", "missing", "numbers", "pairs", "rows", "texts")

    def __init__(self, kind: str = "empty") -> None:
        self.kind, self.rows, self.missing = kind, 0, 0
        self.numbers, self.texts, self.pairs = Numbers(), Texts(), Pairs()

    def add(self, values: Any, present: npt.NDArray[np.bool_], label: Floats | None = None) -> None:
        """Add values; what is not `present` is missing. `label` is beside each value, NaN where it is unknown."""
        kept = int(np.count_nonzero(present))
        self.rows += len(present)
        self.missing += len(present) - kept
        if self.kind == "text":
            self.texts.add(values if kept == len(present) else [v for v, there in zip(values, present, strict=True) if there])
        elif self.kind != "empty":
            numbers = np.asarray(values)[present]
            self.numbers.add(numbers)
            if label is not None and self.kind != "time":
                beside, floats = label[present], numbers.astype(np.float64)
                both = np.isfinite(beside) & np.isfinite(floats)
                self.pairs.add(floats[both], beside[both])

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        made = ColumnProfile(either(self.kind, other.kind))
        made.rows, made.missing = self.rows + other.rows, self.missing + other.missing
        made.numbers, made.texts = self.numbers.merge(other.numbers), self.texts.merge(other.texts)
        made.pairs = self.pairs.merge(other.pairs)
        return made

    def described(self) -> Described:
        """All of it in numbers."""
        numbers = self.texts.lengths if self.kind == "text" else self.numbers
        edges, counts = numbers.histogram()
        frequent: list[tuple[Any, int]] = list(self.texts.frequent() if self.kind == "text" else numbers.frequent())
        quantiles = dict(zip(map(str, QUANTILES), numbers.quantiles(QUANTILES), strict=False))
        distinct = self.texts.distinct if self.kind == "text" else numbers.distinct
        return Described(
            kind=self.kind,
            rows=self.rows,
            missing=self.missing,
            infinite=numbers.infinite,
            distinct=min(distinct.count, self.rows - self.missing),  # an estimate may lie above what there is
            distinct_exact=distinct.exact,
            least=_shown(self.kind, numbers.least),
            greatest=_shown(self.kind, numbers.greatest),
            mean=None if self.kind == "time" else _finite(numbers.moments.mean),
            std=None if self.kind == "time" else _finite(numbers.moments.std),
            quantiles={share: _shown(self.kind, value) for share, value in quantiles.items()},
            error=numbers.error,
            edges=[_shown(self.kind, edge) for edge in edges],
            counts=counts,
            frequent=[Frequent(value=_shown(self.kind, value), count=count) for value, count in frequent],
            frequent_low_by=self.texts.lost,
            correlation=self.pairs.correlation,
            correlated=self.pairs.n,
        )

    def state(self) -> list[Any]:
        return [self.kind, self.rows, self.missing, self.numbers.state(), self.texts.state(), self.pairs.state()]

    @classmethod
    def of_state(cls, state: list[Any]) -> ColumnProfile:
        made = cls(state[0])
        _, made.rows, made.missing, numbers, texts, pairs = state
        made.numbers, made.texts, made.pairs = Numbers.of_state(numbers), Texts.of_state(texts), Pairs.of_state(pairs)
        return made


def columns_of(frame: pd.DataFrame) -> dict[str, Values]:
    """The columns of a frame as a profile takes them; what is neither number, time nor text is described by its text."""
    return {str(name): _values_of(frame[name]) for name in frame.columns}


def _values_of(series: pd.Series[Any]) -> Values:
    from pandas.api import types

    if isinstance(series.dtype, types.pandas_dtype("category").__class__):
        series = series.astype(series.cat.categories.dtype)
    if types.is_bool_dtype(series.dtype) or types.is_numeric_dtype(series.dtype):
        return _numbers_of(series)
    if types.is_datetime64_any_dtype(series.dtype):
        utc = series if series.dt.tz is None else series.dt.tz_convert("UTC").dt.tz_localize(None)
        return "time", _micros_of(utc)
    if types.is_timedelta64_dtype(series.dtype):
        return "float", np.asarray(series.dt.total_seconds(), np.float64)
    return _objects_of(series.tolist(), series.isna().tolist())


def _numbers_of(series: pd.Series[Any]) -> Values:
    kind = "bool" if series.dtype.kind == "b" else "int" if series.dtype.kind in "iu" else "float"
    missing = series.isna()
    if kind == "float" or bool(missing.any()):
        return kind, series.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    values = series.to_numpy()
    if kind == "int" and len(values) and int(values.max()) >= 1 << 63:
        return "float", values.astype(np.float64)
    return kind, values.astype(np.bool_ if kind == "bool" else np.int64)


def _micros_of(series: pd.Series[Any]) -> npt.NDArray[Any]:
    values = series.to_numpy("datetime64[us]")
    if np.isnat(values).any():
        return np.where(np.isnat(values), np.nan, values.astype(np.int64))
    return values.astype(np.int64)


def _objects_of(values: list[Any], missing: list[bool]) -> Values:
    """A column of Python values: by what all of them are."""
    kinds = {type(value) for value, gone in zip(values, missing, strict=True) if not gone}
    if not kinds:
        return "empty", values
    if kinds == {bool}:
        return "bool", np.array([np.nan if gone else float(v) for v, gone in zip(values, missing, strict=True)])
    if kinds <= {int, float, bool}:
        numbers = [np.nan if gone else _double(v) for v, gone in zip(values, missing, strict=True)]
        return "int" if kinds <= {int, bool} else "float", np.array(numbers, np.float64)
    if all(issubclass(kind, datetime) for kind in kinds):
        moments = [np.nan if gone else to_micros(_zoned(v)) for v, gone in zip(values, missing, strict=True)]
        return "time", np.array(moments, np.float64)
    return "text", [None if gone else v if isinstance(v, str) else str(v) for v, gone in zip(values, missing, strict=True)]


def _double(value: float) -> float:
    """As float64; integers beyond it are infinite."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _zoned(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def present(kind: str, values: npt.NDArray[Any] | Sequence[Any]) -> npt.NDArray[np.bool_]:
    if kind == "empty":
        return np.zeros(len(values), np.bool_)
    if kind == "text":
        if None not in values:
            return np.ones(len(values), np.bool_)
        return np.fromiter((v is not None for v in values), np.bool_, len(values))
    array = np.asarray(values)
    return ~np.isnan(array) if array.dtype.kind == "f" else np.ones(len(array), np.bool_)


def either(one: str, other: str, name: str = "") -> str:
    """The kind of a column that is of both kinds."""
    if one == other or other == "empty":
        return one
    if one == "empty":
        return other
    if one in _RANK and other in _RANK:
        return max(one, other, key=_RANK.__getitem__)
    raise PenstockError(f"column {name!r} is {one} in one part and {other} in another", "convert it to one of them")


def _shown(kind: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if kind == "time":
        return from_micros(round(value)).isoformat()
    return bool(value) if kind == "bool" else int(value) if kind == "int" and float(value).is_integer() else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
