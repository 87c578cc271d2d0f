"""A profile says what pandas says, and the same however the rows were cut up, ordered or merged."""

from __future__ import annotations

import gzip
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import PenstockError
from penstock.profiling.column import QUANTILES, columns_of
from penstock.profiling.exact import UNIT, Moments, Pairs, dot
from penstock.profiling.profile import Profile
from penstock.profiling.summary import BUCKETS, FREQUENT, SMALLEST, Distinct, Numbers, Texts
from penstock.records import Described

DATA = Path(__file__).parents[2] / "../shared/data"
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
"""Denormals, 1e308 and -0.0 among them."""


def numbers(values: Any) -> Numbers:
    found = Numbers()
    found.add(np.asarray(values))
    return found


def texts(values: list[str]) -> Texts:
    found = Texts()
    found.add(values)
    return found


# --- laws -------------------------------------------------------------------------------------------------------------


@given(st.lists(FLOATS, max_size=60), st.lists(FLOATS, max_size=60), st.lists(FLOATS, max_size=60))
def test_numbers_merge_in_any_order_and_grouping_to_the_same_bytes(a: list[float], b: list[float], c: list[float]) -> None:
    one, two, three = (numbers(np.array(values, np.float64)) for values in (a, b, c))
    whole = numbers(np.array(a + b + c, np.float64)).state()
    assert one.merge(two).merge(three).state() == whole
    assert one.merge(two.merge(three)).state() == whole
    assert three.merge(one).merge(two).state() == whole
    assert one.merge(Numbers()).state() == one.state()


@pytest.mark.parametrize("shape", ["normal", "far from zero", "heavy", "both signs", "whole"])
def test_numbers_of_more_values_than_buckets_do_not_show_how_they_were_cut(shape: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.standard_normal(9_000),
        "far from zero": rng.standard_normal(9_000) + 1e9,
        "heavy": rng.standard_cauchy(9_000) ** 3,
        "both signs": rng.choice([-1, 1], 9_000) * np.exp(rng.uniform(-600, 600, 9_000)),
        "whole": rng.integers(-(2**62), 2**62, 9_000),
    }[shape]
    whole = numbers(values)
    assert whole.level > 0 and len(whole.keys) <= BUCKETS
    for seed in range(5):
        mixed = np.random.default_rng(seed).permutation(values)
        cuts = np.sort(np.random.default_rng(seed).integers(0, len(values), seed * 7))
        parts = [numbers(part) for part in np.split(mixed, cuts)]
        while len(parts) > 1:
            parts.append(parts.pop(0).merge(parts.pop(0)))
        assert parts[0].state() == whole.state()
        in_turn = Numbers()
        for part in np.split(mixed, cuts):
            in_turn.add(part)
        assert in_turn.state() == whole.state()


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("middle", [0.0, 1.0, 1e6])
def test_quantiles_keep_the_error_that_they_state(spread: float, middle: float) -> None:
    values = np.random.default_rng(3).standard_normal(50_000) * spread + middle
    found = numbers(values)
    true = np.quantile(values, QUANTILES, method="inverted_cdf")
    for share, said, truth in zip(QUANTILES, found.quantiles(QUANTILES), true, strict=True):
        assert abs(said - truth) <= found.error * abs(truth) * (1 + 1e-9), (share, said, truth)
    assert found.error < 2**-5


@given(st.lists(FLOATS, min_size=1, max_size=80))
def test_few_values_are_kept_exactly(values: list[float]) -> None:
    found, array = numbers(np.array(values)), np.array(values)
    assert found.error == 0
    assert found.quantiles(QUANTILES) == [v + 0.0 for v in np.quantile(array, QUANTILES, method="inverted_cdf").tolist()]
    assert found.distinct.count == len(set(values))
    assert dict(found.frequent(100)) == dict(pd.Series(values).value_counts())
    assert (found.least, found.greatest) == (array.min(), array.max())
    edges, counts = found.histogram()
    assert sum(counts) == len(values) and edges[0] == array.min() and edges[-1] == array.max()


def test_minus_zero_is_zero() -> None:
    assert numbers([0.0]).merge(numbers([-0.0])).state() == numbers([0.0, 0.0]).state()


