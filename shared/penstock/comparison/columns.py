"""Columns of a pandas frame as what can be counted: numbers, or codes of levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Kind", "Values", "as_kind", "common", "values_of"]

Kind: TypeAlias = Literal["numbers", "levels", "bool", "times", "empty"]
TRUTHS: Final = ("false", "true")


class Values(NamedTuple):
    """A column: numbers (rows,) float64 with NaN where missing; or codes (rows,), places in `levels`, -1 where missing."""

    kind: Kind
    numbers: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]
    levels: tuple[str, ...]


_NO_NUMBERS: Final = np.zeros(0)
_NO_CODES: Final = np.zeros(0, np.int64)


def values_of(series: pd.Series[Any]) -> Values:
    """Missing is None, NaN, NaT or NA. What is neither number nor time is compared by its text."""
    from pandas.api import types

    if isinstance(series.dtype, types.pandas_dtype("category").__class__):
        return _levels(np.asarray(series.cat.codes, np.int64), list(series.cat.categories))
    if types.is_datetime64_any_dtype(series.dtype):
        return Values("times", _NO_NUMBERS, _NO_CODES, ())
    if types.is_timedelta64_dtype(series.dtype):
        return _numbers(series.dt.total_seconds())
    if types.is_bool_dtype(series.dtype):
        return _truths(series)
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return _numbers(series)
    inferred = types.infer_dtype(series, skipna=True)
    if inferred == "empty" or bool(series.isna().all()):
        return Values("empty", np.full(len(series), np.nan), np.full(len(series), -1, np.int64), ())
    if inferred == "boolean":
        return _truths(series)
    if inferred in ("integer", "floating", "mixed-integer-float", "decimal"):
        return _numbers(_doubles(series))
    if inferred in ("datetime", "datetime64", "date"):
        return Values("times", _NO_NUMBERS, _NO_CODES, ())
    return _texts(series)


def _numbers(series: pd.Series[Any]) -> Values:
    missing = series.isna().to_numpy(bool)
    numbers = series.fillna(0).to_numpy(np.float64) if missing.any() else series.to_numpy(np.float64)
    return Values("numbers", np.where(missing, np.nan, numbers) if missing.any() else numbers, _NO_CODES, ())


def _doubles(series: pd.Series[Any]) -> pd.Series[Any]:
    """Python numbers as float64; integers beyond it are infinite."""

    def double(value: Any) -> float:
        try:
            return float(value)
        except OverflowError:
            return np.inf if value > 0 else -np.inf

    return series.map(double, na_action="ignore").astype(np.float64)


def _truths(series: pd.Series[Any]) -> Values:
    missing = series.isna().to_numpy(bool)
    codes = series.fillna(False).to_numpy(bool).astype(np.int64) if missing.any() else series.to_numpy(bool).astype(np.int64)
    codes[missing] = -1
    return Values("bool", _NO_NUMBERS, codes, TRUTHS)


def _texts(series: pd.Series[Any]) -> Values:
    import pandas as pd

    try:
        codes, found = pd.factorize(series)
    except TypeError:  # lists, dicts: no hash
        codes, found = pd.factorize(series.map(str, na_action="ignore"))
    return _levels(np.asarray(codes, np.int64), np.asarray(found, object).tolist())


def _levels(codes: npt.NDArray[np.int64], found: list[Any]) -> Values:
    """Values that are written alike (1 and "1") are one level."""
    names = [value if isinstance(value, str) else str(value) for value in found]
    try:
        "".join(names).encode()
    except UnicodeEncodeError:  # half a surrogate pair is no text
        names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    if len(set(names)) == len(names):
        return Values("levels", _NO_NUMBERS, codes, tuple(names))
    places: dict[str, int] = {}
    place = [places.setdefault(name, len(places)) for name in names]
    return Values("levels", _NO_NUMBERS, np.array([*place, -1], np.int64)[codes], tuple(places))


def common(one: Kind, other: Kind) -> Kind | None:
    """The kind as which both can be compared; None where there is none.

    >>> common("bool", "numbers"), common("empty", "levels"), common("numbers", "levels")
    ('numbers', 'levels', None)
    """
    if one == other or other == "empty":
        return one
    if one == "empty":
        return other
    return "numbers" if {one, other} == {"bool", "numbers"} else None


def as_kind(values: Values, kind: Kind) -> Values:
    """The same column as of the `common` kind."""
    if values.kind == "bool" and kind == "numbers":
        return Values(kind, np.where(values.codes < 0, np.nan, values.codes), _NO_CODES, ())
    return values._replace(kind=kind)
