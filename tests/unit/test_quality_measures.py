"""Measures from sums: what scikit-learn says of the same outcomes one by one, intervals that hold the truth, nothing that is not
a number."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from functools import reduce
from statistics import NormalDist

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

import penstock as ps
from penstock.event import column_of
from penstock.label import Label
from penstock.records import Measure, Quality
from penstock.statistics import exact
from penstock.statistics.binary import answering, confusion, measured, wilson
from penstock.statistics.classes import (
    counted,
    counted_classes,
    empty,
    mean_class_loss,
    measured_classes,
    measured_quality,
    truths,
)
from penstock.statistics.kinds import kind_of
from penstock.statistics.quality import BINS, Sums, added
from penstock.value import Value


@ps.event("weighed")
class Weighed:
    name: ps.Key[str]
    grams: float
    at: ps.EventTime


COLUMN = column_of(Weighed.grams)


def summed(scores: list[float], labels: list[bool]) -> Quality:
    sums = Sums()
    for score, label in zip(scores, labels, strict=True):
        sums.add(score, label)
    return sums.frozen()


def drawn(n: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Scores in the middle of steps, so that sums lose nothing of them; labels as often true as they say."""
    rng = np.random.default_rng(seed)
    scores = (np.floor(rng.beta(2, 3, n) * BINS) + 0.5) / BINS
    return scores.tolist(), (rng.random(n) < scores).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.77])
def test_measures_from_sums_are_those_of_the_outcomes_one_by_one(seed: int, threshold: float) -> None:
    scores, labels = drawn(700, seed)
    found = measured(summed(scores, labels), threshold)
    said = [score >= threshold for score in scores]
    tn, fp, fn, tp = metrics.confusion_matrix(labels, said).ravel().tolist()
    assert confusion(summed(scores, labels), threshold) == (tp, fp, tn, fn)
    expected = {
        "accuracy": metrics.accuracy_score(labels, said),
        "auc": metrics.roc_auc_score(labels, scores),
        "average_precision": metrics.average_precision_score(labels, scores),
        "brier": metrics.brier_score_loss(labels, scores),
        "f1": metrics.f1_score(labels, said),
        "f2": metrics.fbeta_score(labels, said, beta=2),
        "kappa": metrics.cohen_kappa_score(labels, said),
        "log_loss": metrics.log_loss(labels, scores),
        "precision": metrics.precision_score(labels, said),
        "recall": metrics.recall_score(labels, said),
        "specificity": metrics.recall_score(np.logical_not(labels), np.logical_not(said)),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name
    bands = np.minimum((np.array(scores) * 20).astype(int), 19)
    gaps = [abs(sum(np.array(scores)[bands == b]) - sum(np.array(labels)[bands == b])) for b in range(20)]
    assert found["calibration_error"].value == pytest.approx(sum(gaps) / 700)


def test_a_score_on_the_threshold_says_yes() -> None:
    for step in range(1, BINS):
        for score, says in ((step / BINS, True), (math.nextafter(step / BINS, 0.0), False)):
            assert sum(confusion(summed([score], [True]), step / BINS)[:2]) == says, score


def test_kappa_temporal_is_0_for_who_says_the_last_label_and_below_for_who_is_worse() -> None:
    scores, labels = [0.1] * 10, [False] * 7 + [True] * 3
    assert measured(summed(scores, labels), last=False)["kappa_temporal"].value == 0.0
    assert measured(summed([0.9] * 10, labels), last=False)["kappa_temporal"].value == pytest.approx((0.3 - 0.7) / 0.3)
    assert "kappa_temporal" not in measured(summed(scores, [False] * 10), last=False), "what was always right cannot be beaten"


def test_the_value_is_the_mean_worth_of_an_answer() -> None:
    scores, labels = drawn(500)
    value = Value(10.0, -3.0, 0.5, -7.0, above=0.4)
    tp, fp, tn, fn = confusion(summed(scores, labels), 0.4)
    found = measured(summed(scores, labels), value=value)
    assert found["value"].value == pytest.approx((10 * tp - 3 * fp + 0.5 * tn - 7 * fn) / 500)
    assert found["accuracy"].value == (tp + tn) / 500, "the other decisions are those at the same threshold"


@pytest.mark.parametrize("n", [60, 400])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n: int) -> None:
    """300 windows of one truth; 95 % is meant, and less than 88 % would be a wrong formula."""
    scores, labels = drawn(200_000, seed=99)
    truth = measured(summed(scores, labels), value=Value(9.0, -1.0, 0.0, 0.0, above=0.5))
    rng, held = np.random.default_rng(5), dict.fromkeys(truth, 0)
    for _ in range(300):
        chosen = rng.integers(0, len(scores), n)
        found = measured(
            summed([scores[i] for i in chosen], [labels[i] for i in chosen]), value=Value(9.0, -1.0, 0.0, 0.0, above=0.5)
        )
        for name, measure in found.items():
            held[name] += measure.low <= truth[name].value <= measure.high
    del held["calibration_error"]  # chance adds to it: the smaller the window, the greater
    assert min(held.values()) >= 0.88 * 300, held


