"""The electricity stream, on three made-up days and, where it lies at hand, on the whole set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from penstock.examples.electricity import data as electricity

ELEC2 = Path(os.environ.get("PENSTOCK_ELEC2", "elec2.csv.gz"))


@pytest.fixture
def rows() -> pd.DataFrame:
    half_hours = np.arange(3 * 48)
    columns = ["nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    prices = pd.DataFrame(np.random.default_rng(1).random((len(half_hours), len(columns))).round(6), columns=columns)
    day, period = 2 + half_hours // 48, np.round(half_hours % 48 / 47, 6)
    return prices.assign(day=day, period=period, **{"class": half_hours % 2})


@pytest.fixture
def path(rows: pd.DataFrame, tmp_path: Path) -> Path:
    file = tmp_path / "elec2.csv.gz"
    rows.to_csv(file, index=False)
    return file


def test_a_reading_is_answered_a_day_later(path: Path, rows: pd.DataFrame) -> None:
    tables = electricity.tables(path)
    demanded, priced = tables["demanded"], tables["priced"]
    assert demanded["reading_id"].iloc[:2].tolist() == ["nsw-1996-05-07T00:00", "nsw-1996-05-07T00:30"]
    assert str(demanded["read_at"].iloc[0]) == "1996-05-06 14:00:00+00:00"  # midnight of the market's clock
    assert demanded["reading_id"].equals(priced["reading_id"])
    assert demanded["reading_id"].is_unique
    assert set(priced["priced_at"] - demanded["read_at"]) == {pd.Timedelta(days=1)}
    assert priced["up"].tolist() == (rows["class"] == 1).tolist()
    assert demanded["nswprice"].tolist() == rows["nswprice"].tolist()


def test_events_come_in_order_and_carry_the_row(path: Path) -> None:
    events = list(electricity.events(path))
    order = [(time, list(electricity.STREAMS).index(event)) for event, _, _, time in events]
    assert order == sorted(order)
    assert len(events) == 2 * 3 * 48
    event, key, value, time = events[0]
    assert (event, key, time) == ("demanded", b"nsw", 831_391_200_000_000)
    assert json.loads(value)["read_at"] == "1996-05-06T14:00:00Z"
    assert [event for event, *_ in events[48:52]] == ["demanded", "priced", "demanded", "priced"]
    assert events[49][1] == b"nsw-1996-05-07T00:00"


def test_a_short_period_keeps_its_labels(path: Path, tmp_path: Path) -> None:
    tables = electricity.tables(path, days=1, start=electricity.FIRST_DAY.replace(day=8))
    assert [len(table) for table in tables.values()] == [48, 48]
    assert tables["demanded"]["reading_id"].iloc[0] == "nsw-1996-05-08T00:00"
    electricity.write(tmp_path / "out", path, days=1)
    assert len((tmp_path / "out" / "priced.jsonl").read_bytes().splitlines()) == 48


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="set 151 of openml"):
        electricity.tables(tmp_path / "nothing.csv.gz")


def test_another_file_is_refused(path: Path, rows: pd.DataFrame) -> None:
    rows.drop(columns="vicprice").to_csv(path, index=False)
    with pytest.raises(ValueError, match="no column vicprice"):
        electricity.tables(path)
    rows.drop(index=7).to_csv(path, index=False)
    with pytest.raises(ValueError, match="not consecutive half hours"):
        electricity.tables(path)


@pytest.mark.skipif(not ELEC2.is_file(), reason=f"no Elec2 at {ELEC2}; set PENSTOCK_ELEC2")
def test_the_whole_set_is_as_counted() -> None:
    tables = electricity.tables(ELEC2)
    assert [len(table) for table in tables.values()] == [45_312, 45_312]
    assert round(float(tables["priced"]["up"].mean()), 3) == 0.425
    moving = tables["demanded"]["transfer"].diff().abs() > 0
    assert int(moving.to_numpy().argmax()) == 17_424
    assert not tables["demanded"].isna().any(axis=None)
