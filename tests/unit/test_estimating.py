"""The quality that is expected before labels come: as near as its interval says while only the inputs move, and soon known to be
wrong when their meaning does."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from penstock.records import Estimate, Quality, Scored
from penstock.services.monitoring.quality.estimating import LEVEL, Estimator, margin
from penstock.services.monitoring.quality.expecting import YES_NO, Curve, expected
from penstock.statistics.loss import CLIP
from penstock.statistics.measures import auc
from penstock.statistics.quality import BINS, added

MEASURES = ("accuracy", "auc", "label_rate", "log_loss")
HORIZON = 3
"""Cohorts until the labels of one are complete."""


class Answers(NamedTuple):
    scores: Scored
    quality: Quality
    truth: dict[str, float]
    """Measures from the answers themselves, one by one."""


def cohort(rng: np.random.Generator, mean: float, turn: float = 0.0, n: int = 400) -> Answers:
    """Answers of a model that is too sure of itself; `turn`: how much of the concept is turned round."""
    inputs = rng.normal(mean, 1.0, n)
    labels = rng.random(n) < 1 / (1 + np.exp(-(1 - 2 * turn) * inputs))
    scores = np.clip(1 / (1 + np.exp(-2.5 * inputs)), CLIP, 1 - CLIP)
    losses = -np.log(np.where(labels, scores, 1 - scores))
    counts = [np.bincount((scores[which] * BINS).astype(int), minlength=BINS).tolist() for which in (labels, ~labels)]
    quality = Quality(n=n, positives=int(labels.sum()), loss=losses.sum(), bins_true=counts[0], bins_false=counts[1])
    area = auc(labels, scores)
    assert area is not None
    truth = {"accuracy": ((scores >= 0.5) == labels).mean(), "label_rate": labels.mean(), "log_loss": losses.mean(), "auc": area}
    return Answers(Scored(scores={"v1": added(*counts)}), quality, truth)


def history(seed: int, cohorts: int, changes: int = 10**9) -> list[tuple[dict[str, Estimate], dict[str, float]]]:
    """What was expected of each cohort, and what came; inputs wander all the time, from `changes` on the concept is turned."""
    rng, estimator, mean = np.random.default_rng(seed), Estimator(), 0.0
    under_way: list[tuple[Answers, dict[str, Estimate]]] = []
    told = []
    for number in range(cohorts):
        mean = 0.9 * mean + rng.normal(0, 0.5)
        answers = cohort(rng, mean, turn=0.5 if number >= changes else 0.0)
        if len(under_way) == HORIZON:
            then, said = under_way.pop(0)
            estimator.learn({"served": then.quality, "v1": then.quality}, then.scores, said)
        under_way.append((answers, estimator.estimate(answers.scores)))
        told.append((under_way[-1][1], answers.truth))
    return told


def held(told: list[tuple[dict[str, Estimate], dict[str, float]]], name: str) -> list[bool]:
    return [s[name].low <= t[name] <= s[name].high for s, t in told if s[name].low is not None]  # type: ignore[operator]


@pytest.mark.parametrize("name", MEASURES)
def test_while_only_inputs_move_the_interval_holds_the_truth_as_often_as_it_says(name: str) -> None:
    within = [hit for seed in range(4) for hit in held(TOLD[seed], name)]
    assert len(within) > 300
    assert LEVEL - 0.03 <= sum(within) / len(within) <= 0.99


def test_an_estimate_is_nearer_than_the_quality_that_was_known_last() -> None:
    for name in MEASURES:
        ours, last = [], []
        for told in TOLD:
            for number in range(30, len(told)):
                ours.append(abs(told[number][0][name].value - told[number][1][name]))
                last.append(abs(told[number - HORIZON - 1][1][name] - told[number][1][name]))
        assert np.mean(ours) < 0.8 * np.mean(last), name


def test_a_change_of_concept_is_not_seen_before_its_labels_and_then_widens_the_interval() -> None:
    told = history(11, 60, changes=40)
    before, during = told[39][0]["accuracy"], told[40 + HORIZON][0]["accuracy"]
    assert during.error == pytest.approx(before.error, abs=0.02), "no label of it is complete yet"
    assert not any(held(told[40 : 40 + HORIZON], "accuracy"))
    after = told[40 + HORIZON + 3][0]["accuracy"]
    assert after.error > 2 * before.error and _width(after) > 3 * _width(before)  # type: ignore[operator]
    assert np.mean(held(told[40 + HORIZON + 3 :], "accuracy")) >= LEVEL


def _width(found: Estimate) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low


TOLD = [history(seed, 100) for seed in range(4)]


def test_too_few_truths_justify_no_interval() -> None:
    said = [told[0]["auc"] for told in history(3, 30)]
    assert [each.compared for each in said[: HORIZON + 2]] == [0] * HORIZON + [1, 2]
    assert all(each.low is None and each.high is None for each in said if each.compared < 12)
    assert all(each.low is not None and each.error is not None for each in said if each.compared >= 12)
    assert said[0].error is None


def test_a_version_without_labels_is_believed_to_mean_what_it_says() -> None:
    rates = Curve().rates()
    assert np.allclose(rates, (np.arange(BINS) + 0.5) / BINS, atol=1e-6)
    few = Curve()
    few.learn(Quality(n=4, bins_true=[0] * 20 + [4]))
    assert np.all(np.diff(few.rates()) >= 0) and few.rates()[150] == pytest.approx(0.7525)


def test_a_curve_follows_the_newest_labels() -> None:
    curve = Curve()
    for label, times in ((True, 10), (False, 10)):
        for _ in range(times):
            bins = [0] * 100 + [2_000]
            curve.learn(Quality(n=2_000, bins_true=bins if label else [], bins_false=[] if label else bins))
    assert curve.rates()[100] < 0.1
    assert sum(curve.true) + sum(curve.false) <= 7_000


def test_corrections_that_took_back_more_than_there_was_teach_nothing() -> None:
    odd = Quality(n=-2, positives=-3, loss=-1.0, bins_true=[-3], bins_false=[1])
    estimator = Estimator()
    estimator.learn({"served": odd, "v1": odd}, Scored(scores={"v1": [100]}), {"accuracy": Estimate(value=0.5)})
    assert estimator.errors == {} and np.isfinite(estimator.curves["v1"].rates()).all()


def test_nothing_is_expected_of_hardly_any_answers() -> None:
    assert Estimator().estimate(Scored(scores={"v1": [29]})) == {} == Estimator().estimate(Scored())
    assert set(Estimator().estimate(Scored(scores={"v1": [30]}))) == set(MEASURES)


def test_what_a_mixture_served_is_calibrated_as_served() -> None:
    estimator = Estimator()
    served = Quality(n=100, positives=100, bins_true=[0] * 100 + [100])
    alone = Quality(n=100, positives=0, bins_false=[0] * 20 + [100])
    estimator.learn({"served": served, "v2": alone, "none": alone}, Scored(scores={"v2": [0] * 100 + [100]}), {})
    assert set(estimator.curves) == {"v2"} and estimator.curves["v2"].true[100] == 100
    estimator.learn({"served": served, "v1": alone, "v2": alone}, Scored(scores={"v1": [50], "v2": [50]}), {})
    assert estimator.curves["v2"].false[20] == 100 == estimator.curves["v1"].false[20]


def test_versions_of_long_ago_are_forgotten() -> None:
    estimator = Estimator()
    for number in range(20):
        estimator.learn({f"v{number}": Quality(bins_true=[1])}, Scored(scores={f"v{number}": [1]}), {})
    assert list(estimator.curves) == [f"v{number}" for number in range(16, 20)]


def test_measures_that_are_expected_are_those_of_the_outcomes_when_these_are_known() -> None:
    found = cohort(np.random.default_rng(1), 0.2, n=5_000)
    true, false = (np.array(each, np.float64) for each in (found.quality.bins_true, found.quality.bins_false))
    said = expected(true, false)
    assert said == pytest.approx(found.truth, abs=0.005), "up to the order within a step"
    assert {name: said[name] for name in ("accuracy", "auc", "label_rate")} == pytest.approx(
        {name: YES_NO.came(found.quality)[name] for name in ("accuracy", "auc", "label_rate")}
    )


def test_a_margin_is_never_narrower_than_the_share_of_errors_that_it_states() -> None:
    rng = np.random.default_rng(0)
    for count in range(12, 90):
        errors = rng.normal(0, 1, count).tolist()
        weights = 0.95 ** np.arange(count, 0, -1)
        half = margin(errors)
        assert half is not None and math.isfinite(half)
        assert weights[np.abs(errors) <= half].sum() >= LEVEL * weights.sum()


def test_the_version_that_answers_keeps_its_curve_however_many_others_are_asked() -> None:
    estimator, answers = Estimator(), cohort(np.random.default_rng(3), 0.0)
    asked = ("v10", "v11", "v12", "v13", "v8")
    estimator.learn(dict.fromkeys(("served", *asked), answers.quality), Scored(scores={"v10": answers.scores.scores["v1"]}), {})
    assert "v10" in estimator.curves and len(estimator.curves) == 4