def test_the_histogram_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).integers(0, 1000, 20_000)
    edges, counts = numbers(values).histogram()
    truth, where = np.histogram(values, 20)
    assert np.allclose(edges, where) and np.abs(np.array(counts) - truth).max() <= 60  # a value on an edge that is not exact


@given(st.lists(FLOATS, max_size=30), st.lists(FLOATS, max_size=30))
def test_sums_are_exact(a: list[float], b: list[float]) -> None:
    from fractions import Fraction

    n = min(len(a), len(b))
    truth = sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=False)), Fraction(0))
    assert Fraction(dot(np.array(a[:n]), np.array(b[:n])), 1 << UNIT) == truth


def test_a_standard_deviation_does_not_drown_in_a_large_mean() -> None:
    values = 1e15 + np.array([1.0, 2.0, 3.0, 4.0])
    moments = numbers(values).moments
    assert moments.std == pytest.approx(np.std([1, 2, 3, 4], ddof=1), rel=1e-15)
    assert Moments.of_state(moments.state()).std == moments.std
    assert Pairs().correlation is None and Moments().mean is None and Moments().std is None


def test_the_number_of_different_values_is_exact_below_its_bound_and_within_ten_percent_above() -> None:
    for n in (1, SMALLEST - 1, 10_000, 300_000):
        found = numbers(np.arange(n, dtype=np.float64) * 0.1).distinct
        assert found.exact == (n < SMALLEST)
        assert found.count == n if n < SMALLEST else abs(found.count / n - 1) < 0.1
    words = [f"id-{i}" for i in range(20_000)]
    whole, halves = Distinct(), [Distinct(), Distinct()]
    whole.add_texts(words)
    for i, half in enumerate(halves):
        half.add_texts(words[i * 9_000 : i * 9_000 + 11_000])
    assert halves[1].merge(halves[0]).hashes.tolist() == whole.hashes.tolist()
    assert abs(whole.count / 20_000 - 1) < 0.1


@given(st.lists(st.text(max_size=4), max_size=60), st.integers(0, 60))
def test_texts_of_few_values_are_those_of_pandas_and_merge_exactly(values: list[str], cut: int) -> None:
    whole, merged = texts(values), texts(values[cut:]).merge(texts(values[:cut]))
    assert merged.state() == whole.state() == Texts.of_state(whole.state()).state()
    assert dict(whole.frequent(100)) == dict(pd.Series(values, dtype=object).value_counts())
    assert whole.distinct.count == len(set(values))
    assert whole.lengths.greatest == max(map(len, values), default=None)


def test_texts_of_many_values_find_the_frequent_ones_within_their_bound_and_do_not_show_batches() -> None:
    rng = np.random.default_rng(5)
    values = [f"v{i}" for i in rng.zipf(1.3, 40_000)]
    truth = pd.Series(values).value_counts()
    whole, in_turn = texts(values), Texts()
    for start in range(0, len(values), 777):
        in_turn.add(values[start : start + 777])
    assert in_turn.state() == whole.state()
    for found in (whole, texts(values[:10_000]).merge(texts(values[10_000:]))):
        assert 0 < found.lost <= len(values) / FREQUENT
        for name, count in found.frequent(5):
            assert truth[name] - found.lost <= count <= truth[name]
        assert set(truth.index[truth > found.lost]) <= set(found.top)


# --- against pandas ---------------------------------------------------------------------------------------------------


def agrees(found: Described, series: pd.Series[Any], label: pd.Series[Any] | None = None) -> None:
    """What pandas says of a column."""
    present = series.dropna()
    assert (found.rows, found.missing) == (len(series), int(series.isna().sum()))
    if found.distinct_exact:
        assert found.distinct == present.nunique()
    else:
        assert abs(found.distinct / present.nunique() - 1) < 0.12
    if found.kind == "text":
        present = present.astype(str).str.len()
    if found.kind in ("int", "float", "text") and len(present):
        values = present.astype(float)
        assert found.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12)
        if len(values) > 1:
            assert found.std == pytest.approx(values.std(), rel=1e-7, abs=1e-9)
        assert (found.least, found.greatest) == (present.min(), present.max())
        true = np.quantile(values, QUANTILES, method="inverted_cdf")
        said = [float(v) for v in found.quantiles.values()]
        assert np.allclose(said, true, rtol=found.error * 1.01 + 1e-12, atol=0)
    if found.kind == "time" and len(present):
        utc = pd.to_datetime(present, utc=True)
        assert (pd.Timestamp(str(found.least)), pd.Timestamp(str(found.greatest))) == (utc.min(), utc.max())
    assert sum(found.counts) == len(present) - found.infinite
    if label is not None and found.kind in ("bool", "int", "float") and found.correlation is not None:
        beside = pd.DataFrame({"x": series.astype(float), "y": label.astype(float)}).dropna()
        assert found.correlation == pytest.approx(beside["x"].corr(beside["y"]), rel=1e-6, abs=1e-9)
        assert found.correlated == len(beside)


