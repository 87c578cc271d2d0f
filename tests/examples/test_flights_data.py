"""The flights stream against the facts counted over the whole year."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from penstock.examples.flights import data as flights


@pytest.fixture(scope="module")
def year() -> dict[str, pd.DataFrame]:
    return flights.tables()


@pytest.fixture(scope="module")
def landed(year: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each labelled flight with the times of its three events."""
    joined = year["arrived"].merge(year["departed"], on="flight_id", suffixes=("", "_out"), validate="1:1")
    return joined.merge(year["scheduled"], on="flight_id", suffixes=("", "_plan"), validate="1:1")


def minutes(table: pd.DataFrame, since: str, until: str) -> pd.Series:
    return (table[until] - table[since]).dt.total_seconds() / 60


def test_the_year_has_every_event(year: dict[str, pd.DataFrame]) -> None:
    assert {event: len(table) for event, table in year.items()} == {
        "scheduled": 336_776,
        "departed": 328_521,
        "arrived": 327_346,
        "weather": 26_115,
    }


def test_a_day_has_its_usual_number_of_events(year: dict[str, pd.DataFrame]) -> None:
    medians = {}
    for event, table in year.items():
        day_of_utc = table[flights.STREAMS[event].time].dt.date
        medians[event] = float(day_of_utc.value_counts().median())
    assert medians == {"scheduled": 966, "departed": 923.5, "arrived": 919, "weather": 72}


def test_a_flight_has_one_id(year: dict[str, pd.DataFrame]) -> None:
    for event in ("scheduled", "departed", "arrived"):
        assert year[event]["flight_id"].is_unique
    assert year["departed"]["flight_id"].isin(year["scheduled"]["flight_id"]).all()
    assert year["arrived"]["flight_id"].isin(year["departed"]["flight_id"]).all()
    assert not year["weather"].duplicated(["origin", "observed_at"]).any()


def test_each_table_is_in_the_order_of_time_and_id(year: dict[str, pd.DataFrame]) -> None:
    for event, table in year.items():
        stream = flights.STREAMS[event]
        assert table.equals(table.sort_values([stream.time, stream.id], ignore_index=True))


def test_times_are_whole_minutes_of_utc(year: dict[str, pd.DataFrame]) -> None:
    for event, table in year.items():
        times = table[flights.STREAMS[event].time]
        assert str(times.dtype) == "datetime64[us, UTC]"
        assert (times == times.dt.floor("min")).all()


def test_a_flight_is_announced_before_anything_of_it_is_known(landed: pd.DataFrame) -> None:
    assert (landed["scheduled_at"] < landed["departed_at"]).all()
    assert (landed["departed_at"] < landed["arrived_at"]).all()
    after_schedule = minutes(landed, "scheduled_at", "departed_at") - flights.SCORED_AHEAD
    assert after_schedule.min() == -43


def test_the_first_flight_is_where_it_belongs(year: dict[str, pd.DataFrame]) -> None:
    first = year["scheduled"].iloc[0]
    assert first["flight_id"] == "20130101-UA-1545-EWR-0515"
    assert str(first["scheduled_at"]) == "2013-01-01 09:15:00+00:00"  # 05:15 in New York, an hour ahead
    assert (first["hour"], first["weekday"], first["distance"]) == (5.0, 1.0, 1400.0)
    arrived = year["arrived"].set_index("flight_id").loc[first["flight_id"]]
    assert str(arrived["arrived_at"]) == "2013-01-01 14:30:00+00:00"  # 8:30 in Houston
    assert (arrived["delay"], arrived["late"]) == (11.0, False)


def test_taxiing_takes_5_to_235_minutes(landed: pd.DataFrame) -> None:
    raw = pd.read_csv(flights._located("flights.csv.zip"))
    flown = landed["flight_id"].map(raw.set_index(flights._ids(raw))["air_time"])
    taxiing = minutes(landed, "departed_at", "arrived_at") - flown
    assert (taxiing.min(), taxiing.max()) == (5, 235)


def test_labels_are_truly_late(landed: pd.DataFrame) -> None:
    delay = (minutes(landed, "scheduled_at", "arrived_at") - flights.SCORED_AHEAD) / 60
    assert delay.quantile([0.5, 0.95, 0.99, 1.0]).round(1).tolist() == [2.8, 6.4, 7.7, 32.7]
    assert delay.groupby(landed["late"]).median().round(1).to_dict() == {False: 2.6, True: 3.7}


def test_the_share_of_late_flights_moves_with_the_seasons(landed: pd.DataFrame) -> None:
    by_month = landed.groupby("month")["late"].mean()
    assert (by_month.idxmin(), by_month.idxmax()) == (9.0, 12.0)
    assert (round(by_month.min(), 2), round(by_month.max(), 2)) == (0.13, 0.33)
    assert (landed["late"] == (landed["delay"] > 15)).all()


def test_what_is_not_known_is_missing(year: dict[str, pd.DataFrame]) -> None:
    assert year["scheduled"]["aircraft"].map(lambda tail: tail is None).sum() == 2_512
    assert year["arrived"]["aircraft"].notna().all()
    assert year["weather"]["wind_speed"].max() < 50
    assert year["weather"]["wind_speed"].isna().sum() == 5


def test_a_short_period_keeps_the_labels_of_its_flights(year: dict[str, pd.DataFrame]) -> None:
    whole = year["scheduled"]
    inside = whole[(whole["scheduled_at"] >= "2013-02-01T00:00Z") & (whole["scheduled_at"] < "2013-02-03T00:00Z")]
    short = flights.tables(days=2, start=date(2013, 2, 1))
    assert short["scheduled"]["flight_id"].tolist() == inside["flight_id"].tolist()
    for event in ("departed", "arrived"):
        expected = year[event][year[event]["flight_id"].isin(inside["flight_id"])]
        assert short[event].equals(expected.reset_index(drop=True))
    assert short["arrived"]["arrived_at"].max() > pd.Timestamp("2013-02-03T00:00Z")
    assert len(short["weather"]) == 2 * 24 * 3
    assert all(table.empty for table in flights.tables(days=0).values())


def test_events_come_in_order_and_carry_the_row() -> None:
    tables = flights.tables(days=3)
    events = list(flights.events(days=3))
    assert len(events) == sum(len(table) for table in tables.values())
    ranks = {event: rank for rank, event in enumerate(flights.STREAMS)}
    order = [(time, ranks[event], json.loads(value)[flights.STREAMS[event].id]) for event, _, value, time in events]
    assert order == sorted(order)
    for name, table in tables.items():
        stream = flights.STREAMS[name]
        mine = [(key, json.loads(value), time) for event, key, value, time in events if event == name]
        for (key, value, time), row in zip(mine, table.to_dict("records"), strict=True):
            assert key.decode() == row[stream.key]
            assert value[stream.time].endswith("Z")
            assert pd.Timestamp(value[stream.time]) == row[stream.time] == pd.Timestamp(time, unit="us", tz="UTC")
            assert value == {
                **{column: None if pd.isna(cell) else cell for column, cell in row.items()},
                stream.time: value[stream.time],
            }


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    assert list(flights.events(days=2)) == list(flights.events(days=2))
    flights.write(tmp_path, days=2)
    for event in flights.STREAMS:
        written = (tmp_path / f"{event}.jsonl").read_bytes().splitlines()
        assert written == [value for name, _, value, _ in flights.events(days=2) if name == event]
