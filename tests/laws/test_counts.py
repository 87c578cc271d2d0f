"""Counts of columns: exact under any cut of the rows; distances and tests read from them are those of scipy."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial, stats

from penstock.errors import PenstockError
from penstock.statistics import distances, tests
from penstock.statistics.detectors import DETECTORS, changes, detector
from penstock.statistics.reference import BINS, MOST_LEVELS, Levels, Numbers, edges_of, pack, unpack

ANY = st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0, -0.0, 7.0]), max_size=300)
TEXTS = st.lists(st.none() | st.sampled_from("abcdef") | st.text(max_size=3), max_size=200)


def naive(reference: Numbers, values: list[float]) -> list[int]:
    """Cells and infinities one by one."""
    found = [0] * (len(reference.edges) + 2)
    for value in values:
        found[-1 if value != value else bisect_right(reference.edges, value)] += 1
    return [*found, sum(abs(v) == float("inf") for v in values)]


@given(ANY, ANY, st.integers(0, 300))
@settings(deadline=None)
def test_numbers_are_counted_as_one_by_one_and_any_cut_adds_up(then: list[float], now: list[float], cut: int) -> None:
    reference = Numbers.of(then)
    whole = reference.count(now)
    assert whole[:-2].tolist() == naive(reference, now)
    assert sorted(reference.edges) == list(dict.fromkeys(reference.edges)) and len(reference.edges) < BINS
    parts = [reference.count(now[:cut]), reference.count(now[cut:])]
    assert (parts[1] + parts[0]).tolist() == whole.tolist() and (whole - parts[0]).tolist() == parts[1].tolist()
    moments = reference.moments(whole)
    assert moments.n == int(np.isfinite(now).sum()) and (moments.mean is None) == (moments.n == 0)


@given(TEXTS, TEXTS, st.integers(0, 200))
@settings(deadline=None)
def test_levels_are_counted_as_one_by_one_and_any_cut_adds_up(then: list[str | None], now: list[str | None], cut: int) -> None:
    reference = Levels.of(then)
    whole, often = reference.count(now), Counter(now)
    assert whole[: reference.other_cell].tolist() == [often.get(name, 0) for name in reference.names]
    assert int(whole.sum()) == len(now) and int(whole[reference.missing_cell]) == often.get(None, 0)
    parts = [reference.count(now[:cut]), reference.count(now[cut:])]
    assert (parts[1] + parts[0]).tolist() == whole.tolist() and (whole - parts[0]).tolist() == parts[1].tolist()
    assert reference.own.tolist() == reference.count(then[reference.rows]).tolist()


@pytest.mark.parametrize("values", [[1.5, float("nan"), 2.5], [], [float("inf")], list(range(1000))])
def test_a_reference_survives_packing(values: list[float]) -> None:
    for reference in (Numbers.of(values), Levels.of([str(value) for value in values])):
        assert unpack(pack(reference)) == reference and pack(unpack(pack(reference))) == pack(reference)
    with pytest.raises(PenstockError, match="version 9"):
        unpack(b"\x92\x09\xc0")


def test_a_vector_of_numbers_takes_800_bytes() -> None:
    assert Numbers.of(np.random.default_rng(0).normal(size=10_000)).own.nbytes == 800


def test_a_value_that_fills_bins_has_one_of_its_own() -> None:
    rng = np.random.default_rng(0)
    fees = np.where(rng.random(10_000) < 0.6, 0.0, rng.exponential(size=10_000))
    reference = Numbers.of(fees)
    assert int(reference.own[reference.cells([0.0])[0]]) == int((fees == 0).sum())
    assert edges_of(np.array([3.0, 3.0])) == pytest.approx([3.0, 3.0]) and edges_of(np.array([np.nan])) == []


def test_means_and_deviations_are_right_to_a_hundredth_of_a_deviation_and_bounded() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 50, 20_000)
    reference = Numbers.of(values)
    found = reference.moments(reference.own)
    assert found.mean == pytest.approx(values.mean(), abs=values.std() / 100)
    assert found.std == pytest.approx(values.std(ddof=1), rel=0.01)
    far = reference.moments(reference.count([1e300, *values])).mean
    assert far is not None and far < values.mean() + 1


def test_more_levels_than_have_a_name_are_counted_together_on_rows_that_did_not_name_them() -> None:
    rng = np.random.default_rng(0)
    names = [f"shop {i}" for i in range(5_000)]
    reference = Levels.of_codes(rng.integers(0, 5_000, 40_000), names)
    assert reference.halved and len(reference.names) == MOST_LEVELS and reference.distinct > 4_900
    other = reference.own[reference.other_cell] / reference.own.sum()
    assert other == pytest.approx(0.8, abs=0.02)  # the winner's curse would make it 0.72


# --- distances and tests are those of scipy ---------------------------------------------------------------------------

SAMPLES = [(100, 10_000, 0.0), (1_000, 10_000, 0.2), (5_000, 500, -0.5), (30, 40, 1.0)]


@pytest.mark.parametrize(("n", "m", "shift"), SAMPLES)
def test_distances_of_bins_are_those_of_scipy(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    then, now = rng.normal(size=m), rng.normal(shift, 1, n)
    reference = Numbers.of(then)
    p, q = reference.body(reference.count(now)), reference.body(reference.own)
    borders = np.array(reference.edges)
    places = np.concatenate((borders[:1], (borders[:-1] + borders[1:]) / 2, borders[-1:]))
    deviation = float(np.sqrt(np.cov(places, fweights=q.astype(np.int64), ddof=0)))
    assert distances.jensen_shannon(p, q) == pytest.approx(spatial.distance.jensenshannon(p, q, base=2))
    far = stats.wasserstein_distance(places, places, p, q) / deviation
    assert distances.wasserstein(p, q, reference.edges) == pytest.approx(far)
    energy = stats.energy_distance(places / deviation, places / deviation, p, q)
    assert distances.energy(p, q, reference.edges) == pytest.approx(energy)
    exact = stats.ks_2samp(now, then, method="asymp")
    assert exact.statistic - q.max() / q.sum() - 1e-12 <= distances.ks(p, q) <= exact.statistic + 1e-12  # type: ignore[operator]
    found = tests.ks_test(p, q)
    assert found.p is not None and found.p >= exact.pvalue * 0.9  # scipy takes another approximation to the same law


@pytest.mark.parametrize("levels", [2, 10, 30])
def test_chi_square_of_frequent_levels_is_that_of_scipy(levels: int) -> None:
    rng = np.random.default_rng(levels)
    now, then = rng.multinomial(2_000, [1 / levels] * levels), rng.multinomial(9_000, [1 / levels] * levels)
    assert tests.chi_square(now, then).p == pytest.approx(stats.chi2_contingency([now, then], correction=False).pvalue)


@given(st.integers(0, 40), st.integers(40, 200), st.integers(0, 300), st.integers(300, 2_000))
def test_a_rate_is_never_surer_than_fishers_exact_test_where_that_is_sure(a: int, n: int, b: int, m: int) -> None:
    found = tests.rate_test(a, n, b, m, more=True)
    exact = stats.fisher_exact(np.array([[a, n - a], [b, m - b]]), alternative="greater").pvalue
    assert found.p is not None and (found.p >= exact * 0.999 or exact > 0.1)  # beyond, none of the two is sure
    if (a, b) == (0, 0):
        assert found.p == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_in_the_order_of_p_values(p: list[float]) -> None:
    q = tests.adjusted(p)
    assert all(0 <= one <= 1 and one >= value - 1e-12 for one, value in zip(q, p, strict=True))


EMPTY, ONE = np.zeros(3, np.int64), np.array([0, 1, 0])


@pytest.mark.parametrize("measure", [*distances.OF_CELLS.values()])
def test_a_distance_from_nothing_is_none_and_from_itself_zero(measure: Any) -> None:
    assert measure(EMPTY, ONE) is None and measure(ONE, EMPTY) is None
    assert measure(ONE, ONE) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="not counted against one reference"):
        measure(np.zeros(2, np.int64), ONE)


# --- detectors over an ordered stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_a_rise_of_the_error_rate_is_found_by_every_detector(name: str) -> None:
    rng = np.random.default_rng(3)
    errors = np.concatenate((rng.random(5_000) < 0.2, rng.random(3_000) < 0.5)).astype(int).tolist()
    found = [at for at in changes(errors, name) if at >= 5_000]
    assert found and found[0] < 5_700
    assert list(changes(errors, name)) == list(changes(errors, name))
    with pytest.raises(PenstockError, match="adwim"):
        detector("adwim")
