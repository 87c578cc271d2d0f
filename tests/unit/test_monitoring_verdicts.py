"""Drift and skill: seen when they are there, quiet when they are not, and never a number that is none."""

from __future__ import annotations

import math
from functools import reduce
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from scipy import stats
from tests.replays import counted

import penstock as ps
from penstock.duration import DAY, HOUR
from penstock.policy import Drift, Skill
from penstock.records import Quality
from penstock.services.monitoring.monitors.drifting import Counts, Habits, Period, drift
from penstock.services.monitoring.monitors.verdict import Past, prior_of, skill, skill_of
from penstock.services.monitoring.quality.cohorts import Known
from penstock.statistics.loss import CLIP
from penstock.statistics.measures import auc
from penstock.statistics.quality import BINS, Sums, added, area, loss_of, mean_loss
from penstock.statistics.reference import FEW_BINS, edges_of
from penstock.statistics.shift import COST, chance, critical_of, discovered, distances, level_of, raised_by

RNG = np.random.default_rng


def period(now: dict[str, list[int]], then: dict[str, list[int]], version: str = "v1") -> Period:
    return Period(0, {version: Counts(inputs=now, baseline=then)})


def normals(n: int, inputs: int, seed: int, shift: float = 0.0) -> np.ndarray:
    found = RNG(seed).normal(size=(n, inputs))
    found[:, 0] += shift
    return found


def binned(values: np.ndarray, edges: list[list[float]]) -> dict[str, list[int]]:
    return {f"i{c}": counted(values[:, c], edges[c]) for c in range(values.shape[1])}


@pytest.mark.parametrize("n", [100, 1_000, 20_000])
def test_false_alarms_stay_within_the_budget(n: int) -> None:
    """A hundred months of undrifted days on twenty inputs, with no help from materiality or habit."""
    months, inputs, budget = 60, 20, 1.0
    rng = RNG(n)
    monitor = Drift((), DAY, 1e-9, budget)
    shares = np.full(20, 0.05)
    alarms = 0
    for _ in range(months):
        then = {f"i{c}": [*rng.multinomial(10_000, shares).tolist(), 0] for c in range(inputs)}
        for _ in range(30):
            now = {f"i{c}": [*rng.multinomial(n, shares).tolist(), 0] for c in range(inputs)}
            verdict, _ = drift(monitor, period(now, then), Habits())
            alarms += bool(verdict.bad)
    assert alarms <= budget * months + 2 * math.sqrt(budget * months)
    assert alarms > 0, "a test that never fires is not calibrated but dead"


def test_a_fifth_of_a_standard_deviation_is_seen_in_a_thousand_values() -> None:
    reference = normals(20_000, 10, 0)
    edges = [edges_of(reference[:, c], FEW_BINS) for c in range(10)]
    then, monitor = binned(reference, edges), Drift((), DAY, 0.05, 1.0)
    seen = 0
    for seed in range(1, 41):
        verdict, _ = drift(monitor, period(binned(normals(1_000, 10, seed, shift=0.2), edges), then), Habits())
        seen += bool(verdict.bad) and verdict.evidence["inputs"][0]["input"] == "i0"
    assert seen >= 34


def test_a_fiftieth_of_a_standard_deviation_is_not_material_in_a_hundred_thousand_values() -> None:
    reference = normals(200_000, 3, 0)
    edges = [edges_of(reference[:, c], FEW_BINS) for c in range(3)]
    both = period(binned(normals(100_000, 3, 1, shift=0.02), edges), binned(reference, edges))
    verdict, shifts = drift(Drift((), DAY, 0.05, 30.0), both, Habits())
    assert shifts["i0"].ks > shifts["i0"].critical * 0.8
    assert verdict.bad is False


def test_distance_is_that_of_the_sorted_values_at_the_edges() -> None:
    """The oracle: empirical distribution functions, missing values after everything else."""
    for seed in range(30):
        rng = RNG(seed)
        a, b = rng.normal(size=rng.integers(5, 200)), rng.normal(0.3, 2, size=rng.integers(5, 200))
        a[rng.random(len(a)) < 0.2] = np.nan
        edges = edges_of(b, FEW_BINS)
        naive = max(abs(np.sum(a < e) / len(a) - np.sum(b < e) / len(b)) for e in [*edges, math.inf])
        assert distances(np.array(counted(a, edges)), np.array(counted(b, edges))) == pytest.approx(naive)


