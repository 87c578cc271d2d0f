"""Regressors and classifiers of several classes as ONNX models that answer as the learner does, and what is refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import ensemble, linear_model
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from tests.unit.test_quality_measures import COLUMN

from penstock.label import Label
from penstock.services.trainer.explainer import explainer
from penstock.services.trainer.fitting import Unfit, answering, fit

DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(1_000, 4)).astype(np.float32)
X[DRAWN.random(X.shape) < 0.1] = np.nan
Y = np.nan_to_num(X[:, 0]) * 3 + np.nan_to_num(X[:, 1]) ** 2 + DRAWN.normal(size=1_000)
NUMBER = Label(COLUMN, 1, None)
CLASSES = Label(COLUMN, 1, None, None, ("low", "never", "middle", "high"))
NAMED = np.array([0, 2, 3])[np.digitize(Y, [0, 2])]


def _filled(learner: Any) -> Any:
    return make_pipeline(SimpleImputer(), learner)


@pytest.mark.parametrize(
    ("learner", "kind"),
    [
        (ensemble.HistGradientBoostingRegressor(max_iter=10), "trees"),
        (_filled(ensemble.RandomForestRegressor(10)), "trees"),
        (_filled(ensemble.GradientBoostingRegressor(n_estimators=10)), "trees"),
        (_filled(linear_model.Ridge()), "linear"),
        (_filled(MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", max_iter=20, tol=1.0)), "permutation"),
    ],
    ids=["boosting", "a forest", "gradient boosting", "a linear model", "a network"],
)
def test_a_regressor_is_served_and_explained_in_the_unit_of_its_label(learner: Any, kind: str) -> None:
    fitted = fit(learner, "m", list("abcd"), X, Y, declared=NUMBER)
    score = answering(fitted.onnx, "regression")
    assert fitted.metrics["parity_max"] < 1e-4
    assert score(X) == pytest.approx(learner.predict(X), abs=1e-3)
    found = explainer(fitted.onnx, score, X, task="regression")
    assert (found.kind, found.scale) == (kind, "number")
    assert found.base + found.explained(X[:5])[0].sum(axis=1) == pytest.approx(score(X[:5]), abs=1e-4)


@pytest.mark.parametrize(
    "learner", [ensemble.HistGradientBoostingClassifier(max_iter=10), _filled(linear_model.LogisticRegression())]
)
def test_classes_that_never_occur_are_left_out_of_the_columns(learner: Any) -> None:
    fitted = fit(learner, "m", list("abcd"), X, NAMED, declared=CLASSES)
    assert fitted.classes == ("low", "middle", "high")
    assert answering(fitted.onnx, "multiclass")(X) == pytest.approx(learner.predict_proba(X), abs=1e-5)


@pytest.mark.parametrize(
    ("learner", "label", "declared", "said"),
    [
        (ensemble.HistGradientBoostingClassifier(), Y, NUMBER, "is a classifier, and the label is a number; return a regressor"),
        (_filled(linear_model.Ridge()), NAMED, CLASSES, "has no predict_proba; return a classifier that gives probabilities"),
        (_filled(linear_model.Ridge()), np.full(1_000, 7.5), NUMBER, "all 1000 labels are 7.5"),
        (_filled(linear_model.Ridge()), np.full(1_000, 2), CLASSES, "all 1000 labels are middle"),
    ],
)
def test_what_does_not_fit_the_label_is_refused_in_words(learner: Any, label: Any, declared: Label, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        fit(learner, "m", list("abcd"), X, label, declared=declared)