@pytest.mark.parametrize("positives", [1, 2, 5])
@pytest.mark.parametrize("auc", [0.6, 0.95])
def test_a_few_outcomes_of_one_kind_leave_the_area_open(positives: int, auc: float) -> None:
    """Normal scores: what one fraud in 200 answers says of the area is little, and DeLong alone held it in one window of ten."""
    rng, apart, held = np.random.default_rng(3), NormalDist().inv_cdf(auc) * math.sqrt(2), 0
    for _ in range(200):
        scores = 1 / (1 + np.exp(-np.concatenate((rng.normal(apart, 1, positives), rng.normal(0, 1, 200)))))
        bins = np.floor(scores * BINS).astype(int)
        true, false = (np.bincount(each, minlength=BINS).tolist() for each in np.split(bins, [positives]))
        found = measured(Quality(n=200 + positives, positives=positives, bins_true=true, bins_false=false))["auc"]
        held += found.low <= auc <= found.high
    assert held >= 0.9 * 200


def test_sums_of_parts_measure_as_the_whole_does() -> None:
    scores, labels = drawn(900)
    parts = [summed(scores[i::7], labels[i::7]) for i in range(7)]
    assert measured(reduce(added, parts)) == measured(summed(scores, labels))


def test_a_baseline_is_what_answering_always_the_same_would_have_been() -> None:
    scores, labels = drawn(300)
    plain = measured(summed([0.3125] * 300, labels))
    assert measured(answering(0.3125, summed(scores, labels))) == {
        name: msgspec.structs.replace(
            each, **{part: pytest.approx(getattr(each, part), abs=1e-6) for part in ("value", "low", "high")}
        )
        for name, each in plain.items()
    }


@given(
    st.lists(st.tuples(st.integers(0, BINS - 1), st.booleans()), max_size=30),
    st.sampled_from([None, True, False]),
    st.sampled_from([0.005, 0.5, 0.995]),
)
@settings(max_examples=60, deadline=None)
def test_no_window_gives_what_is_not_a_number(cells: list[tuple[int, bool]], last: bool | None, threshold: float) -> None:
    quality = summed([(place + 0.5) / BINS for place, _ in cells], [label for _, label in cells])
    found = measured(quality, threshold, Value(1.0, -1.0, 0.0, 0.0, above=threshold), last)
    assert bool(found) == bool(cells)
    for name, measure in found.items():
        assert all(map(math.isfinite, (measure.value, measure.low, measure.high))), name
        assert measure.low <= measure.value + 1e-12
        assert measure.value <= measure.high + 1e-12


def test_of_less_than_nothing_nothing_is_said() -> None:
    taken = Sums()
    taken.add(0.3, True, -1)
    assert measured(taken.frozen()) == {} == measured(Quality())
    assert wilson(0, 0) is None


# --- several classes, numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_measures_of_classes_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, answer = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    answer[:150] = truth[:150]
    scores = rng.dirichlet(np.ones(4), 300)
    halves = [counted_classes(truth[part].tolist(), answer[part].tolist(), 4) for part in (slice(0, 100), slice(100, None))]
    found = measured_classes(halves[0] + halves[1])
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, answer))
    assert found["kappa"].value == pytest.approx(metrics.cohen_kappa_score(truth, answer))
    assert found["macro_f1"].value == pytest.approx(metrics.f1_score(truth, answer, average="macro"))
    assert mean_class_loss(scores, truth.tolist()) == pytest.approx(metrics.log_loss(truth, scores, labels=range(4)))


def test_intervals_of_classes_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    table = rng.dirichlet(np.ones(9) * 2) + np.eye(3).ravel() * 0.2
    table /= table.sum()
    truth = measured_classes((table * 1e9).astype(np.int64).reshape(3, 3))
    held = dict.fromkeys(truth, 0)
    for _ in range(300):
        for name, measure in measured_classes(rng.multinomial(300, table).reshape(3, 3)).items():
            held[name] += measure.low <= truth[name].value <= measure.high
    assert min(held.values()) >= 0.88 * 300, held


