"""Inputs mean the same in training, serving and monitoring."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.replays import counted

from penstock.inputs import InputsDecoder, squashed
from penstock.statistics import reference
from penstock.statistics.reference import FEW_BINS as BINS


def edges_of(values: np.ndarray) -> list[float]:
    return reference.edges_of(values, BINS)


@pytest.mark.parametrize("seed", range(5))
def test_bins_hold_about_equal_counts(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=10_000).astype(np.float32)
    counts = counted(values, edges_of(values))
    assert len(counts) == BINS + 1
    assert counts[-1] == 0
    assert max(abs(c - 10_000 / BINS) for c in counts[:-1]) < 2


@pytest.mark.parametrize("share", [0.96, 0.9, 0.999])
@pytest.mark.parametrize("heap", [0.0, 5.0, -5.0])
def test_what_lies_beside_a_heap_of_equal_values_has_bins_of_its_own(share: float, heap: float) -> None:
    """Nearly all values at the least, the greatest, or one in the middle: the heap has a bin, and what is left has others."""
    rng = np.random.default_rng(7)
    rest = np.abs(rng.normal(size=20_000)) * (1 if heap <= 0 else -1) + (0 if heap else rng.choice([-1, 1], 20_000))
    values = np.where(rng.random(20_000) < share, heap, rest)
    counts = counted(values, edges_of(values))
    assert max(counts) == np.sum(values == heap)
    others = sorted(counts[:-1])[:-1]
    assert sum(others) == np.sum(values != heap) > 0
    assert max(others) <= 20_000 / BINS + 1, "no more than a bin of what is left"


@pytest.mark.parametrize("seed", range(20))
def test_edges_separate_all_values_when_few_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, BINS // 2)
    values = rng.choice(np.arange(levels) * 1.5, 5_000, p=rng.dirichlet(np.ones(levels)))
    assert sorted(c for c in counted(values, edges_of(values)) if c) == sorted(np.unique(values, return_counts=True)[1].tolist())


def test_no_edge_is_a_value_so_rounding_moves_nothing() -> None:
    """0.1 as float32 is above 0.1 as the JSON number; a heap of equal values must not change its bin."""
    exact = np.repeat([0.1, 0.2, 0.3, 0.7, 1 / 3], [500, 10, 300, 90, 100])
    edges = edges_of(exact.astype(np.float32))
    assert counted(exact.astype(np.float32), edges) == counted(exact, edges)
    assert sum(count > 0 for count in counted(exact, edges)) >= 4


def test_missing_and_infinite_values_and_columns_of_one_value() -> None:
    assert edges_of(np.array([np.nan, np.nan])) == []
    assert counted(np.array([1.0, np.nan, np.inf]), []) == [2, 1]
    assert np.isfinite(edges_of(np.array([1.0, 2.0, np.inf, -np.inf] * 20))).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3e-5, 1e9])
def test_what_was_constant_shows_any_other_value_and_itself_as_before(value: float) -> None:
    edges = edges_of(np.full(100, value))
    others = [value * (1 - 1e-5) - 1e-9, value * (1 + 1e-5) + 1e-9]
    assert counted(np.array([value, np.float32(value), np.nan]), edges) == [0, 2, 0, 1]
    assert counted(np.array(others), edges) == [1, 0, 1, 0]


def test_online_learners_see_values_of_any_size_and_missing_ones_as_zero() -> None:
    matrix = np.array([[0.0, -3.0, np.nan, 1e9, -1e-9]], np.float32)
    expected = [0.0, -np.log(4.0), 0.0, np.log(1 + 1e9), -1e-9]
    np.testing.assert_allclose(squashed(matrix)[0], expected, rtol=1e-7)


def test_rows_of_inputs_are_read_by_name() -> None:
    decoder = InputsDecoder(["b", "a.b"])
    rows = [b'{"a.b":1,"b":2.5}', msgspec.Raw(b'{"b":null,"c":3}'), b'{"a.b":true}']
    np.testing.assert_array_equal(decoder.matrix(rows), np.array([[2.5, 1], [np.nan, np.nan], [np.nan, 1]], np.float32))
    with pytest.raises(msgspec.ValidationError):
        decoder.matrix([b'{"b":"x"}'])


@pytest.mark.parametrize("rows", [0, 3])
def test_a_version_without_inputs_has_rows_all_the_same(rows: int) -> None:
    assert InputsDecoder([]).readable([b"{}"] * rows)[0].shape == (rows, 0)
