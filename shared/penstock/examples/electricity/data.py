"""Two and a half years of the electricity market of New South Wales (Elec2) as two streams of events.

The set is public (Harries 1999; OpenML 151) but its source states no licence, so it is not shipped: give the path of
a CSV file, gzipped or not, with the columns `day, period, nswprice, nswdemand, vicprice, vicdemand, transfer, class`
(prices and demands scaled to 0..1), one row per half hour in the order of time.

    demanded  the market as it was read at a half hour
    priced    whether the price of that half hour was above the mean of its last 24 hours: the label, a day later

**The label is made of `nswprice`.** Whoever scores a reading by its own `nswprice` has read half of the answer, and a
price of before says much of the rest: the last label repeated is right in 85 % of rows. So an honest model uses the
prices of earlier readings only (windows are strictly before), leaves the column `nswprice` of the scored reading out,
and is judged beside that baseline. The delay of a day is ours, so that an answer is not known at the next reading.

From row 17,424 on (day 363) `vicprice`, `vicdemand` and `transfer` move, having been constant until then: the wider
market opened. It is the one change whose date is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..streams import Stream, merged, written

MARKET_TIME: Final = timezone(timedelta(hours=10), "AEST")
"""The market's clock knows no daylight saving, so every half hour exists once."""

FIRST_DAY: Final = date(1996, 5, 7)
"""Day of the first row. Time is counted in rows from here; the file's scaled `date` repeats a day in May 1997."""

READ_EVERY: Final = 30
"""Minutes between two rows; `period` counts them within a day and is checked."""

LABEL_AFTER: Final = 24 * 60
"""Minutes from a reading to its label."""

MARKET: Final = "nsw"

STREAMS: Final = {
    "demanded": Stream(key="market", id="reading_id", time="read_at"),
    "priced": Stream(key="reading_id", id="reading_id", time="priced_at"),
}
"""In the order in which events of the same minute are published."""


def tables(path: Path, days: int | None = None, start: date | None = None) -> dict[str, pd.DataFrame]:
    """The two event tables in the order of time; `days` days of the market from `start` (default: all).

    Every reading inside the period is answered, even when its label comes after the end.
    """
    readings = _readings(path)
    begin = _midnight(start or FIRST_DAY)
    inside = readings["read_at"] >= begin
    if days is not None:
        inside &= readings["read_at"] < begin + timedelta(days=days)
    readings = readings.loc[inside].reset_index(drop=True)
    numbers = ["day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    return {
        "demanded": readings[["reading_id", "market", *numbers, "read_at"]],
        "priced": readings[["reading_id", "market", "up", "priced_at"]],
    }


def events(path: Path, days: int | None = None, start: date | None = None) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Every event as (event, key, JSON value, time in microseconds), in the order of (time, event, id)."""
    return merged(tables(path, days, start), STREAMS)


def write(folder: Path, path: Path, days: int | None = None, start: date | None = None) -> None:
    """One file of JSON lines per event: `<event>.jsonl`, each in the order of time."""
    written(tables(path, days, start), STREAMS, folder)


# -- from the file to one table --------------------------------------------------------------------------------------


def _readings(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(
            f"the electricity example reads Elec2 from a CSV file, and there is none at {path}; "
            "it is set 151 of openml.org, columns day, period, nswprice, ..., class (1 for UP, 0 for DOWN)"
        )
    rows = pd.read_csv(path)
    wanted = {"day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer", "class"}
    if missing := sorted(wanted - set(rows.columns)):
        raise ValueError(f"{path} is not Elec2 as expected: no column {', '.join(missing)}")
    per_day = 24 * 60 // READ_EVERY
    place = np.arange(len(rows)) % per_day
    if not np.allclose(rows["period"].to_numpy(np.float64) * (per_day - 1), place, atol=0.01):
        raise ValueError(f"{path} is not Elec2 as expected: its rows are not consecutive half hours from midnight")
    if not rows["class"].isin([0, 1]).all():
        raise ValueError(f"{path} is not Elec2 as expected: class must be 1 (UP) or 0 (DOWN)")

    minutes = np.arange(len(rows), dtype=np.int64) * READ_EVERY
    read = np.datetime64(_midnight(FIRST_DAY).replace(tzinfo=None), "us") + minutes.astype("timedelta64[m]")
    clock = read + np.timedelta64(MARKET_TIME.utcoffset(None))
    names = np.char.add(f"{MARKET}-", np.datetime_as_string(clock, unit="m"))
    readings: pd.DataFrame = rows.astype(dict.fromkeys(sorted(wanted - {"class"}), float)).assign(
        reading_id=names.tolist(),
        market=MARKET,
        up=rows["class"] == 1,
        read_at=_utc(read),
        priced_at=_utc(read + np.timedelta64(LABEL_AFTER, "m")),
    )
    return readings


def _midnight(day: date) -> datetime:
    """When this day of the market begins, in UTC."""
    return datetime.combine(day, datetime.min.time(), MARKET_TIME).astimezone(UTC)


def _utc(times: NDArray[np.datetime64]) -> pd.Series:
    return pd.Series(times.astype("datetime64[us]")).dt.tz_localize("UTC")
