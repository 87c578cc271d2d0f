"""Sketches: what merging may and may not change, how far off they are, and that plain Python gives the same bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.windows import sketch
from penstock.windows.sketch import COMMON_LEAST, DISTINCT_EXACT, DISTINCT_WORDS, QUANTILE_EXACT, QUANTILE_WORDS

Floats = np.ndarray[Any, Any]
ROOM = COMMON_LEAST
VALUES = st.lists(st.integers(-40, 40).map(float), max_size=60)


def compiled(name: str) -> Any:
    """one function of the module in machine code, as the kernel calls it."""
    names = dict(vars(sketch))

    for part in sketch.PARTS:
        names[part.__name__] = numba.njit(FunctionType(part.__code__, names, part.__name__))
    return names[name]


MACHINE = {
    part.__name__: compiled(part.__name__) for part in sketch.PARTS if part.__name__.split("_")[0] in ("distinct", "quantile")
}
MACHINE |= {name: compiled(name) for name in ("top_add", "top_fold", "top_value")}


def made(kind: str, values: Any, by: Any = MACHINE) -> Floats:
    row = np.zeros({"distinct": DISTINCT_WORDS, "quantile": QUANTILE_WORDS, "top": 2 * ROOM}[kind])
    add: Callable[..., None] = by[f"{kind}_add"]
    for value in values:
        add(row, 0, ROOM, value) if kind == "top" else add(row, 0, value)
    return row


def merged(kind: str, *sketches: Floats, by: Any = MACHINE) -> Floats:
    into = made(kind, [])
    for each in sketches:
        more = (ROOM,) if kind == "top" else ()
        by[f"{kind}_fold"](into, 0, each, 0, *more)
    return into


def distinct(row: Floats) -> float:
    return float(MACHINE["distinct_value"](row, 0))


def quantile(row: Floats, q: float) -> float:
    return float(MACHINE["quantile_value"](row, 0, q))


def common(row: Floats, k: int) -> list[float]:
    return [float(MACHINE["top_value"](row, 0, ROOM, nth)) for nth in range(k)]


@given(VALUES, VALUES, VALUES)
@settings(max_examples=60, deadline=None)
def test_merging_is_associative_commutative_and_exact_while_all_values_fit(
    a: list[float], b: list[float], c: list[float]
) -> None:
    every = a + b + c
    for kind in ("distinct", "quantile", "top"):
        one, two, three = (made(kind, values) for values in (a, b, c))
        for row in (
            merged(kind, one, two, three),
            merged(kind, merged(kind, one, two), three),
            merged(kind, one, merged(kind, two, three)),
            merged(kind, three, two, one),
        ):
            if kind == "distinct":
                assert distinct(row) == len(set(every))
            elif kind == "quantile" and every:
                for q in (0.0, 0.01, 0.5, 0.9, 1.0):
                    assert quantile(row, q) == np.quantile(every, q, method="inverted_cdf")
            elif kind == "top" and len(set(every)) <= ROOM:
                wanted = sorted(Counter(every).items(), key=lambda pair: (-pair[1], pair[0]))[:3]
                assert common(row, len(wanted)) == [value for value, _ in wanted]


@pytest.mark.parametrize("n", [129, 1_000, 5_000, 100_000])
def test_distinct_values_beyond_the_bound_are_estimated_within_four_standard_errors(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(3):
        values = rng.normal(size=n)
        row = made("distinct", np.concatenate([values, values[: n // 2]]))
        assert abs(distinct(row) - n) <= 4 * 1.04 / 32 * n, f"{distinct(row):.0f} instead of {n}"


def test_the_union_of_registers_is_the_sketch_of_all_values_in_any_order_and_grouping() -> None:
    values = np.random.default_rng(1).normal(size=3_000)
    whole = made("distinct", values)
    parts = [made("distinct", part) for part in np.split(values, [40, 1_000, 1_100])]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        assert merged("distinct", *(parts[i] for i in order)).tobytes() == whole.tobytes()
    left = merged("distinct", merged("distinct", parts[0], parts[1]), merged("distinct", parts[2], parts[3]))
    assert left.tobytes() == whole.tobytes()


@pytest.mark.parametrize("form", ["random", "rising", "falling", "many alike"])
@pytest.mark.parametrize("n", [257, 3_000, 100_000])
def test_ranks_of_quantiles_are_off_by_at_most_three_percent(form: str, n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.lognormal(size=n)
    values = {"rising": np.sort(values), "falling": -np.sort(-values), "many alike": np.floor(values * 4)}.get(form, values)
    whole = made("quantile", values)
    tiles = merged("quantile", *(made("quantile", part) for part in np.array_split(values, 31)))
    for row in (whole, tiles):
        assert row[0] == n
        for q in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0):
            found = quantile(row, q)
            low, high = np.mean(values < found), np.mean(values <= found)
            assert low - 0.03 <= q <= high + 0.03, f"the {q} quantile {found} has ranks {low:.3f} to {high:.3f}"


def test_a_sketch_whose_highest_level_is_full_stays_in_its_words() -> None:
    rng, highest = np.random.default_rng(3), sketch.LEVELS - 1
    row = np.zeros(QUANTILE_WORDS + 1)
    row[QUANTILE_WORDS] = guard = 12345.0
    row[0], row[1], row[2 + highest] = QUANTILE_EXACT * 2.0**highest, QUANTILE_EXACT, QUANTILE_EXACT
    row[2 + sketch.LEVELS : -1] = rng.random(QUANTILE_EXACT)
    for value in rng.random(5_000):
        MACHINE["quantile_add"](row, 0, value)
        sizes = row[2 : 2 + sketch.LEVELS]
        assert sizes.sum() == row[1] <= QUANTILE_EXACT and (sizes >= 0).all()
    into = merged("quantile", row[:-1], row[:-1])
    for each in (row[:-1], into):
        assert [quantile(each, q) for q in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.1)
    assert row[QUANTILE_WORDS] == guard


def test_a_value_more_common_than_one_in_the_counters_is_never_missed_whatever_the_order_of_merging() -> None:
    rng = np.random.default_rng(4)
    rare, heavy = rng.normal(size=5_000), np.repeat([7.0, 8.0, 9.0], [1_200, 900, 600])
    values = rng.permutation(np.concatenate([rare, heavy]))
    whole = made("top", values)
    parts = [made("top", part) for part in np.array_split(values, 7)]
    one, other = merged("top", *parts), merged("top", *parts[::-1])
    assert common(whole, 3) == common(one, 3) == common(other, 3) == [7.0, 8.0, 9.0]
    assert merged("top", parts[0], parts[1])[1::2].sum() == merged("top", parts[1], parts[0])[1::2].sum()


def test_plain_python_gives_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    plain = {part.__name__: part for part in sketch.PARTS}
    with np.errstate(over="ignore"):
        for kind, n in (("distinct", 200), ("quantile", 700), ("top", 400)):
            values = rng.normal(size=n) if kind != "top" else rng.zipf(1.3, n).astype(float)
            slow, fast = made(kind, values, plain), made(kind, values)
            assert slow.tobytes() == fast.tobytes()
            assert merged(kind, slow, slow, by=plain).tobytes() == merged(kind, fast, fast).tobytes()
    assert DISTINCT_EXACT < 200 and QUANTILE_EXACT < 700 and len(set(values)) > ROOM, "beyond the bounds"