COLUMN = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.text(max_size=9)), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))), min_size=4, max_size=4),
)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), COLUMN, min_size=1, max_size=5))
def test_a_random_frame_is_described_as_pandas_describes_it(columns: dict[str, list[Any]]) -> None:
    frame = pd.DataFrame({**columns, "is it": [1.5, 2.5, 2.5, np.nan]})
    found = ps.profile(frame, label="is it")
    for name, described in found.described().items():
        if described.kind not in ("time", "empty"):
            agrees(described, frame[name], frame["is it"] if name != "is it" else None)
    assert Profile.unpack(found.pack()).pack() == found.pack()
    parts = [ps.profile(frame.iloc[at : at + 1], label="is it") for at in range(4)]
    merged = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
    assert merged.described() == found.described()


def test_real_flights_are_described_as_pandas_describes_them() -> None:
    from penstock.examples.flights.data import tables

    for frame in tables(20).values():
        label = frame.get("late")
        found = ps.profile(frame, label="late" if label is not None else None)
        for name, described in found.described().items():
            agrees(described, frame[name], label if name != "late" else None)
        halves = [ps.profile(half, label="late" if label is not None else None) for half in (frame[:1234], frame[1234:])]
        assert {
            n: d for n, d in halves[1].merge(halves[0]).described().items() if d.frequent_low_by == 0 and d.kind != "text"
        } == {n: d for n, d in found.described().items() if d.frequent_low_by == 0 and d.kind != "text"}


@pytest.mark.parametrize("name", ["elec2", "insects_gradual_balanced"])
def test_public_streams_are_described_as_pandas_describes_them(name: str) -> None:
    file = DATA / f"{name}.csv.gz"
    if not file.exists():
        pytest.skip(f"LOUDLY: {file} is not here, so this was not compared with real data")
    with gzip.open(file) as opened:
        frame = pd.read_csv(opened, nrows=20_000)
    for column, described in ps.profile(frame).described().items():
        agrees(described, frame[column])


# --- what is odd ------------------------------------------------------------------------------------------------------


def test_an_empty_frame_has_a_profile() -> None:
    found = ps.profile(pd.DataFrame({"a": np.empty(0), "b": pd.Series([], dtype=object)}))
    assert found.rows == 0
    assert {n: (d.kind, d.rows, d.mean, d.quantiles, d.counts) for n, d in found.described().items()} == {
        "a": ("float", 0, None, {}, []), "b": ("empty", 0, None, {}, []),
    }  # fmt: skip
    assert ps.profile(pd.DataFrame()).described() == {}


def test_a_column_without_values_takes_the_kind_of_the_other_part() -> None:
    one, two = ps.profile(pd.DataFrame({"a": [None, None]})), ps.profile(pd.DataFrame({"a": ["x"]}))
    assert one.described()["a"].kind == "empty" and one.described()["a"].missing == 2
    assert one.merge(two).described()["a"] == two.merge(one).described()["a"]
    assert one.merge(two).described()["a"].kind == "text"


def test_a_column_that_one_part_has_not_is_missing_there() -> None:
    one, two = ps.profile(pd.DataFrame({"a": [1, 2]})), ps.profile(pd.DataFrame({"b": ["x"]}))
    for merged in (one.merge(two), two.merge(one)):
        assert {n: (d.rows, d.missing) for n, d in merged.described().items()} == {"a": (3, 1), "b": (3, 2)}
    grown = Profile.of(columns_of(pd.DataFrame({"a": [1, 2]})))
    grown.add(columns_of(pd.DataFrame({"b": ["x"]})))
    assert grown.described() == one.merge(two).described()