@pytest.mark.parametrize(
    ("now", "then", "bad"),
    [
        ([900, 0], [5_000, 0], False),  # constant in both
        ([0, 900], [0, 5_000], False),  # missing in both
        ([0, 900], [5_000, 0], True),  # was constant, is missing
        ([0, 0], [5_000, 0], None),  # nothing now
        ([900, 0], [0, 0], None),  # nothing then
        ([900, 0], [2_000, 3_000, 0], None),  # other bins
        ([1, 0], [0, 5_000], False),  # one value proves nothing
    ],
)
def test_odd_columns_have_a_stated_result(now: list[int], then: list[int], bad: bool | None) -> None:
    verdict, shifts = drift(Drift((), DAY, 0.1, 1.0), period({"i": now}, {"i": then}), Habits())
    assert verdict.bad is bad
    for shift in shifts.values():
        assert all(math.isfinite(x) for x in (shift.ks, shift.psi, shift.critical))


def test_without_a_reference_nothing_is_said() -> None:
    verdict, shifts = drift(Drift((), DAY, 0.1, 1.0), Period(), Habits())
    assert (verdict.bad, shifts) == (None, {})
    verdict, shifts = drift(Drift((), DAY, 0.1, 1.0), period({"i": [5, 5, 0]}, {}), Habits())
    assert (verdict.bad, shifts) == (None, {})


def test_only_the_named_inputs_are_watched() -> None:
    both = period({"a": [900, 0, 0], "b": [450, 450, 0]}, {"a": [500, 500, 0], "b": [500, 500, 0]})
    assert drift(Drift(("b",), DAY, 0.1, 1.0), both, Habits())[0].bad is False
    verdict, shifts = drift(Drift(("a", "gone"), DAY, 0.1, 1.0), both, Habits())
    assert verdict.bad is True
    assert list(shifts) == ["a"]


def test_what_an_alarm_stands_for_does_not_become_custom() -> None:
    """Else an alarm would end by itself while nothing is as it was."""
    monitor, habits = Drift((), DAY, 0.05, 1.0), Habits()
    moves = [drift(monitor, period({"i": [600, 400, 0]}, {"i": [5_000, 5_000, 0]}), habits, active=day > 0) for day in range(30)]
    assert all(verdict.bad for verdict, _ in moves)
    assert habits.earlier == {}


def test_an_input_that_moves_without_an_alarm_makes_a_custom_which_asks_for_more() -> None:
    monitor, habits = Drift((), DAY, 0.1, 1.0), Habits()
    then = {"i": [5_000, 5_000, 0]}
    quiet = [drift(monitor, period({"i": [590, 410, 0]}, then), habits) for _ in range(7)]
    assert not any(verdict.bad for verdict, _ in quiet)
    assert quiet[0][1]["i"].critical < quiet[6][1]["i"].critical, "five windows make a custom"
    assert drift(monitor, period({"i": [850, 150, 0]}, then), habits)[0].bad


def test_no_habit_hides_that_everything_has_changed() -> None:
    noise, raised = np.array([0.002]), np.array([0.1])
    assert all(critical_of(1e-4, noise, np.array([usual]), raised)[0] < 1 for usual in (0.3, 0.7, 0.9, 0.99))


def test_an_alarm_that_is_raised_again_counts_all_that_it_lists_as_beyond_and_what_is_new_first() -> None:
    then = {name: [500, 500, 0] for name in ("old", "quiet", "young")}
    monitor, habits = Drift((), DAY, 0.05, 1.0), Habits()
    for day in range(6):
        now = {"old": [900, 100, 0], "quiet": [500, 500, 0], "young": [800 if day == 5 else 500, 200 if day == 5 else 500, 0]}
        verdict, _ = drift(monitor, period(now, then), habits, active=day > 0)
        assert (verdict.bad, verdict.again) == (True, day == 5)
        beyond = [each["input"] for each in verdict.evidence["inputs"] if each["ks"] > max(each["critical"], each["floor"])]
        assert beyond == [each["input"] for each in verdict.evidence["inputs"] if each["shifted"]]
        assert verdict.evidence["shifted"] == len(beyond)
    assert beyond == ["young", "old"]


