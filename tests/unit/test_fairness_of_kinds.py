"""Gaps between groups whose answers are numbers or classes: what rows say, with intervals that hold, and alarms within budget."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.unit.test_fairness import Applicant, Repaid

import penstock as ps
from penstock.fairness import measures_of
from penstock.records import Group
from penstock.segment import MOST, OTHERS
from penstock.services.monitoring.monitors.parity import Standing, unequal
from penstock.statistics.apart import Mean, ratio, student
from penstock.statistics.fairness import LEAST, Gap, gaps, treated
from penstock.statistics.groups import Levels, added_groups, told
from penstock.statistics.groups import measures_of as measures_in
from penstock.statistics.kinds import kind_of

KINDS = ("bug", "question", "praise")
NUMBER, WORST = ps.label(Repaid.left, within="1d"), ps.label(Repaid.left, within="1d", quantile=0.9)
CLASS = ps.label(Applicant.home, within="1d", classes=KINDS)

Row = tuple[str, Any, Any]
"""Level, answer, truth (None: not known)."""


def counted(rows: list[Row], label: Any) -> dict[str, Group]:
    levels, kind = Levels(), kind_of(label)
    for level, said, truth in rows:
        levels.answer(level, said, 100, kind)
        if truth is not None:
            levels.judge(level, said, truth, 1, kind)
    return levels.frozen()


def of_numbers(seed: int, n: int = 500) -> list[Row]:
    rng, found = random.Random(seed), list[Row]()
    for _ in range(n):
        level = rng.choice(["a", "b", "ü"])
        truth = rng.lognormvariate(1, 0.5)
        said = truth + rng.gauss(0.5 * (level == "b"), 1 + (level == "a"))
        found.append((level, said, None if rng.random() < 0.2 else truth))
    return found


def of_classes(seed: int, n: int = 500) -> list[Row]:
    rng, found = random.Random(seed), list[Row]()
    for _ in range(n):
        level, truth = rng.choice(["a", "b", "ü"]), rng.choice(KINDS)
        weights = [rng.random() + (1.0 + (level == "a")) * (name == truth) * (rng.random() < 0.7) for name in KINDS]
        found.append((level, {name: w / sum(weights) for name, w in zip(KINDS, weights, strict=True)}, truth))
    return found


def found_in(rows: list[Row], label: Any, against: str = "") -> list[Gap]:
    return gaps({level: treated(group) for level, group in counted(rows, label).items()}, against, measures_of(label))


def naive(rows: list[Row], gap: Gap) -> float:
    """A measure from the rows themselves."""
    known = [(said, truth) for _, said, truth in rows if truth is not None]
    if isinstance(rows[0][1], dict):
        named = [(max(KINDS, key=said.__getitem__), truth, max(said.values())) for said, truth in known]
        by: dict[str, list[float]] = {
            "accuracy": [said == truth for said, truth, _ in named],
            "calibration": [(said == truth) - p for said, truth, p in named],
            "selection_rate": [max(KINDS, key=said.__getitem__) == gap.of for _, said, _ in rows],
            "true_positive_rate": [said == gap.of for said, truth, _ in named if truth == gap.of],
            "false_positive_rate": [said == gap.of for said, truth, _ in named if truth != gap.of],
            "precision": [truth == gap.of for said, truth, _ in named if said == gap.of],
        }
    else:
        by = {
            "mean_answer": [said for _, said, _ in rows],
            "bias": [said - truth for said, truth in known],
            "mae": [abs(said - truth) for said, truth in known],
            "pinball": [max(0.9 * (truth - said), 0.1 * (said - truth)) for said, truth in known],
            "coverage": [truth <= said for said, truth in known],
        }
    return float(np.mean(by[gap.measure]))


@pytest.mark.parametrize("against", ["", "b"])
@pytest.mark.parametrize("label", [NUMBER, WORST, CLASS], ids=["mean", "quantile", "class"])
def test_every_gap_is_what_rows_say(label: Any, against: str) -> None:
    rows = of_classes(3, 1_500) if label is CLASS else of_numbers(3)
    found = found_in(rows, label, against)
    assert {gap.measure for gap in found} == set(measures_of(label))
    assert {gap.of for gap in found if gap.measure == "precision"} == (set(KINDS) if label is CLASS else set())
    for gap in found:
        mine = naive([row for row in rows if row[0] == gap.group], gap)
        theirs = naive([row for row in rows if (row[0] == against if against else row[0] != gap.group)], gap)
        assert gap.value == pytest.approx(mine, abs=1e-6)
        assert gap.other == pytest.approx(theirs, abs=1e-6)
        assert gap.gap is not None and gap.p is not None
        assert gap.gap.low < gap.gap.value < gap.gap.high and gap.gap.value == pytest.approx(mine - theirs, abs=1e-6)
        if gap.ratio is not None:
            assert gap.ratio.low <= gap.ratio.value <= gap.ratio.high and gap.ratio.value == pytest.approx(mine / theirs)


@pytest.mark.parametrize("label", [NUMBER, WORST, CLASS], ids=["mean", "quantile", "class"])
@pytest.mark.parametrize("partitions", [1, 3, 8])
def test_more_levels_than_are_counted_apart_give_the_same_bytes_over_any_partitions(label: Any, partitions: int) -> None:
    rng = random.Random(partitions)
    rows = [(f"λ{int(rng.expovariate(0.02))}", *row[1:]) for row in (of_classes if label is CLASS else of_numbers)(1, 2_000)]
    shares: list[list[Row]] = [[] for _ in range(partitions)]
    for row in rows:
        rng.choice(shares).append(row)
    whole, kind = told({"s": counted(rows, label)}, kind_of(label)), kind_of(label)
    assert len(whole["s"]) == MOST + 1 and OTHERS in whole["s"]
    assert told(added_groups(*({"s": counted(share, label)} for share in shares)), kind) == whole


@pytest.mark.parametrize("label", [NUMBER, WORST, CLASS], ids=["mean", "quantile", "class"])
def test_an_outcome_that_is_taken_back_leaves_nothing(label: Any) -> None:
    rows, kind = (of_classes if label is CLASS else of_numbers)(2, 60), kind_of(label)
    levels = Levels()
    for level, said, truth in rows:
        levels.answer(level, said, 100, kind)
        if truth is not None:
            other = "praise" if label is CLASS else truth + 7.5
            for each, sign in ((other, 1), (other, -1), (truth, 1)):
                levels.judge(level, said, each, sign, kind)
    mine, theirs = levels.frozen(), counted(rows, label)
    assert gaps({k: treated(g) for k, g in mine.items()}, "", measures_of(label)) == found_in(rows, label)
    for level, group in theirs.items():
        assert measures_in(mine[level], kind, None) == measures_in(group, kind, None)


def test_the_coverage_of_a_quantile_is_among_its_measures() -> None:
    rows = of_numbers(4)
    for level, group in counted(rows, WORST).items():
        found = measures_in(group, kind_of(WORST), None)
        known = [truth <= said for own, said, truth in rows if own == level and truth is not None]
        assert found["coverage"].value == pytest.approx(np.mean(known))
    assert all("coverage" not in measures_in(group, kind_of(NUMBER), None) for group in counted(rows, NUMBER).values())


# --- means ------------------------------------------------------------------------------------------------------------


def mean(values: Any) -> Mean:
    return Mean(len(values), float(np.mean(values)), float(np.var(values, ddof=1)))


@given(st.integers(30, 400), st.integers(30, 400), st.floats(0.1, 10), st.floats(-3, 3), st.integers(0, 2**30))
@settings(max_examples=100, deadline=None)
def test_a_difference_of_means_is_judged_as_scipy_does_by_the_test_that_says_less(
    n: int, m: int, wider: float, apart: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), apart + wider * rng.normal(size=m)
    gap, p = student(mean(a), mean(b))
    both = [stats.ttest_ind(a, b, equal_var=equal) for equal in (True, False)]
    expected = max(float(each.pvalue) for each in both)
    assert p == pytest.approx(expected, rel=0.03, abs=1e-12) or expected < 1e-6
    limits = [each.confidence_interval() for each in both]
    assert gap.low == pytest.approx(min(each.low for each in limits), rel=1e-3, abs=1e-3)
    assert gap.high == pytest.approx(max(each.high for each in limits), rel=1e-3, abs=1e-3)


SIZES: dict[str, Callable[[Any, tuple[int, int]], Any]] = {
    "normal": lambda rng, size: np.abs(rng.normal(size=size)),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "lognormal": lambda rng, size: rng.lognormal(0, 0.7, size=size),
}


@pytest.mark.parametrize("name", SIZES)
def test_intervals_of_mean_errors_and_their_ratios_hold_the_truth_however_skewed(name: str) -> None:
    rng, held = np.random.default_rng(1), defaultdict[str, list[bool]](list)
    truth = float(SIZES[name](rng, (1_000_000, 1)).mean())
    for a, b in zip(SIZES[name](rng, (2_000, 60)), 1.5 * SIZES[name](rng, (2_000, 400)), strict=True):
        one, two = mean(a), mean(b)
        gap, times = student(one, two)[0], ratio(one.interval, two.interval)
        held["gap"].append(gap.low <= -0.5 * truth <= gap.high)
        assert times is not None
        held["ratio"].append(times.low <= 1 / 1.5 <= times.high)
    print(name, {which: round(float(np.mean(cases)), 3) for which, cases in held.items()})
    for cases in held.values():
        assert 0.925 <= np.mean(cases) <= 0.995


def test_equal_constants_are_no_gap_and_different_ones_are() -> None:
    found = {(gap.group, gap.measure): gap for gap in found_in([("a", 0.1, 0.3)] * 50 + [("b", 0.1, 0.3)] * 77, NUMBER)}
    assert all(gap.size == 0 and gap.p == 1.0 for gap in found.values())
    apart = {gap.measure: gap for gap in found_in([("a", 0.1, 0.1)] * 50 + [("b", 0.2, 0.1)] * 50, NUMBER, "a")}
    assert apart["mean_answer"].size == math.inf and apart["mae"].p == 0.0 and apart["mae"].ratio is None


def test_great_numbers_far_from_zero_lose_no_digits() -> None:
    rng = np.random.default_rng(2)
    rows = [("ab"[i % 2], 1e9 + float(rng.normal()), 1e9) for i in range(400)] + [("c", 1e60, -1e60)] * 40
    (gap,) = [each for each in found_in(rows, NUMBER, "a") if (each.group, each.measure) == ("b", "mean_answer")]
    assert gap.scale == pytest.approx(1.0, rel=0.2)
    assert gap.p is not None and gap.p > 0.01


def test_what_there_is_too_little_of_is_said_and_not_judged() -> None:
    rows = [("small", 1.0 + at, 2.0) for at in range(LEAST - 1)] + [("large", 5.0 + at, 2.0) for at in range(300)]
    found = found_in([*rows, ("one", 3.0, None)], NUMBER, "large")
    assert {gap.unjudged for gap in found if gap.group == "small"} == {"too small: 29 of 30"}
    assert all(gap.p is None for gap in found)
    (mae,) = [gap for gap in found if (gap.group, gap.measure) == ("small", "mae")]
    assert mae.gap is not None, "the figures are shown all the same"
    assert {gap.unjudged for gap in found if gap.group == "one"} == {"too small: 1 of 30", "too small: 0 of 30"}


# --- alarms -----------------------------------------------------------------------------------------------------------

SHARES = [0.4, 0.3, 0.15, 0.1, 0.05]


def day(rng: Any, n: int, label: Any, odd: str = "", worse: float = 1.0) -> dict[str, Group]:
    """Groups of a day, alike but for `odd`: its errors are `worse` times as great, or so much of its classes chance."""
    rows = list[Row]()
    for level in rng.choice(list("abcde"), n, p=SHARES).tolist():
        if label is CLASS:
            truth = KINDS[int(rng.integers(3))]
            shares = rng.dirichlet([1, 1, 1]) * 0.4 + [0.6 * (name == truth) for name in KINDS]
            if level == odd and rng.random() < worse:
                rng.shuffle(shares)
            rows.append((level, dict(zip(KINDS, shares.tolist(), strict=True)), truth))
        else:
            error = float(rng.standard_t(4)) * (worse if level == odd else 1.0)
            rows.append((level, 10.0 + error, 10.0))
    return counted(rows, label)


def verdicts(days: list[dict[str, Group]], monitor: Any) -> list[tuple[bool | None, dict[str, Any]]]:
    """As of a monitor whose alarms are cleared at once."""
    standing, found = Standing(), []
    for index, groups in enumerate(days):
        standing.add(index, groups, 0.5)
        verdict = unequal(monitor, standing)
        found.append((verdict.bad, verdict.evidence))
        if verdict.bad:
            standing.forget()
    return found


@pytest.mark.parametrize(("label", "n"), [(NUMBER, 200), (WORST, 200), (CLASS, 150)], ids=["mean", "quantile", "class"])
def test_where_all_are_alike_alarms_are_as_rare_as_the_budget_says(label: Any, n: int) -> None:
    rng = np.random.default_rng(n)
    monitor = ps.fairness(Applicant.sex, gap=0.001).of(label, "a model")
    found = verdicts([day(rng, n, label) for _ in range(90)], monitor)
    raised = sum(bad is True for bad, _ in found)
    print(f"{raised} false alarms in 3 months at {n} answers a day")
    assert raised <= 2 * 3


@pytest.mark.parametrize(
    ("label", "worse", "measure", "least"),
    [(NUMBER, 1.6, "mae", 0.3), (WORST, 1.6, "pinball", 0.3), (CLASS, 0.6, "accuracy", 0.1)],
    ids=["mean", "quantile", "class"],
)
def test_a_gap_that_is_planted_is_found_named_and_measured(label: Any, worse: float, measure: str, least: float) -> None:
    rng = np.random.default_rng(3)
    monitor = ps.fairness(Applicant.sex, gap=least, measures=[measure]).of(label, "a model")
    found = verdicts(
        [day(rng, 1_500, label) for _ in range(10)] + [day(rng, 1_500, label, "c", worse) for _ in range(5)], monitor
    )
    assert not any(bad for bad, _ in found[:10])
    first = next(at for at, (bad, _) in enumerate(found) if bad)
    assert first <= 12
    (gap,) = [each for each in found[first][1]["gaps"] if each["group"] == "c"]
    assert gap["measure"] == measure and gap["gap"]["low"] * gap["gap"]["high"] > 0


def test_a_small_gap_in_many_answers_is_significant_and_no_alarm() -> None:
    rng = np.random.default_rng(4)
    monitor = ps.fairness(Applicant.sex, gap=0.3, measures=["mae"]).of(NUMBER, "a model")
    days = [day(rng, 12_000, NUMBER, "b", 1.15) for _ in range(2)]
    found = gaps({level: treated(group) for level, group in days[0].items()}, "", ["mae"])
    assert min(gap.p or 1.0 for gap in found) < 1e-3
    assert [bad for bad, _ in verdicts(days, monitor)] == [False, False]


def test_a_gap_of_one_class_is_remembered_by_its_class() -> None:
    def of(right: int) -> list[Row]:
        sure = {"bug": 0.8, "question": 0.1, "praise": 0.1}
        turned = {"bug": 0.1, "question": 0.8, "praise": 0.1}
        return [("a", sure, "bug")] * 400 + [("b", sure, "bug")] * right + [("b", turned, "bug")] * (400 - right)

    monitor = ps.fairness(Applicant.sex, gap=0.1, measures=["true_positive_rate"]).of(CLASS, "a model")
    standing, said = Standing(), []
    for index, right in enumerate((200, 200, 400)):
        standing.add(index, counted(of(right), CLASS), 0.5)
        said.append(unequal(monitor, standing).bad)
    assert said == [True, True, False]
    assert standing.named == [("a", "true_positive_rate/bug"), ("b", "true_positive_rate/bug")]
