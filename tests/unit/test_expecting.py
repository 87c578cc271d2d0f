"""The quality that is expected of classes and numbers before their labels come: as near as its interval says while only the
inputs move, learnt by version, and refused where nothing can be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.records import Errors, Estimate, Quality, Scored
from penstock.services.monitoring.quality.estimating import LEVEL, Estimator
from penstock.services.monitoring.quality.expecting import Classes, Curve, Numbers, Way
from penstock.statistics.classes import counted, empty
from penstock.statistics.classes import spread as spread_class
from penstock.statistics.errors import erred, pinball, spread, step_of
from penstock.statistics.quality import BINS, added, place_of

HORIZON = 3
"""Cohorts until the labels of one are complete."""


class Answers(NamedTuple):
    scored: Scored
    quality: Quality
    truth: dict[str, float]
    """Measures from the answers themselves, one by one."""


def tickets(rng: np.random.Generator, mean: float, n: int = 300) -> Answers:
    """Three classes, of a model that is too sure of itself."""
    inputs = rng.normal(mean, 1.0, n)
    logits = np.stack([inputs, -inputs, np.zeros(n)], axis=1)
    true = np.exp(logits) / np.exp(logits).sum(axis=1)[:, None]
    said = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1)[:, None]
    truths = [int(rng.choice(3, p=row)) for row in true]
    sums, bins = empty(3), [0] * BINS
    losses = [counted(sums, row, truth) for row, truth in zip(said.tolist(), truths, strict=True)]
    for row, loss in zip(said.tolist(), losses, strict=True):
        spread_class(sums, row, loss)
    for row in said:
        bins[place_of(row.max())] += 1
    right = float(np.mean(said.argmax(axis=1) == truths))
    return Answers(Scored(scores={"v1": bins}), sums.frozen(), {"accuracy": right, "log_loss": float(np.mean(losses))})


def erring(errors: Errors, answer: float, truth: float, quantile: float | None, sign: int = 1) -> float:
    """Counted as a cohort counts it."""
    loss = erred(errors, answer, truth, quantile, sign)
    spread(errors, answer, truth, loss, sign)
    return loss


def parcels(rng: np.random.Generator, mean: float, n: int = 300, quantile: float | None = None) -> Answers:
    """Hours that err more, the longer they are."""
    answers = np.exp(rng.normal(2 + 0.3 * mean, 0.7, n)) - 2
    truths = answers + 0.3 * (answers + 3) * rng.normal(size=n)
    errors, sizes = Errors(), dict[int, int]()
    losses = [erring(errors, a, t, quantile) for a, t in zip(answers.tolist(), truths.tolist(), strict=True)]
    for answer in answers.tolist():
        sizes[step_of(answer)] = sizes.get(step_of(answer), 0) + 1
    found = {"mae": float(np.mean(np.abs(truths - answers)))}
    if quantile is None:
        found["rmse"] = float(np.sqrt(np.mean(losses)))
    else:
        found["pinball"] = float(np.mean([pinball(t, a, quantile) for a, t in zip(answers, truths, strict=True)]))
    return Answers(Scored(sizes={"v1": sizes}), Quality(n=n, errors=errors), found)


def nine_of_ten(rng: np.random.Generator, mean: float) -> Answers:
    return parcels(rng, mean, quantile=0.9)


KINDS: dict[str, tuple[Callable[..., Answers], Way]] = {
    "classes": (tickets, Classes(3)),
    "numbers": (parcels, Numbers()),
    "quantile": (nine_of_ten, Numbers(0.9)),
}

Told = list[tuple[dict[str, Estimate], dict[str, float]]]


def history(kind: str, seed: int, cohorts: int = 100) -> Told:
    """What was expected of each cohort, and what came; the inputs wander all the time."""
    make, way = KINDS[kind]
    rng, estimator, mean = np.random.default_rng(seed), Estimator(), 0.0
    under_way: list[tuple[Answers, dict[str, Estimate]]] = []
    told = []
    for _ in range(cohorts):
        mean = 0.9 * mean + rng.normal(0, 0.5)
        answers = make(rng, mean)
        if len(under_way) == HORIZON:
            then, said = under_way.pop(0)
            estimator.learn({"served": then.quality, "v1": then.quality}, then.scored, said, way)
            estimator = msgspec.msgpack.decode(msgspec.msgpack.encode(estimator), type=Estimator)  # a restart
        under_way.append((answers, estimator.estimate(answers.scored, way)))
        told.append((under_way[-1][1], answers.truth))
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_while_only_inputs_move_estimates_are_near_and_their_intervals_hold_as_often_as_they_say(kind: str) -> None:
    runs = [history(kind, seed) for seed in range(3)]
    for name in runs[0][0][1]:
        ours, last, held = [], [], []
        for told in runs:
            for number in range(30, len(told)):
                said, truth = told[number][0][name], told[number][1][name]
                assert said.low is not None and said.high is not None and said.error is not None
                ours.append(abs(said.value - truth))
                last.append(abs(told[number - HORIZON - 1][1][name] - truth))
                held.append(said.low <= truth <= said.high)
        print(f"{kind} {name}: {np.mean(ours):.3g}, last known {np.mean(last):.3g}, held {np.mean(held):.1%}")
        assert np.mean(ours) < 0.8 * np.mean(last), "nearer than the quality that was known last"
        assert LEVEL - 0.04 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_what_came_is_what_the_answers_themselves_say(kind: str) -> None:
    make, way = KINDS[kind]
    found = make(np.random.default_rng(1), 0.2)
    assert way.came(found.quality) == pytest.approx(found.truth, rel=1e-9)
    assert way.came(Quality(n=29, errors=Errors())) == {}


def test_of_numbers_nothing_is_expected_before_labels_of_the_versions_that_answered() -> None:
    way, found = Numbers(), parcels(np.random.default_rng(2), 0.0)
    estimator = Estimator()
    assert estimator.estimate(found.scored, way) == {}, "a number says nothing of how sure it is"
    estimator.learn({"served": found.quality, "v1": found.quality}, found.scored, {}, way)
    assert set(estimator.estimate(found.scored, way)) == {"mae", "rmse"}
    sizes = way.answered(found.scored)["v1"]
    assert estimator.estimate(Scored(sizes={"v2": sizes}), way) == {}
    assert estimator.estimate(Scored(sizes={"v1": sizes, "v2": sizes}), way) == {}, "half of them are of a version unknown"
    assert set(estimator.estimate(Scored(sizes={"v1": sizes, "v2": {0: 10}}), way)) == {"mae", "rmse"}


def test_classes_without_labels_are_believed_to_mean_what_they_say() -> None:
    bins = [0] * BINS
    bins[place_of(0.801)] = 100
    found = Estimator().estimate(Scored(scores={"v1": bins}), Classes(5))
    assert found["accuracy"].value == pytest.approx(0.8025)
    assert found["log_loss"].value == pytest.approx(-0.8025 * np.log(0.8025) - 0.1975 * np.log(0.1975 / 4))


def test_where_all_labels_are_of_answers_alike_the_loss_expected_is_their_mean() -> None:
    """The naive oracle: without differences in what was answered there is one group."""
    rng, curve = np.random.default_rng(3), Curve()
    way, errors = Numbers(), Errors()
    truths = rng.normal(5, 2, 200).tolist()
    losses = [erring(errors, 5.0, truth, None) for truth in truths]
    way.learn(curve, Quality(n=200, errors=errors))
    found = way.expected({"v1": {step_of(5.0): 7, step_of(900.0): 3}}, {"v1": curve})
    assert found == pytest.approx({"mae": np.mean(np.abs(np.array(truths) - 5)), "rmse": np.sqrt(np.mean(losses))})


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=20), st.integers(0, 20))
def test_what_a_correction_takes_back_leaves_nothing(pairs: list[tuple[float, float]], cut: int) -> None:
    """And the sums of two partitions are those of one."""
    whole, one, other = Errors(), Errors(), Errors()
    for number, (answer, truth) in enumerate(pairs):
        erring(whole, answer, truth, 0.5)
        erring(one if number < cut else other, answer, truth, 0.5)
    assert added(added(one, other), Errors()) == added(whole, Errors())
    for answer, truth in pairs:
        erring(whole, answer, truth, 0.5, -1)
    curve = Curve()
    Numbers(0.5).learn(curve, Quality(errors=whole))
    assert curve.counts == {} and not any(whole.answers.values())


def test_cohorts_that_took_back_more_than_there_was_teach_nothing() -> None:
    errors: Any = Errors()
    erring(errors, 1.0, 2.0, None, -1)
    curve = Curve()
    Numbers().learn(curve, Quality(n=-1, errors=errors))
    assert curve.counts == {} and curve.losses == {"missed": {}, "lost": {}}
    assert Numbers().came(Quality(n=40, errors=errors)) == {}
