"""Expectations on frames: an event as a pandera schema.

schema = ps.expectations(Payment)
schema.validate(frame, lazy=True)       # pandera.errors.SchemaErrors lists every failing row
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..event import Column, Event, event_of
from ..expectation import Among, Between, Expectation, Matches, Present, Remembering, Rule

if TYPE_CHECKING:  # `import penstock` stays light; pandera takes seconds to import
    import pandas as pd
    import pandera.pandas as pa

__all__ = ["expectations"]


def expectations(event: type) -> pa.DataFrameSchema:
    """The schema of frames of this event: its columns with their kinds, and all that `ps.expect` declares, by name.

    A frame is taken as it is, without conversion; other columns may be there. Text columns hold str, times are datetimes with a
    zone. `unique` and `rising` go by the order of the rows. Needs the package pandera (pip install "penstock[feature_store]").
    """
    import pandera.pandas as pa

    declared = event_of(event)
    single = [e for e in declared.expectations if isinstance(e, Between | Among | Matches)]
    whole = [e for e in declared.expectations if isinstance(e, Rule | Remembering)]
    needed = {e.columns[0].name for e in declared.expectations if isinstance(e, Present)}
    columns = {
        name: pa.Column(
            checks=[
                pa.Check(_of_kind(column), name="kind", error=f"holds {column.kind}"),
                *(_check(pa, e) for e in single if e.columns[0] is column),
            ],
            nullable=column.optional and name not in needed,
        )
        for name, column in declared.columns.items()
    }
    checks = [pa.Check(_judged(e, declared), name=e.name, error=e.name, ignore_na=False) for e in whole]
    return pa.DataFrameSchema(columns, checks=checks, name=repr(declared))


def _check(pa: Any, expectation: Expectation) -> Any:
    said = {"name": expectation.name, "error": expectation.said}
    if isinstance(expectation, Between):
        low, high = expectation.bounds
        if low is None:
            return pa.Check.less_than_or_equal_to(high, **said)
        return pa.Check.greater_than_or_equal_to(low, **said) if high is None else pa.Check.in_range(low, high, **said)
    if isinstance(expectation, Among):
        return pa.Check.isin(sorted(expectation.values), **said)
    assert isinstance(expectation, Matches)
    return pa.Check.str_matches(rf"(?:{expectation.pattern})\Z", **said)  # pandera's matches the beginning only


def _of_kind(column: Column) -> Callable[[pd.Series[Any]], bool]:
    def holds(series: pd.Series[Any]) -> bool:
        from pandas.api import types

        if not len(series):
            return True
        if column.kind == "text":
            return bool(series.map(lambda value: isinstance(value, str)).all())
        if column.kind == "time":
            return bool(types.is_datetime64_any_dtype(series.dtype) and series.dt.tz is not None)
        if series.dtype == object:
            return bool(series.map(lambda value: isinstance(value, int | float)).all())
        return bool(types.is_numeric_dtype(series.dtype) or types.is_bool_dtype(series.dtype))

    return holds


def _judged(expectation: Expectation, event: Event) -> Callable[[pd.DataFrame], pd.Series[bool]]:
    """A check of whole rows, by the expectation's own verdict."""

    def met(frame: pd.DataFrame) -> pd.Series[bool]:
        import pandas as pd

        names = list(dict.fromkeys([*(c.name for c in expectation.columns), event.key.name, event.time.name]))
        plain = {
            name: [None if gone else v for v, gone in zip(frame[name].tolist(), frame[name].isna(), strict=True)]
            for name in names
        }
        records = [SimpleNamespace(**dict(zip(names, row, strict=True))) for row in zip(*plain.values(), strict=True)]
        if isinstance(expectation, Remembering):
            times = (frame[event.time.name].cummax().astype("datetime64[us, UTC]").astype("int64")).tolist()
            _, broken = expectation.follow({}, records, times)
        else:
            _, broken = expectation.judge(records)
        return pd.Series(~broken, index=frame.index, dtype=bool)

    return met