def test_a_column_of_one_value_has_no_spread_and_no_correlation() -> None:
    found = ps.profile(pd.DataFrame({"a": [7.0] * 5, "y": [0, 1, 0, 1, 1]}), label="y").described()["a"]
    assert (found.std, found.correlation, found.correlated, found.edges, found.counts) == (0.0, None, 5, [7.0, 7.0], [5])


def test_infinite_numbers_are_counted_and_in_nothing_else() -> None:
    found = ps.profile(pd.DataFrame({"a": [1.0, np.inf, -np.inf, np.nan, 3.0]})).described()["a"]
    assert (found.infinite, found.missing, found.mean, found.least, found.greatest) == (2, 1, 2.0, 1.0, 3.0)


def test_integers_beyond_float_keep_their_ends_and_their_number() -> None:
    values = [2**63 - 1, 2**63 - 2, -(2**63), 2**53 + 1, 2**53]
    found = ps.profile(pd.DataFrame({"a": values})).described()["a"]
    assert (found.least, found.greatest, found.distinct, found.frequent) == (-(2**63), 2**63 - 1, 5, [])
    huge = ps.profile(pd.DataFrame({"a": [10**400, 5], "b": np.array([2**64 - 1, 1], np.uint64)})).described()
    assert huge["a"].infinite == 1 and huge["b"].greatest == float(2**64 - 1)


def test_long_and_foreign_texts_are_told_apart_and_shown_short() -> None:
    long = ["x" * 65_536, "x" * 65_535 + "y", "日本 🛬", "\ud800", "", "a\x00b"]
    found = ps.profile(pd.DataFrame({"a": pd.Series(long, dtype=object)}))
    described = found.described()["a"]
    assert (described.distinct, described.greatest, described.least) == (6, 65_536, 0)
    assert max(len(str(f.value)) for f in described.frequent) <= 80
    assert len({f.value for f in described.frequent}) == 6
    assert Profile.unpack(found.pack()).pack() == found.pack()


def test_all_kinds_of_columns_of_pandas_have_a_profile() -> None:
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 3], "Int64"),
            "nullable truth": pd.array([True, None, False], "boolean"),
            "category": pd.Categorical(["a", None, "b"]),
            "numbered": pd.Categorical([1.5, 2.5, 1.5]),
            "zoned": pd.to_datetime(pd.Series(["2026-01-01T00:00Z", None, "2026-01-02T00:00Z"])),
            "length": pd.to_timedelta(["1h", None, "2h"]),
            "moments": pd.Series([datetime(2026, 1, 1, tzinfo=UTC), None, datetime(2026, 1, 2, tzinfo=UTC)], dtype=object),
            "mixed": pd.Series([1, "a", None], dtype=object),
            "lists": pd.Series([[1], [2, 3], None], dtype=object),
        }
    )
    found = ps.profile(frame).described()
    assert {name: d.kind for name, d in found.items()} == {
        "nullable": "int", "nullable truth": "bool", "category": "text", "numbered": "float", "zoned": "time",
        "length": "float", "moments": "time", "mixed": "text", "lists": "text",
    }  # fmt: skip
    assert found["zoned"].greatest == found["moments"].greatest == "2026-01-02T00:00:00+00:00"
    assert found["length"].mean == 5400.0 and math.isclose(found["nullable truth"].mean or 0, 0.5)


def test_what_cannot_be_profiled_is_told_in_words() -> None:
    frame = pd.DataFrame({"amount": [1.0], "country": ["DE"]})
    with pytest.raises(PenstockError, match="'amuont' is no column of numbers") as raised:
        ps.profile(frame, label="amuont")
    assert raised.value.fix == "did you mean amount?"
    with pytest.raises(PenstockError, match="'country' is no column of numbers"):
        ps.profile(frame, label="country")
    with pytest.raises(PenstockError, match="two columns are called 'a'"):
        ps.profile(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(PenstockError, match="column 'amount' is float in one part and text in another"):
        ps.profile(frame).merge(ps.profile(pd.DataFrame({"amount": ["x"]})))
