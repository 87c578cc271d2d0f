"""Agreement of reviewers: alpha as Krippendorff defines and computes it, and intervals that hold the truth."""

from __future__ import annotations

import math
import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.label import Truth
from penstock.statistics.agreement import Pair, agreement


def pairs_of(*said: tuple[str, Truth, str, Truth]) -> list[Pair]:
    return [((a, x), (b, y)) for a, x, b, y in said]


def naive(words: list[tuple[Truth, Truth]], interval: bool) -> float | None:
    """By its definition: over all pairs of words within answers, and over all pairs of words there are."""

    def apart(a: Truth, b: Truth) -> float:
        return (float(a) - float(b)) ** 2 if interval else float(a != b)

    every = [word for pair in words for word in pair]
    expected = sum(apart(a, b) for a, b in permutations(every, 2)) / (len(every) * (len(every) - 1))
    return None if expected == 0 else 1 - sum(apart(a, b) for a, b in words) / len(words) / expected


@given(st.lists(st.tuples(*[st.sampled_from(["bug", "question", "praise"])] * 2), min_size=1, max_size=30))
@settings(deadline=None)
def test_of_classes_it_is_krippendorff_s_alpha_of_the_nominal_metric(words: list[tuple[str, str]]) -> None:
    found = agreement(pairs_of(*[("ada", a, "bob", b) for a, b in words]))
    assert found.metric == "nominal" and found.alpha == pytest.approx(naive(list(words), False), abs=1e-12)
    assert found.observed == pytest.approx(sum(a == b for a, b in words) / len(words))
    if found.alpha is not None:
        assert -1 <= (found.low or 0) <= found.alpha <= (found.high or 0) <= 1


@given(st.lists(st.tuples(*[st.integers(-50, 50).map(float)] * 2), min_size=1, max_size=30), st.sampled_from([0.0, 1e6]))
@settings(deadline=None)
def test_of_numbers_it_is_krippendorff_s_alpha_of_the_interval_metric(words: list[tuple[float, float]], far: float) -> None:
    """Wherever the numbers lie."""
    found = agreement(pairs_of(*[("ada", a + far, "bob", b + far) for a, b in words]), within=2.0)
    assert found.metric == "interval" and found.alpha == pytest.approx(naive(list(words), True), abs=1e-6)
    assert found.observed == pytest.approx(sum(abs(a - b) <= 2 for a, b in words) / len(words))
    if found.alpha is not None:
        assert -1 <= (found.low or 0) <= found.alpha <= (found.high or 0) <= 1


def test_it_is_the_alpha_of_krippendorff_s_own_example() -> None:
    """Computing Krippendorff's alpha-reliability (2011), section A: two observers, binary data, 10 units: 0.095."""
    first, second = "0100000010", "1110010000"
    found = agreement(pairs_of(*[("meg", a == "1", "owen", b == "1") for a, b in zip(first, second, strict=True)]))
    assert found.alpha == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize("names", [["ada", "bob"], ["ada", "bob", "cyd", "dan"]])
@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_holds_the_true_alpha_about_as_often_as_it_says(names: list[str], n: int) -> None:
    """Half of the answers are true, and each reviewer errs on a tenth: observed 0.82, by chance 0.5, alpha 0.64."""
    rng, hits, runs = random.Random(n), 0, 400
    for _ in range(runs):
        said = []
        for _ in range(n):
            truth = rng.random() < 0.5
            first, second = rng.sample(names, 2)
            said.append((first, truth != (rng.random() < 0.1), second, truth != (rng.random() < 0.1)))
        found = agreement(pairs_of(*said))
        hits += found.low is not None and found.high is not None and found.low <= 0.64 <= found.high
    print(f"{len(names)} reviewers, {n} answers: {hits / runs:.1%} of the 95 % intervals hold the truth")
    assert hits / runs > 0.93


@pytest.mark.parametrize("n", [10, 20, 100])
def test_of_numbers_the_interval_holds_the_true_alpha_about_as_often_as_it_says(n: int) -> None:
    """Truths spread by 3, each reviewer errs by 1: alpha 0.9."""
    rng, hits, runs = random.Random(n), 0, 400
    for _ in range(runs):
        truths = [rng.gauss(20, 3) for _ in range(n)]
        found = agreement(pairs_of(*[("ada", t + rng.gauss(0, 1), "bob", t + rng.gauss(0, 1)) for t in truths]), within=1.0)
        hits += found.low is not None and found.high is not None and found.low <= 0.9 <= found.high
    print(f"{n} answers: {hits / runs:.1%} of the 95 % intervals hold the truth")
    assert hits / runs > 0.92


def test_a_few_answers_on_which_all_agree_prove_little() -> None:
    found = agreement(pairs_of(*[("a", i % 2 == 0, "b", i % 2 == 0) for i in range(6)]))
    assert found.alpha == 1.0 and found.low is not None and found.low < 0.3


def test_what_says_nothing_is_missing_with_the_reason() -> None:
    assert agreement([]).missing == "no answer was decided by two reviewers yet"
    for same in (pairs_of(("a", True, "b", True)), pairs_of(("a", 3.0, "b", 3.0))):
        found = agreement(same, None if same[0][0][1] is True else 0.0)
        assert (found.alpha, found.observed) == (None, 1.0) and "all said the same" in found.missing
    one = agreement(pairs_of(("a", True, "b", False)))
    assert one.alpha is not None and one.low is not None and math.isfinite(one.low)
