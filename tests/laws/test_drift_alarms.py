"""Alarms that mean something: how often nothing is called drift, and what is found. Figures are printed with `pytest -s`."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import penstock as ps
from penstock.statistics.drift import Column, Counted, judged
from penstock.statistics.reference import Levels, Numbers

DATA = Path(__file__).parents[3] / "shared" / "data"
REFERENCE = 10_000
SIZES = [100, 200, 500, 1_000, 5_000, 100_000]


def stream(name: str) -> pd.DataFrame:
    file = DATA / f"{name}.csv.gz"
    if not file.exists():
        pytest.skip(f"LOUDLY: {file} is not here, so drift was not looked for in real data")
    with gzip.open(file) as opened:
        return pd.read_csv(opened)


def numbers(then: np.ndarray, now: np.ndarray) -> Column:
    reference = Numbers.of(then)
    return judged([Counted("x", reference, reference.count(now), reference.own)])[0]


def levels(then: np.ndarray, now: np.ndarray, names: list[str]) -> Column:
    reference = Levels.of_codes(then, names)
    return judged([Counted("x", reference, reference.count_codes(now, names), reference.own)])[0]


def drawn(kind: str, n: int, rng: np.random.Generator) -> Column:
    """The verdict of a window of n rows without any drift."""
    if kind == "normal":
        return numbers(rng.normal(size=REFERENCE), rng.normal(size=n))
    if kind == "heavy":
        return numbers(rng.standard_cauchy(REFERENCE), rng.standard_cauchy(n))
    weights = 1 / np.arange(1, int(kind.split()[0]) + 1) ** (1.0 if "zipf" in kind else 0.0)
    p = weights / weights.sum()
    then, now = (rng.choice(len(p), size, p=p) for size in (REFERENCE, n))
    return levels(then, now, [f"level {i}" for i in range(len(p))])


@pytest.mark.parametrize("kind", ["normal", "heavy", "2 levels", "10 levels", "30 levels", "100 levels", "100 levels, zipf"])
def test_at_most_one_window_in_twenty_without_drift_alarms_at_any_size(kind: str) -> None:
    rng = np.random.default_rng(sum(kind.encode()))
    for n in SIZES:
        windows = 100 if n <= 5_000 else 10
        alarms = sum(drawn(kind, n, rng).verdict == "drift" for _ in range(windows))
        print(f"{kind}, n = {n:,}: {alarms} of {windows} windows alarm ({alarms / windows:.1%})")
        assert alarms / windows <= 0.05


def test_thousands_of_levels_most_of_them_rare_do_not_alarm_either() -> None:
    rng = np.random.default_rng(1)
    found = [drawn("5000 levels, zipf", n, rng).verdict for n in (200, 5_000) for _ in range(25)]
    print(f"5,000 levels: {found.count('drift')} of 50 windows alarm")
    assert found.count("drift") <= 2


def test_a_shift_of_a_fiftieth_of_a_deviation_is_silent_in_any_large_window() -> None:
    rng = np.random.default_rng(2)
    found = [numbers(rng.normal(size=REFERENCE), rng.normal(0.02, 1, 100_000)) for _ in range(20)]
    print(f"0.02 sd at n = 100,000: {sum(c.verdict == 'drift' for c in found)} of 20 alarm")
    assert all(column.verdict == "steady" for column in found)


def test_a_shift_of_a_fifth_of_a_deviation_is_seen_in_a_thousand_rows() -> None:
    rng = np.random.default_rng(3)
    found = [numbers(rng.normal(size=REFERENCE), rng.normal(0.2, 1, 1_000)) for _ in range(200)]
    seen = sum(column.verdict == "drift" for column in found)
    print(f"0.2 sd at n = 1,000: {seen} of 200 seen")
    assert seen >= 190


def test_one_outlier_neither_hides_a_shift_nor_invents_one() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        then, same, moved = rng.normal(size=REFERENCE), rng.normal(size=2_000), rng.normal(0.5, 1, 2_000)
        same[7] = moved[7] = 1_000.0
        assert numbers(then, moved).verdict == "drift"
        quiet = numbers(then, same)
        assert quiet.verdict == "steady" and (quiet.distances["wasserstein"] or 0.0) < 0.1
        then[7] = 1_000.0
        assert numbers(then, same).verdict == "steady"
        assert numbers(then, moved).verdict == "drift" and (numbers(then, moved).distances["psi"] or 0.0) > 0.2


def test_one_column_of_a_wide_table_is_enough_and_none_of_a_quiet_one_is_called() -> None:
    rng = np.random.default_rng(5)
    alarmed = 0
    for _ in range(15):
        columns = [Numbers.of(rng.normal(size=2_000)) for _ in range(40)]
        now = [column.count(rng.normal(size=300)) for column in columns]
        alarmed += any(
            c.verdict == "drift" for c in judged([Counted("x", r, n, r.own) for r, n in zip(columns, now, strict=True)])
        )
        now[7] = columns[7].count(rng.normal(1, 1, 300))
        found = judged([Counted(str(i), r, n, r.own) for i, (r, n) in enumerate(zip(columns, now, strict=True))])
        assert found[7].verdict == "drift"
    print(f"40 columns without drift: {alarmed} of 15 tables alarm")
    assert alarmed <= 1


def test_a_new_level_is_seen_and_rare_ones_are_not_news() -> None:
    rng = np.random.default_rng(6)
    names = [f"city {i}" for i in range(5_000)]
    weights = 1 / np.arange(1, 5_001)
    then, now = (rng.choice(5_000, n, p=weights / weights.sum()) for n in (REFERENCE, 2_000))
    assert levels(then, now, names).verdict == "steady"
    now[rng.random(2_000) < 0.08] = 5_000
    column = levels(then, now, [*names, "Atlantis"])
    assert column.verdict == "drift" and "new levels" in column.why


# --- real streams -----------------------------------------------------------------------------------------------------

DAY, WEEK = 48, 336
OPENING = 17_424
"""The row of Elec2 at which the wider market opened."""
MARKET = ["nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]


def test_the_market_opening_is_found_and_seasons_raise_no_more_than_an_alarm_a_month() -> None:
    """Each week with the twelve before, the same half hour of the same day of the week with each other."""
    frame = stream("elec2")

    def week(at: int) -> tuple[str, ...]:
        then, now = frame.iloc[at - 12 * WEEK : at], frame.iloc[at : at + WEEK]
        return ps.drift.compare(then, now, columns=MARKET, like=["day", "period"]).drifted

    quiet = {at: week(at) for at in range(12 * WEEK, OPENING - WEEK + 1, WEEK)}
    alarms, months = sum(bool(found) for found in quiet.values()), len(quiet) * 7 / 30.4
    first = next(at for at in range(max(quiet) + WEEK, len(frame), WEEK) if week(at))
    print(f"Elec2: {alarms} weeks of {len(quiet)} alarm before the opening, {alarms / months:.2f} a month; the opening at row")
    print(f"{OPENING:,} is found with the week that ends at row {first + WEEK:,}, in {', '.join(week(first))}")
    assert alarms / months <= 1
    assert OPENING <= first + WEEK <= OPENING + 500
    assert {"vicdemand", "transfer"} <= set(week(first))


def test_the_change_of_the_insects_is_found_and_the_time_after_it_is_quiet() -> None:
    """Each thousand rows with the four thousand before them; quiet again once the change is behind these, too."""
    frame = stream("insects_gradual_balanced").drop(columns="class")

    def drifted(at: int) -> int:
        return len(ps.drift.compare(frame.iloc[at - 4_000 : at], frame.iloc[at : at + 1_000]).drifted)

    change, before = drifted(14_028), [drifted(at) for at in (6_000, 7_000, 8_000, 9_000)]
    after = [drifted(at) for at in (18_028, 19_028)]
    first = len(ps.drift.compare(frame[:5_000], frame[14_028:15_028]).drifted)
    print(f"INSECTS: {change} of 33 columns have drifted at row 14,028, {first} against the first 5,000 rows; before {before}")
    print(f"after {after}")
    assert change >= 5 and first >= 10
    assert before == [0, 0, 0, 0] and after == [0, 0]