def test_a_class_that_never_occurs_and_a_table_of_one_class_are_no_trouble() -> None:
    assert measured_classes(np.array([[3, 0, 1], [0, 0, 0], [1, 0, 2]]))["macro_f1"].value == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert set(measured_classes(np.array([[5, 0], [0, 0]]))) == {"accuracy", "macro_f1", "weighted_f1"}
    assert measured_classes(np.zeros((2, 2), np.int64)) == {}


def test_a_class_says_what_it_is_beyond_what_was_usual() -> None:
    counts = np.array([[30, 10, 0], [5, 25, 0], [10, 0, 20]])
    found = measured_classes(counts, last=0)["kappa_temporal"]
    right, plain = 75 / 100, 40 / 100
    assert found.value == pytest.approx((right - plain) / (1 - plain))
    assert found.low < found.value < found.high


@pytest.mark.parametrize("seed", range(3))
def test_counted_answers_of_classes_are_scikit_learns(seed: int) -> None:
    rng, kind = np.random.default_rng(seed), kind_of(Label(COLUMN, 1, None, None, ("a", "b", "c")))
    shares = rng.dirichlet(np.ones(3), 400)
    truth = ["abc"[rng.choice(3, p=(row + 1) / 4)] for row in shares]
    parts = [kind.sums() for _ in range(3)]
    losses = [
        kind.add(parts[i % 3], dict(zip("abc", row, strict=True)), label)
        for i, (row, label) in enumerate(zip(shares.tolist(), truth, strict=True))
    ]
    whole = added(added(parts[0].frozen(), parts[1].frozen()), parts[2].frozen())
    found = {name: each.value for name, each in kind.measured(whole, None, "b").items()}
    answer = ["abc"[at] for at in shares.argmax(axis=1)]
    assert sum(losses) / 400 == pytest.approx(metrics.log_loss(truth, shares))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, shares))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(truth, answer, average="weighted"))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, answer))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, shares, multi_class="ovr"), abs=0.01)  # 40 bins
    hits = np.array(truth) == np.array(answer)
    bands = np.minimum((shares.max(axis=1) * 20).astype(int), 19)
    gaps = [abs(hits[bands == b].sum() - shares.max(axis=1)[bands == b].sum()) for b in range(20)]
    assert found["calibration_error"] == pytest.approx(sum(gaps) / 400, abs=0.005)  # 200 bins
    true = np.eye(3)[["abc".index(t) for t in truth]]
    assert found["brier"] == pytest.approx(np.mean(((shares - true) ** 2).sum(axis=1)))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(true, shares, average="macro"), abs=0.02)