def test_no_limit_is_told_that_no_distance_can_reach() -> None:
    verdict, shifts = drift(Drift((), DAY, 0.1, 1.0), period({"i": [1, 0, 0]}, {"i": [500, 500, 0]}), Habits())
    assert shifts["i"].critical == 1.0 and not verdict.bad
    assert verdict.evidence["inputs"][0]["critical"] == 1.0 and verdict.evidence["inputs"][0]["excess"] < 0.5


def test_another_reference_starts_habits_anew() -> None:
    monitor, habits = Drift((), DAY, 0.1, 1.0), Habits()
    for _ in range(6):
        drift(monitor, period({"i": [590, 410, 0]}, {"i": [5_000, 5_000, 0]}), habits)
    assert len(habits.earlier["i"]) == 6
    drift(monitor, period({"i": [590, 410, 0]}, {"i": [5_000, 5_000, 0]}, "v2"), habits)
    assert len(habits.earlier["i"]) == 1


def test_thin_windows_make_no_habit() -> None:
    habits = Habits()
    for _ in range(9):
        drift(Drift((), DAY, 0.05, 1.0), period({"i": [8, 1, 0]}, {"i": [5_000, 5_000, 0]}), habits)
    assert habits.earlier == {}


def test_the_budget_is_shared_among_inputs_and_windows() -> None:
    assert level_of(1.0, DAY) * COST == pytest.approx(1 / 30)
    assert level_of(1.0, HOUR) * COST == pytest.approx(1 / 720)
    assert level_of(1e9, DAY) == 0.5
    threshold, found = discovered(np.ones(20), 0.1)
    assert threshold == pytest.approx(0.005)
    assert found == 0
    zero = np.zeros(1)
    critical = [critical_of(0.01, np.array([2 / n]), zero, zero)[0] for n in (10, 100, 1000, 10_000)]
    assert all(a > b for a, b in pairwise(critical))


@pytest.mark.parametrize("level", [0.1, 0.01])
@pytest.mark.parametrize("bins", [2, 8, 20, 80])
def test_chance_is_as_rare_as_it_says(bins: int, level: float) -> None:
    """Of few bins it is said to be less rare than it is; never more."""
    rng, trials, shares = RNG(bins), 40_000, np.full(bins, 1 / bins)
    for n, m in ((40, 300), (1_000, 20_000)):
        now, then = rng.multinomial(n, shares, trials), rng.multinomial(m, shares, trials)
        noise = np.full(trials, 1 / n + 1 / m)
        p = chance(distances(now, then), noise, np.zeros(trials), raised_by(then))
        share = float((p <= level).mean()) / level
        assert share <= 1.15
        assert share >= (0.85 if bins >= 8 else 0.3)


def test_what_is_critical_has_the_chance_it_was_asked_for() -> None:
    noise, spread, raised = np.array([0.01, 0.001]), np.array([0.0, 0.04]), np.array([0.13, 0.2])
    for level in (0.3, 0.01, 1e-5):
        assert chance(critical_of(level, noise, spread, raised), noise, spread, raised) == pytest.approx(level)


@pytest.mark.parametrize("seed", range(20))
def test_discoveries_are_those_of_scipy(seed: int) -> None:
    rng = RNG(seed)
    p = rng.random(30) ** rng.choice([1, 3])
    threshold, found = discovered(p, 0.1)
    oracle = stats.false_discovery_control(p) <= 0.1
    assert found == oracle.sum()
    assert not found or ((p <= threshold) == oracle).all()


# --- quality ----------------------------------------------------------------------------------------------------------


def summed(scores: np.ndarray, labels: np.ndarray) -> Quality:
    sums = Sums()
    for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
        sums.add(score, label)
    return sums.frozen()


