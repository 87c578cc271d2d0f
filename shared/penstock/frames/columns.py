"""Columns of DataFrames as the arrays that the kernel takes, as strictly as the stream takes fields of JSON.

What the stream would refuse (a text where a number is declared, a time without a zone, a required value that is missing) is
refused here as well, so that features computed in a notebook are those that production would compute. NaN, None, NaT and NA
are missing; columns that nobody declared are ignored.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..aggregate import code
from ..errors import PenstockError
from ..event import Column
from ..mistake import nearest

__all__ = ["MISSING", "arrived", "codes", "combined", "entities", "micros", "numbers", "place", "texts"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Series = Any  # pandas-stubs' Series of one dtype would not fit what users bring

MISSING = int(np.iinfo(np.int64).min)
"""A time that is missing, as pandas and numpy write it."""
_NUMERIC = ("boolean", "integer", "floating", "mixed-integer-float", "empty")


def place(frame: pd.DataFrame, name: str, said: str) -> Series:
    """A column by name; `said` is what the frame is called in errors."""
    if not isinstance(frame, pd.DataFrame):
        raise PenstockError(f"{said} is a {type(frame).__name__}, not a DataFrame", "give a pandas.DataFrame")
    found = frame.columns.get_indexer_for(pd.Index([name]))
    if len(found) != 1 or found[0] < 0:
        many = f"has {len(found)} columns {name}" if len(found) > 1 else f"has no column {name}"
        raise PenstockError(f"{said} {many}", nearest(name, [str(c) for c in frame.columns]))
    return frame.iloc[:, int(found[0])]


def micros(series: Series, said: str) -> Ints:
    """Microseconds since 1970 UTC, `MISSING` where there is none; any zones, also mixed ones."""
    fix = f'pd.to_datetime(frame["{series.name}"], utc=True, format="ISO8601")   reads texts and naive times as UTC'
    if isinstance(series.dtype, pd.ArrowDtype) and getattr(series.dtype.pyarrow_dtype, "tz", None):
        series = series.astype("datetime64[us, UTC]")
    elif series.dtype == object:
        if any(not isinstance(v, datetime.datetime) or v.tzinfo is None for v in series[series.notna()]):
            raise PenstockError(f"{said} holds what is no time with a zone", fix)
        series = pd.to_datetime(series, utc=True)
    elif not isinstance(series.dtype, pd.DatetimeTZDtype):
        naive = pd.api.types.is_datetime64_any_dtype(series.dtype)
        raise PenstockError(f"{said} is {series.dtype}{': times without a zone' if naive else ', not a time with a zone'}", fix)
    found: Ints = series.dt.tz_convert(None).to_numpy("datetime64[us]").view(np.int64)
    if len(found) and ((found < 0) & (found != MISSING)).any():
        raise PenstockError(f"{said} lies before 1970 in some rows", "leave these rows out")
    return found


def arrived(times: Ints, partition: Series, offset: Series) -> tuple[Ints, Ints]:
    """What time it was in its partition when each event arrived, the running maximum of time in the order of offsets; and the
    place of each in the order of (partition, offset)."""
    number = pd.factorize(partition)[0]
    order = np.lexsort((offset.to_numpy(np.int64), number))
    newest = np.empty(len(times), np.int64)
    for own in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        newest[own] = np.maximum.accumulate(times[own])
    turns = np.empty(len(times), np.int64)
    turns[order] = np.arange(len(times))
    return newest, turns


def numbers(series: Series, column: Column) -> Floats:
    """A declared number, float64, NaN where missing; integers beyond 64 bits, infinities and fractions of an int are refused,
    and missing values of a column that must have one."""
    return _present(_floats(series, column), column)


def _present(found: Floats, column: Column) -> Floats:
    missing = int(np.isnan(found).sum())
    if missing and not column.optional:
        raise PenstockError(
            f"{column!r} is missing in {missing:,} rows, and the stream refuses such events: it is a {column.type.__name__}",
            f"declare it {column.type.__name__} | None, or leave these rows out",
        )
    return found


def _floats(series: Series, column: Column) -> Floats:
    if series.dtype == object:
        fits = pd.api.types.infer_dtype(series, skipna=True) in _NUMERIC
    else:
        fits = pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_any_real_numeric_dtype(series.dtype)
    if not fits:
        raise PenstockError(
            f"{column!r} is declared {column.type.__name__}, and its frame has {series.dtype}",
            f'pd.to_numeric(frame["{column.name}"])   or declare the column as what it is',
        )
    try:
        found: Floats = series.to_numpy(np.float64, na_value=np.nan)
    except OverflowError:
        found = np.array([np.inf])
    if np.isinf(found).any():
        raise PenstockError(
            f"{column!r} is infinite or beyond float64 in some rows, which no event can be",
            "leave these rows out, or make them NaN",
        )
    if column.type is int and ((np.abs(found) >= 2.0**63) | (found != np.floor(found)) & ~np.isnan(found)).any():
        raise PenstockError(
            f"{column!r} is declared int, and has fractions or integers beyond 64 bits", "declare it float, or correct the values"
        )
    return found


def codes(series: Series, column: Column) -> Floats:
    """A declared text as the numbers that stand for texts in rows, NaN where missing."""
    which, names = pd.factorize(texts(series, column))
    return _present(np.array([*map(code, names), np.nan])[which], column)


def texts(series: Series, column: Column) -> Series:
    """A declared text, or an integer that names something, as a Series that pandas can factorize; missing values stay."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.dtype.categories.dtype)
    if column.type is str:
        text = isinstance(series.dtype, pd.StringDtype) or pd.api.types.infer_dtype(series, skipna=True) in ("string", "empty")
        if not text and len(series):
            raise PenstockError(
                f'{column!r} is declared str, and its frame has {series.dtype}: "1" and 1 are two names',
                f'frame["{column.name}"].astype("string")   or declare the column int',
            )
        return series.astype(object)
    found = _floats(series, column)
    if pd.api.types.is_integer_dtype(series.dtype):
        return series.astype("Int64").astype(object) if series.isna().any() else series.astype(np.int64)
    if (np.abs(found) > 2.0**53).any() and series.dtype != object:
        raise PenstockError(f"{column!r} is an integer, and floats beyond 2^53 cannot tell its values apart", 'astype("Int64")')
    return pd.Series([None if f != f else int(v) for f, v in zip(found, series, strict=True)], dtype=object)


