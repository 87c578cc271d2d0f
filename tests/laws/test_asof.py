"""`ps.as_of` equals the definition of an as-of join on two clocks, looked up value by value."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.frames.asof import _last_at_most

START = pd.Timestamp("2026-03-01", tz="UTC")
KEYS = [None, "1", "11", "a b", "é"]
sure = settings(max_examples=150, deadline=None)

moments = st.none() | st.integers(0, 6)
rows = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS), moments, moments), max_size=25)


def framed(lines: list[Any], value: bool) -> pd.DataFrame:
    def times(place: int) -> Any:
        hours = [pd.NaT if line[place] is None else START + timedelta(hours=line[place]) for line in lines]
        return pd.Series(hours, dtype="datetime64[us, UTC]")

    frame = pd.DataFrame(
        {"one": pd.Series([line[0] for line in lines], dtype="str"), "event_time": times(2), "known_at": times(3)}
    )
    frame["two"] = pd.Series([line[1] for line in lines], dtype="str")
    if value:
        frame["n"] = np.arange(len(lines))
    return frame.set_axis(np.arange(len(lines)) // 2)


def naive(asked: Any, lines: list[Any], within: int, as_known_now: bool) -> int | None:
    """The newest line that was true and known then: of equal event times the one known last, of these the last."""
    one, two, time, knows = asked
    if None in (one, two, time) or (knows is None and not as_known_now):
        return None
    found = None
    for i, (a, b, t, k) in enumerate(lines):
        if (a, b) == (one, two) and t is not None and t <= time and k is not None and (as_known_now or k <= knows):
            found = i if found is None or (t, k) >= (lines[found][2], lines[found][3]) else found
    return None if found is None or time - lines[found][2] > within else found


@given(spine=rows, lines=rows, within=st.none() | st.integers(1, 3), as_known_now=st.booleans())
@sure
def test_each_row_gets_the_newest_value_that_was_true_and_known(
    spine: list[Any], lines: list[Any], within: int | None, as_known_now: bool
) -> None:
    frame = framed(spine, value=False)
    got = ps.as_of(
        frame,
        {"V": framed(lines, value=True)},
        by=["one", "two"],
        within=f"{within}h" if within else None,
        as_known_now=as_known_now,
    )
    meant = [naive(asked, lines, within or 99, as_known_now) for asked in spine]
    assert [None if pd.isna(n) else int(n) for n in got["V.n"]] == meant
    assert got.index.equals(frame.index) and got[list(frame.columns)].equals(frame)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=70), st.data())
@sure
def test_the_pyramid_finds_the_last_value_that_is_small_enough(values: list[int], data: st.DataObject) -> None:
    queries = data.draw(st.lists(st.tuples(st.integers(0, len(values) - 1), st.integers(-1, 9)), min_size=1))
    upto, bounds = (np.array(q, np.int64) for q in zip(*queries, strict=True))
    meant = [max((i for i in range(p + 1) if values[i] <= bound), default=-1) for p, bound in queries]
    assert _last_at_most(np.array(values, np.int64), upto, bounds).tolist() == meant


def test_many_entities_over_centuries_do_not_overflow() -> None:
    n = 5_000
    frame = pd.DataFrame({"key": np.arange(n), "event_time": pd.to_datetime(np.arange(n) % 2 * (1 << 52), unit="us", utc=True)})
    spine = frame.assign(event_time=pd.Timestamp("2200-01-01", tz="UTC"))
    got = ps.as_of(spine, {"V": frame.assign(n=frame["key"])}, by="key")
    assert got["V.n"].tolist() == frame["key"].tolist()


def test_a_position_is_a_clock_too() -> None:
    frame = pd.DataFrame({"key": ["a", "a"], "event_time": [START, START], "offset": [5, 9], "n": [1.0, 2.0]})
    spine = pd.DataFrame({"key": ["a"] * 3, "event_time": [START] * 3, "offset": [4, 8, 9]})
    got = ps.as_of(spine, {"V": frame}, by="key", known_at="offset")["V.n"]
    assert got.isna().tolist() == [True, False, False] and got[1:].tolist() == [1.0, 2.0]
    with pytest.raises(ps.PenstockError, match="known at positions, and the spine says of no row what it knows"):
        ps.as_of(spine.drop(columns="offset"), {"V": frame}, by="key", known_at="offset")


def test_whole_numbers_and_truths_stay_exact_beside_missing_ones() -> None:
    frame = pd.DataFrame({"key": [1], "event_time": [START], "big": [2**62 + 1], "yes": [True], "word": ["w"], "day": [START]})
    spine = pd.DataFrame({"key": [1, 2], "event_time": [START, START]})
    got = ps.as_of(spine, {"V": frame}, by="key")
    assert got["V.big"].tolist() == [2**62 + 1, pd.NA] and got["V.yes"].tolist() == [True, pd.NA]
    assert got["V.word"][0] == "w" and pd.isna(got["V.word"][1]) and got["V.day"][0] == START


def test_nothing_on_either_side_is_an_answer_too() -> None:
    frame = pd.DataFrame({"key": ["a"], "event_time": [START], "n": [1.0]})
    assert ps.as_of(frame[["key", "event_time"]].iloc[:0], {"V": frame}, by="key").shape == (0, 3)
    assert ps.as_of(frame[["key", "event_time"]], {"V": frame.iloc[:0]}, by="key")["V.n"].isna().all()
    assert ps.as_of(frame[["key", "event_time"]], {}, by="key").shape == (1, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.rename(columns={"key": "kee"}), "the frame V has no column key"),
        (lambda v: v.assign(key=[1]), 'the key key is text in the spine, number in the frame V: "1" and 1 are two names'),
        (
            lambda v: v.assign(event_time=["2026-03-01"]),
            "the frame V, column event_time, .* not a time with a zone|no time with a zone",
        ),
        (lambda v: v.assign(event_time=[START.tz_localize(None)]), "times without a zone"),
    ],
)
def test_what_does_not_fit_is_said_in_words(change: Any, said: str) -> None:
    values = pd.DataFrame({"key": ["a"], "event_time": [START], "n": [1.0]})
    with pytest.raises(ps.PenstockError, match=said):
        ps.as_of(values[["key", "event_time"]], {"V": change(values)}, by="key")


def test_a_column_is_never_overwritten() -> None:
    values = pd.DataFrame({"key": ["a"], "event_time": [START], "n": [1.0]})
    with pytest.raises(ps.PenstockError, match=r"the spine has a column V\.n already"):
        ps.as_of(values.assign(**{"V.n": 3}), {"V": values}, by="key")