def test_intervals_of_probabilities_of_classes_hold_the_truth_at_least_as_often_as_they_say() -> None:
    rng, kind = np.random.default_rng(4), kind_of(Label(COLUMN, 1, None, None, ("a", "b", "c")))
    every = rng.dirichlet(np.ones(3) * 2, 100_000)
    drawn = (rng.random((100_000, 1)) > every.cumsum(axis=1)).sum(axis=1)
    true = np.eye(3)[drawn]
    truth = {
        "brier": ((every - true) ** 2).sum(axis=1).mean(),
        "average_precision": metrics.average_precision_score(true, every, average="macro"),
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(100):
        some, sums = rng.integers(0, 100_000, 300), kind.sums()
        for at in some.tolist():
            kind.add(sums, dict(zip("abc", every[at].tolist(), strict=True)), "abc"[drawn[at]])
        found = kind.measured(sums.frozen(), None, None)
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    assert min(held.values()) >= 93, held


@pytest.mark.parametrize("quantile", [None, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_errors_of_numbers_are_scikit_learns_and_add(seed: int, quantile: float | None) -> None:
    rng, kind = np.random.default_rng(seed), kind_of(Label(COLUMN, 1, None, None, (), quantile))
    truth = rng.normal(5, 3, 400)
    answer = truth + rng.normal(0.2, 1, 400)
    whole, *parts = [kind.sums() for _ in range(4)]
    for said, label in zip(answer.tolist(), truth.tolist(), strict=True):
        kind.add(whole, said, label)
        kind.add(parts[rng.integers(3)], said, label)
    kind.add(parts[0], 1e9, -7.0)  # and taken back
    kind.add(parts[0], 1e9, -7.0, -1)
    together = kind.told(added(added(parts[2].frozen(), parts[0].frozen()), parts[1].frozen()))
    found = kind.measured(kind.told(whole.frozen()), None, None)
    assert kind.measured(together, None, None) == found, "to the last bit, in any order"
    assert found["mae"].value == pytest.approx(metrics.mean_absolute_error(truth, answer), rel=1e-14)
    assert found["rmse"].value == pytest.approx(metrics.root_mean_squared_error(truth, answer), rel=1e-14)
    assert found["r2"].value == pytest.approx(metrics.r2_score(truth, answer), rel=1e-13)
    assert found["bias"].value == pytest.approx(float(np.mean(answer - truth)), rel=1e-12)
    if quantile is not None:
        loss = metrics.mean_pinball_loss(truth, answer, alpha=quantile)
        assert found["pinball"].value == pytest.approx(loss, rel=1e-14)
        assert together.loss / 400 == pytest.approx(loss, rel=1e-14)
        assert found["coverage"].value == np.mean(truth <= answer)
    else:
        assert together.loss / 400 == pytest.approx(metrics.mean_squared_error(truth, answer), rel=1e-14)


@pytest.mark.parametrize("quantile", [None, 0.9])
def test_a_baseline_of_numbers_is_what_answering_with_it_gives(quantile: float | None) -> None:
    rng, kind = np.random.default_rng(1), kind_of(Label(COLUMN, 1, None, None, (), quantile))
    truth, sums, plain = rng.gamma(2, 10, 1_000), kind.sums(), kind.sums()
    for label in truth.tolist():
        kind.add(sums, 0.0, label)
    known = kind.told(sums.frozen())
    prior = kind.prior(1_000, 0, known)
    assert isinstance(prior, float)
    assert prior == pytest.approx(truth.mean() if quantile is None else np.quantile(truth, quantile), rel=0.01)
    for label in truth.tolist():
        kind.add(plain, prior, label)
    real, found = kind.measured(kind.told(plain.frozen()), None, None), kind.measured(kind.answering(prior, known), None, None)
    assert {n: m.value for n, m in found.items()} == pytest.approx({n: m.value for n, m in real.items()}, rel=0.01, abs=1e-9)
    assert found["rmse"].value == pytest.approx(real["rmse"].value, rel=1e-14)
    assert kind.prior_loss(prior, known) == pytest.approx(kind.told(plain.frozen()).loss, rel=0.01)


def test_intervals_of_numbers_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, kind = np.random.default_rng(4), kind_of(Label(COLUMN, 1, None))
    held = dict.fromkeys(("bias", "mae", "rmse", "r2"), 0)
    meant = {"bias": 0.5, "rmse": np.sqrt(1.25), "r2": 1 - 1.25 / 9}
    meant["mae"] = float(np.abs(rng.normal(0.5, 1, 1_000_000)).mean())
    for _ in range(300):
        sums, truth = kind.sums(), rng.normal(0, 3, 200)
        for said, label in zip((truth + rng.normal(0.5, 1, 200)).tolist(), truth.tolist(), strict=True):
            kind.add(sums, said, label)
        for name, measure in kind.measured(kind.told(sums.frozen()), None, None).items():
            held[name] += measure.low <= meant[name] <= measure.high
    assert min(held.values()) >= 0.88 * 300, held


@given(st.lists(st.floats(-1e70, 1e70, allow_nan=False), max_size=30), st.randoms())
def test_exact_sums_are_those_of_fractions_in_any_order(terms: list[float], rng: random.Random) -> None:
    found = exact.total(terms)
    assert exact.whole(found) == sum(map(Fraction, terms), Fraction(0))
    assert exact.valued(found) == math.fsum(terms)
    rng.shuffle(terms)
    assert exact.total(terms) == found


def test_errors_of_any_size_have_finite_measures_in_their_bounds() -> None:
    kind = kind_of(Label(COLUMN, 1, None))
    for pairs in (
        [(9.0, 1.0), (2.0, 2.0), (3.0, 3.0)],
        [(1e70, -1e70), (0.0, 0.0)],
        [(1e-300, 0.0), (0.0, 1e-300)],
        [(5.0, 5.0)],
    ):
        sums = kind.sums()
        for said, label in pairs:
            kind.add(sums, said, label)
        found = kind.measured(kind.told(sums.frozen()), None, None)
        assert all(math.isfinite(x) for each in found.values() for x in (each.value, each.low, each.high)), found
        assert found.get("r2", Measure(value=0, low=0, high=1)).high <= 1.0
    assert kind.measured(kind.told(kind.sums().frozen()), None, None) == {}


def test_counts_of_classes_that_were_declared_anew_begin_anew_and_break_nothing() -> None:
    sums = empty(2)
    counted(sums, [0.4, 0.6], 1)
    old = sums.frozen()
    counted(sums, [0.1, 0.2, 0.7], 2)
    assert (sums.n, sums.positives) == (1, 1)
    assert truths(sums.frozen(), 3) == [0, 0, 1]
    assert truths(old, 3) == [0, 0, 0]
    both = added(old, sums.frozen())
    assert measured_quality(old, 3) == {}
    assert measured_quality(both, 3)["accuracy"].value <= 1
