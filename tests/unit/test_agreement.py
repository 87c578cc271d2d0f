"""Agreement of reviewers: kappa against scikit-learn's and a plain definition, and intervals that hold the truth."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from penstock.statistics.agreement import Pair, agreement


def pairs_of(*said: tuple[str, bool, str, bool]) -> list[Pair]:
    return [((a, x), (b, y)) for a, x, b, y in said]


TWO = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(TWO)
@settings(deadline=None)
def test_of_two_reviewers_it_is_cohen_s_kappa_whoever_spoke_first(said: list[tuple[bool, bool, bool]]) -> None:
    found = agreement(pairs_of(*[("bob", y, "ada", x) if turned else ("ada", x, "bob", y) for x, y, turned in said]))
    assert found.method == "Cohen 1960"
    if found.kappa is None:
        assert found.missing and len({v for x, y, _ in said for v in (x, y)}) == 1
    else:
        assert math.isclose(found.kappa, cohen_kappa_score([x for x, _, _ in said], [y for _, y, _ in said]), abs_tol=1e-12)
        assert -1 <= (found.low or 0) <= found.kappa <= (found.high or 0) <= 1


def fleiss(ratings: list[tuple[bool, bool]]) -> float:
    """As Fleiss defines it, for any number of categories and ratings."""
    n, m = len(ratings), 2
    each = [[sum(r == c for r in said) for c in (True, False)] for said in ratings]
    agree = fmean((sum(k * k for k in row) - m) / (m * (m - 1)) for row in each)
    chance = sum((sum(row[c] for row in each) / (n * m)) ** 2 for c in (0, 1))
    return (agree - chance) / (1 - chance)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from("de"), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None)
def test_of_more_reviewers_it_is_fleiss_kappa(said: list[tuple[str, bool, str, bool]]) -> None:
    found = agreement(pairs_of(*said, ("a", True, "d", False), ("b", True, "e", False)))
    ratings = [(x, y) for _, x, _, y in said] + [(True, False)] * 2
    assert (found.method, found.answers) == ("Fleiss 1971", len(ratings))
    assert found.kappa is not None and math.isclose(found.kappa, fleiss(ratings), abs_tol=1e-12)


def test_the_variance_of_cohen_s_kappa_is_that_of_fleiss_cohen_and_everitt() -> None:
    """By hand, of the table ((20, 5), (10, 15)): kappa 0.4, standard error 0.1286."""
    pairs = pairs_of(*[("a", True, "b", True)] * 200, *[("a", True, "b", False)] * 50, *[("a", False, "b", True)] * 100,
                     *[("a", False, "b", False)] * 150)  # fmt: skip
    found = agreement(pairs)
    assert found.kappa == pytest.approx(0.4)
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.1286 / math.sqrt(10), rel=0.08)


@pytest.mark.parametrize("names", [["ada", "bob"], ["ada", "bob", "cyd", "dan"]])
@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_holds_the_true_kappa_about_as_often_as_it_says(names: list[str], n: int) -> None:
    """Half of the answers are true, and each reviewer errs on a tenth: observed 0.82, by chance 0.5, kappa 0.64."""
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


def test_a_few_answers_on_which_all_agree_prove_little() -> None:
    found = agreement(pairs_of(*[("a", i % 2 == 0, "b", i % 2 == 0) for i in range(6)]))
    assert found.kappa == 1.0 and found.low is not None and found.low < 0.3


def test_what_says_nothing_is_missing_with_the_reason() -> None:
    assert agreement([]).missing == "no answer was decided by two reviewers yet"
    same = agreement(pairs_of(("a", True, "b", True)))
    assert (same.kappa, same.observed) == (None, 1.0) and "all said the same" in same.missing
