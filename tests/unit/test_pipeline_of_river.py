"""River's linear pipelines as ONNX: the graph answers what the learner answers, and what explains it adds up to that."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from river import linear_model, multiclass, optim, preprocessing, tree
from tests.unit.test_quality_measures import COLUMN

from penstock.contributions.classes import Classes
from penstock.contributions.explainer import dumped, opened
from penstock.inputs import Matrix
from penstock.label import Label
from penstock.scoring.scorers import OnnxScorer
from penstock.services.trainer.examples import Rows
from penstock.services.trainer.fitting import Unfit
from penstock.services.trainer.pipeline import Lines, tame
from penstock.services.trainer.school import School

NUMBER = Label(COLUMN, 1, None)
QUANTILE = Label(COLUMN, 1, None, quantile=0.9)
NAMED = Label(COLUMN, 1, None, None, ("low", "never", "middle", "high"))
DRAWN = np.random.default_rng(5)
X = (DRAWN.normal(size=(3_000, 4)) * [1.0, 100.0, 1e6, 1e-3]).astype(np.float32)
X[DRAWN.random(X.shape) < 0.1] = np.nan
MUCH = np.nan_to_num(X[:, 0]) * 30 + np.sign(np.nan_to_num(X[:, 1])) * 8 + DRAWN.normal(size=3_000) * 5
WHICH = np.array([0, 2, 3])[np.digitize(MUCH, [-10, 10])]
ODD = np.array([[np.inf, -np.inf, np.nan, 0.0], [3e38, -3e38, 1e-40, -0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)


def rows(label: Any, n: int = 3_000) -> Rows:
    nothing, numbers = np.full(n, np.nan), np.arange(n, dtype=np.int64)
    return Rows(X[:n], label[:n], numbers, nothing, nothing, np.zeros(n, np.int32), numbers)


def scaled(learner: Any) -> Any:
    return preprocessing.StandardScaler() | learner


def one_against_the_rest() -> Any:
    return multiclass.OneVsRestClassifier(linear_model.LogisticRegression())


LEARNERS: dict[str, tuple[Any, Label, Any, str]] = {
    "numbers": (scaled(linear_model.LinearRegression()), NUMBER, MUCH, "linear"),
    "numbers as they are": (linear_model.LinearRegression(optim.Adam(0.01)), NUMBER, MUCH, "linear"),
    "numbers without spread": (
        preprocessing.StandardScaler(with_std=False) | linear_model.LinearRegression(optim.SGD(1e-4)), NUMBER, MUCH, "linear",
    ),
    "a quantile": (scaled(linear_model.LinearRegression(loss=optim.losses.Quantile(0.9))), QUANTILE, MUCH, "linear"),
    "classes": (scaled(linear_model.SoftmaxRegression()), NAMED, WHICH, "linear"),
    "one against the rest": (scaled(one_against_the_rest()), NAMED, WHICH, "permutation"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNERS)
def test_the_graph_answers_what_the_learner_answers_and_is_explained(name: str) -> None:
    learner, label, truth, kind = LEARNERS[name]
    school = School(learner, list("abcd"), 1.0, 500, label)
    school.teach(rows(truth))
    lines = Lines.of_river(school.learner, list("abcd"), label)
    onnx = lines.onnx("m")
    assert lines.classes == (("low", "middle", "high") if label.classes else ())

    def own(some: Matrix) -> Any:
        return school.answers(some, lines.classes)

    assert lines.proven(onnx, own(X[-500:]), X[-500:]) < 1e-4
    served = OnnxScorer(onnx, 4, label.task, len(lines.classes)).score
    assert served(X[:200]) == pytest.approx(own(X[:200]), rel=1e-6, abs=1e-6)
    assert served(ODD) == pytest.approx(own(ODD), rel=1e-6, abs=1e-6)
    assert all((served(X[at : at + 1])[0] == served(X[:50])[at]).all() for at in range(50)), "alone as among others"

    found = opened(dumped(lines.explainer(served, X[:500])), served)
    assert found.kind == kind
    if isinstance(found, Classes):
        shares = served(X[:5])
        for each in range(3):
            part = found.of(each)
            total = part.base + part.contributions(X[:5]).sum(axis=1)
            log_ratio = np.log(shares[:, each]) - np.log(shares).mean(axis=1)
            assert total == pytest.approx(log_ratio if kind == "linear" else shares[:, each], abs=1e-4)
    else:
        assert found.base + found.contributions(X[:5]).sum(axis=1) == pytest.approx(served(X[:5]), rel=1e-5, abs=1e-4)


def test_a_taught_learner_is_better_than_a_constant_in_the_loss_of_its_label() -> None:
    for name, constant in (("numbers", np.var(MUCH)), ("classes", np.log(3.0))):
        learner, label, truth, _ = LEARNERS[name]
        school = School(learner.clone(), list("abcd"), 1.0, 500, label)
        school.teach(rows(truth))
        assert school.recent_loss is not None
        assert school.recent_loss < 0.8 * constant
    learner, label, truth, _ = LEARNERS["a quantile"]
    quick = linear_model.LinearRegression(optim.SGD(0.2), optim.losses.Quantile(0.9), intercept_lr=0.5)
    school = School(scaled(quick), list("abcd"), 1.0, 500, label)
    school.teach(rows(truth))
    assert np.mean(truth <= school.answers(X)) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(
    ("learner", "label", "said"),
    [
        (tree.HoeffdingTreeRegressor(), NUMBER, "HoeffdingTreeRegressor is no online learner of this label"),
        (linear_model.LinearRegression(), NAMED, "LinearRegression is no online learner of this label"),
        (linear_model.SoftmaxRegression(), NUMBER, "SoftmaxRegression is no online learner of this label"),
        (preprocessing.MinMaxScaler() | linear_model.LinearRegression(), NUMBER, "the online learner is not LinearRegression"),
        (preprocessing.StandardScaler(window_size=9) | linear_model.LinearRegression(), NUMBER, "is not LinearRegression"),
        (multiclass.OneVsRestClassifier(tree.HoeffdingTreeClassifier()), NAMED, "OneVsRestClassifier is no online learner"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_linear_pipeline_of_the_label_is_refused_in_words(learner: Any, label: Label, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        Lines.of_river(learner, list("abcd"), label)


def test_a_single_class_and_a_learner_that_diverged_are_refused_in_words() -> None:
    school = School(linear_model.SoftmaxRegression(), list("abcd"), 1.0, 500, NAMED)
    school.teach(rows(np.full(20, 3), 20))
    with pytest.raises(Unfit, match="all labels known so far are high"):
        Lines.of_river(school.learner, list("abcd"), NAMED).onnx("m")
    wild = School(linear_model.LinearRegression(optim.SGD(1e6)), list("abcd"), 1.0, 500, NUMBER)
    wild.teach(rows(MUCH))
    with pytest.raises(Unfit, match="the online learner has diverged: its answers to the newest rows cost"):
        tame(NUMBER, wild.answers(X[-100:]), MUCH[-100:])
    wild.learner.intercept = math.inf
    with pytest.raises(Unfit, match="the online learner has diverged: its weights are no numbers"):
        Lines.of_river(wild.learner, list("abcd"), NUMBER).onnx("m")