def entities(parts: Sequence[tuple[pd.DataFrame, Sequence[Column], str]]) -> list[Ints]:
    """The entity of each row of several frames, numbered across all of them from 0; -1 where a part of its name is missing.

    Each part gives the columns that name the entity in it. A name of several columns is the tuple of their values, so
    ("1", "11") and ("11", "1") are two; the name 1 and the name "1" of single columns are one, as in the stream.
    """
    codes: Ints = np.empty(0, np.int64)
    for i in range(len(parts[0][1])):
        named = [texts(place(frame, columns[i].name, said), columns[i]) for frame, columns, said in parts]
        if len(parts[0][1]) == 1 and len({columns[0].type for _, columns, _ in parts}) > 1:
            named = [s.map(str, na_action="ignore") for s in named]
        if len({str(s.dtype) for s in named}) > 1:
            named = [s.astype(object) for s in named]
        found = pd.factorize(pd.concat(named, ignore_index=True))[0].astype(np.int64)
        codes = found if not i else combined([codes, found])
    return np.split(codes, np.cumsum([len(frame) for frame, _, _ in parts])[:-1])


def combined(codes: Sequence[Ints]) -> Ints:
    """Several numberings of the same rows as one, from 0; -1 where one of them is."""
    whole = codes[0]
    for more in codes[1:]:  # numbered anew at each step: the product of many sizes would overflow
        named = (whole >= 0) & (more >= 0)
        pairs = whole[named] * (int(more.max(initial=0)) + 1) + more[named]
        whole = np.full(len(whole), -1, np.int64)
        whole[named] = pd.factorize(pairs)[0]
    return whole
