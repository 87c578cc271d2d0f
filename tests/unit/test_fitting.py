"""Fitting a batch learner, and what becomes of inputs that say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from penstock.services.trainer.fitting import Unfit, fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 2)).astype(np.float32)
LABEL = (X[:, 0] + 0.3 * RNG.normal(size=600)) > 0
WITH_EMPTY = np.column_stack([X[:, :1], np.full(600, np.nan, np.float32), X[:, 1:]])


def answers(onnx: bytes, inputs: Any) -> Any:
    return onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).run(["probabilities"], {"X": inputs})[0][:, 1]


def test_an_input_without_any_value_is_not_used_and_is_named() -> None:
    plain = fit(HistGradientBoostingClassifier(), "late", ["a", "b"], X, LABEL)
    found = fit(HistGradientBoostingClassifier(), "late", ["a", "empty", "b"], WITH_EMPTY, LABEL)
    assert (plain.empty, found.empty) == ((), ("empty",))
    filled = np.where(np.isnan(WITH_EMPTY), np.float32(7), WITH_EMPTY)
    assert (answers(found.onnx, WITH_EMPTY) == answers(plain.onnx, X)).all()
    assert (answers(found.onnx, filled) == answers(plain.onnx, X)).all()
    empty = found.reference["empty"]
    assert (empty.edges, empty.missing(empty.own)) == ((), 600)


def test_a_learner_that_takes_no_missing_value_is_unfit_in_its_own_words() -> None:
    with pytest.raises(Unfit, match="Input X contains NaN"):
        fit(LogisticRegression(), "late", ["a", "empty", "b"], WITH_EMPTY, LABEL)


def test_inputs_of_which_none_has_a_value_are_unfit() -> None:
    with pytest.raises(Unfit, match="none of the 2 inputs has a value in any of 600 rows"):
        fit(HistGradientBoostingClassifier(), "late", ["a", "b"], np.full_like(X, np.nan), LABEL)