@pytest.mark.parametrize("seed", range(10))
def test_area_is_the_rank_statistic_of_the_binned_scores(seed: int) -> None:
    rng = RNG(seed)
    labels = rng.random(300) < 0.3
    scores = np.clip(rng.normal(0.4 + 0.1 * labels, 0.2), 0, 1)
    steps = np.floor(np.clip(scores, CLIP, 1 - CLIP) * BINS)
    assert area(summed(scores, labels)) == pytest.approx(auc(labels, steps), abs=1e-12)
    assert area(summed(scores, labels)) == pytest.approx(auc(labels, scores), abs=0.01)


def test_area_and_loss_of_too_little_are_missing() -> None:
    assert area(Quality()) is None
    assert mean_loss(Quality()) is None
    assert area(summed(np.array([0.2, 0.7]), np.array([True, True]))) is None
    taken_back = Sums()
    taken_back.add(0.9, False, -1)
    taken_back.add(0.9, True, 1)
    assert area(taken_back.frozen()) is None
    assert mean_loss(taken_back.frozen()) is None


def test_sums_add_to_the_same_bits_in_any_order() -> None:
    rng = RNG(3)
    scores, labels = rng.random(5_000), rng.random(5_000) < 0.5
    whole = summed(scores, labels)
    order = rng.permutation(5_000)
    parts = np.array_split(order, 7)
    assert reduce(added, [summed(scores[p], labels[p]) for p in parts]) == whole
    exact = -np.mean(np.log(np.where(labels, scores, 1 - scores)))
    assert mean_loss(whole) == pytest.approx(exact, abs=1e-8)


def test_a_sure_error_costs_no_more_than_the_clip() -> None:
    sums = Sums()
    assert sums.add(0.0, True) == loss_of(CLIP, True) == pytest.approx(13.8155, abs=1e-4)
    assert sums.add(7.0, False) == pytest.approx(13.8155, abs=1e-4)
    assert sum(sums.frozen().bins_true) == 1


# --- skill ------------------------------------------------------------------------------------------------------------


def past(n: int, loss: float, prior: float | None = 100.0, start: int = 0) -> Past:
    return Past(start, n, loss, prior, n, n // 2)


def test_skill_is_judged_on_enough_outcomes_only() -> None:
    monitor = Skill(0.1, 7 * DAY, DAY, least=500)
    assert skill(monitor, [past(499, 99.0)], DAY).bad is None
    assert skill(monitor, [past(500, 99.0)], DAY).bad is True
    assert skill(monitor, [past(500, 80.0)], DAY).bad is False
    assert skill(monitor, [past(500, 99.0, prior=None)], DAY).bad is None
    assert skill(monitor, [], DAY).bad is None


def test_skill_looks_back_as_far_as_it_says() -> None:
    windows = [past(500, 99.0, start=0), past(500, 50.0, start=7 * DAY)]
    monitor = Skill(0.1, 7 * DAY, DAY)
    assert skill(monitor, windows, 8 * DAY).evidence["skill"] == 0.5
    assert skill(monitor, windows, 7 * DAY).evidence["skill"] == pytest.approx(1 - 149 / 200)
    assert skill(monitor, windows, 16 * DAY).bad is None
    assert skill_of([]).value is None


def test_a_prior_needs_outcomes() -> None:
    assert prior_of([past(29, 1.0)], 0) == (None, 29)
    assert prior_of([past(30, 1.0)], 0) == (0.5, 30)
    assert prior_of([], 0) == (None, 0)


def test_what_was_saved_before_labels_had_kinds_is_read() -> None:
    old = msgspec.msgpack.encode([7, 500, 99.0, 100.0, 500, 250])
    assert msgspec.msgpack.decode(old, type=Past) == Past(7, 500, 99.0, 100.0, 500, 250)
    sums = msgspec.msgpack.encode({"n": 1, "positives": 1, "loss": 0.5, "squares": 0.25, "bins_true": [1], "bins_false": [0]})
    assert msgspec.msgpack.decode(sums, type=Sums).frozen().errors is msgspec.UNSET
    known = msgspec.msgpack.decode(msgspec.msgpack.encode({"prior": 0.25, "last": True}), type=Known)
    assert (known.prior, known.last) == (0.25, True)


def test_monitors_are_declared_in_the_language() -> None:
    assert ps.skill(floor=0.1).least == 500
    assert ps.drift().inputs == ()
