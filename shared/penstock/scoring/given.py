"""Rows as people have them, as the matrix that every scorer takes.

    a frame or a pyarrow table     its columns, by name
    mappings                       one a row, by name; None is a missing value
    an array                       (rows, inputs), in the order of the model; NaN is a missing value

An input is called as the model calls it: `Flight.distance`, `Origin.flights_1h`. Columns of the scored event may go by their
own name, `distance`. Other columns are left alone. Numbers pass through float64, as JSON numbers on the stream do, so that
every way to a score rounds them alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.errors import DefinitionError, Refused
from penstock.inputs import Floats, Matrix
from penstock.mistake import nearest

__all__ = ["called", "column", "matrix"]


def called(inputs: Sequence[str], event: str, there: Iterable[str]) -> dict[str, str]:
    """By input, what it is called among the names that are there. DefinitionError names the first that is not."""
    names = list(there)
    found = {}
    for name in inputs:
        own, _, short = name.partition(".")
        if name in names:
            found[name] = name
        elif own == event and short in names:
            found[name] = short
        else:
            raise DefinitionError(f"the rows have no {name}, which the model takes", nearest(name, names))
    return found


def matrix(rows: Any, inputs: Sequence[str], event: str) -> Matrix:
    """float32 (rows, inputs), NaN for missing. `event` is what the scored event is called.

    DefinitionError where an input is not there; Refused (schema) names the first value that is no number.
    """
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2 or rows.shape[1] != len(inputs) or rows.dtype.kind not in "fiub":
            raise DefinitionError(
                f"the array is {rows.dtype} {list(rows.shape)}, not numbers [rows, {len(inputs)}]",
                f"give the inputs in this order: {', '.join(inputs)}",
            )
        wide = rows if rows.dtype == np.float32 else rows.astype(np.float64)
    elif hasattr(rows, "column_names"):  # pyarrow
        names = called(inputs, event, rows.column_names)
        wide = _beside([column(rows[names[name]], name) for name in inputs], len(rows))
    elif hasattr(rows, "columns"):
        names = called(inputs, event, rows.columns)
        wide = _beside([_series(rows[names[name]], name) for name in inputs], len(rows))
    else:
        wide = _mapped(list(rows), inputs, event)
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return np.ascontiguousarray(wide, np.float32)


def column(values: Any, name: str) -> Floats:
    """A pyarrow column as float64, null as NaN. Refused (schema) where it holds no numbers."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise Refused("schema", f"{name} is {kind}, not a number")
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def _series(values: Any, name: str) -> Floats:
    try:
        return np.asarray(values.to_numpy(np.float64, na_value=np.nan), np.float64)
    except (TypeError, ValueError):
        raise Refused("schema", f"{name} is {values.dtype}, and not all of it is numbers") from None


def _beside(columns: Sequence[Floats], rows: int) -> Floats:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0))


def _mapped(rows: Sequence[Any], inputs: Sequence[str], event: str) -> Floats:
    found = np.empty((len(rows), len(inputs)))
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise Refused("schema", f"row {place} is a {type(row).__name__}, not a mapping from names to numbers")
        for at, (name, there) in enumerate(called(inputs, event, row).items()):
            value = row[there]
            if value is not None and not isinstance(value, bool | int | float | np.bool_ | np.number):
                raise Refused("schema", f"row {place} has {value!r:.80} for {name}, not a number")
            found[place, at] = np.nan if value is None else float(value)
    return found
