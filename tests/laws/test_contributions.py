"""Contributions are the Shapley values of one game, whatever the model: the mean answer over the background with some inputs
taken from the row. The oracle plays that game over all subsets and asks the served graph, and knows nothing of trees."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from penstock.contributions.classes import Classes
from penstock.contributions.explainer import Explainer, dumped, opened
from penstock.contributions.linear import Squashed
from penstock.contributions.permutation import Permutation
from penstock.contributions.seen import Seen
from penstock.contributions.trees import Trees, tree_contributions
from penstock.contributions.version import explained
from penstock.errors import PenstockError
from penstock.inputs import Floats, Matrix
from penstock.services.trainer.explainer import background_of, explainer
from penstock.services.trainer.fitting import _converted, answering

DRAWN = np.random.default_rng(7)
WHOLE = DRAWN.normal(size=(600, 4)).astype(np.float32)
LABEL = (WHOLE[:, 0] * WHOLE[:, 1] + WHOLE[:, 2] + 0.5 * DRAWN.normal(size=600)) > 0
HOLED = np.where(DRAWN.random(WHOLE.shape) < 0.15, np.float32("nan"), WHOLE)
ROWS = 6

NETWORK = MLPClassifier((6,), solver="lbfgs", alpha=0.1, max_iter=5000, random_state=0)
LEARNERS: dict[str, tuple[Any, Matrix, str, str]] = {
    "boosting with missing values": (HistGradientBoostingClassifier(max_iter=8), HOLED, "trees", "log-odds"),
    "boosting behind a scaler": (
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)), HOLED, "trees", "log-odds",
    ),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=8), WHOLE, "trees", "log-odds"),
    "a forest": (RandomForestClassifier(5, random_state=0), WHOLE, "trees", "probability"),
    "extra trees": (ExtraTreesClassifier(5, max_depth=6, random_state=0), WHOLE, "trees", "probability"),
    "one tree": (DecisionTreeClassifier(random_state=0), WHOLE, "trees", "probability"),
    "a linear model": (LogisticRegression(), WHOLE, "linear", "log-odds"),
    "a scaled linear model": (make_pipeline(StandardScaler(), LogisticRegression()), WHOLE, "linear", "log-odds"),
    "a filled and scaled linear model": (
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), HOLED, "linear", "log-odds",
    ),
    "a network": (make_pipeline(SimpleImputer(), StandardScaler(), NETWORK), HOLED, "permutation", "probability"),
}  # fmt: skip


def shapley(answers: Callable[[Matrix], Floats], row: Matrix, background: Matrix) -> Floats:
    """By the definition: over all subsets of the other inputs, weighted."""
    width = len(row)

    def v(inputs: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(inputs)] = row[list(inputs)]
        return float(answers(mixed).mean())

    found = np.zeros(width)
    for i in range(width):
        others = [j for j in range(width) if j != i]
        for size in range(width):
            weight = math.factorial(size) * math.factorial(width - size - 1) / math.factorial(width)
            for inputs in combinations(others, size):
                found[i] += weight * (v((*inputs, i)) - v(inputs))
    return found


def fitted(learner: Any, inputs: Matrix) -> bytes:
    return _converted(learner.fit(inputs, LABEL), "late", inputs.shape[1])


def served(onnx: bytes) -> Callable[[Matrix], Floats]:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return lambda rows: np.asarray(session.run(["probabilities"], {"X": rows})[0][:, 1], np.float64)


def log_odds(p: Floats) -> Floats:
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize("name", LEARNERS)
def test_contributions_are_shapley_values_and_add_up_to_the_answer(name: str) -> None:
    learner, inputs, kind, scale = LEARNERS[name]
    onnx = fitted(learner, inputs)
    score = served(onnx)
    found = opened(dumped(explainer(onnx, score, inputs)), score)
    assert (found.kind, found.scale) == (kind, scale)
    assert not isinstance(found, Classes)

    rows, background = inputs[:ROWS], background_of(inputs)
    values, errors = found.explained(rows)
    total = found.base + values.sum(axis=1)
    probability = 1 / (1 + np.exp(-total)) if scale == "log-odds" else total
    assert probability == pytest.approx(score(rows), abs=1e-6)

    def answers(x: Matrix) -> Floats:
        return log_odds(score(x)) if scale == "log-odds" else score(x)

    expected = np.array([shapley(answers, row, background) for row in rows])
    if kind == "permutation":
        assert (np.abs(values - expected) <= 4 * errors + 1e-6).all()
        assert 0 < errors.max() < 0.05
    else:
        assert values == pytest.approx(expected, abs=1e-4 if scale == "log-odds" else 1e-6)  # logs of float32 probabilities
        assert (errors == 0).all()


NUMBER = WHOLE[:, 0] * WHOLE[:, 1] + 30 * WHOLE[:, 2] + DRAWN.normal(size=600)
REGRESSORS: dict[str, tuple[Any, Matrix, str]] = {
    "boosting with missing values": (HistGradientBoostingRegressor(max_iter=8), HOLED, "trees"),
    "a quantile": (HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=8), HOLED, "trees"),
    "a forest": (RandomForestRegressor(5, random_state=0), WHOLE, "trees"),
    "a filled and scaled linear model": (make_pipeline(SimpleImputer(), StandardScaler(), Ridge()), HOLED, "linear"),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_contributions_to_a_number_are_shapley_values_in_its_unit(name: str) -> None:
    learner, inputs, kind = REGRESSORS[name]
    score = answering(_converted(learner.fit(inputs, NUMBER), "much", 4, "regression"), "regression")
    onnx = _converted(learner, "much", 4, "regression")
    found = opened(dumped(explainer(onnx, score, inputs, task="regression")), score)
    assert (found.kind, found.scale) == (kind, "number")
    assert not isinstance(found, Classes)
    rows, background = inputs[:ROWS], background_of(inputs)
    assert found.base + found.contributions(rows).sum(axis=1) == pytest.approx(score(rows), abs=1e-4)
    expected = np.array([shapley(score, row, background) for row in rows])
    assert found.contributions(rows) == pytest.approx(expected, abs=1e-4)


CLASS = np.digitize(WHOLE[:, 0] * WHOLE[:, 1] + WHOLE[:, 2], [-0.5, 0.5])
NAMERS: dict[str, tuple[Any, Matrix, str, str]] = {
    "boosting with missing values": (HistGradientBoostingClassifier(max_iter=5), HOLED, "trees", "log-ratio"),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=5), WHOLE, "trees", "log-ratio"),
    "a forest": (RandomForestClassifier(5, random_state=0), WHOLE, "trees", "probability"),
    "a filled and scaled linear model": (
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), HOLED, "linear", "log-ratio",
    ),
    "a network": (make_pipeline(SimpleImputer(), StandardScaler(), NETWORK), HOLED, "permutation", "probability"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMERS)
def test_contributions_to_each_class_are_shapley_values_and_those_of_the_named_one_are_shown(name: str) -> None:
    learner, inputs, kind, scale = NAMERS[name]
    onnx = _converted(learner.fit(inputs, CLASS), "which", 4, "multiclass")
    score = answering(onnx, "multiclass")
    found = opened(dumped(explainer(onnx, score, inputs, task="multiclass")), score)
    assert isinstance(found, Classes)
    assert (found.kind, found.scale, found.many) == (kind, scale, 3)
    rows, background = inputs[:ROWS], background_of(inputs)

    def answers(x: Matrix, each: int) -> Floats:
        shares = score(x)
        return np.log(shares[:, each]) - np.log(shares).mean(axis=1) if scale == "log-ratio" else shares[:, each]

    for each in range(3):
        part = found.of(each)
        values, errors = part.explained(rows)
        assert part.base + values.sum(axis=1) == pytest.approx(answers(rows, each), abs=1e-4)
        expected = np.array([shapley(partial(answers, each=each), row, background) for row in rows[:3]])
        if kind == "permutation":
            assert (np.abs(values[:3] - expected) <= 4 * errors[:3] + 1e-6).all()
        else:
            assert values[:3] == pytest.approx(expected, abs=1e-4)  # logs of float32 probabilities
    named = score(rows).argmax(axis=1)
    shown = np.array([found.of(each).contributions(row[None])[0] for each, row in zip(named.tolist(), rows, strict=True)])
    assert found.contributions(rows) == pytest.approx(shown, abs=1e-12)
    told = explained(found, "v1", list("abcd"), [None if v != v else v for v in rows[0].tolist()], ["x", "y", "z"])
    assert told.answer == "xyz"[named[0]]
    assert told.probability == pytest.approx(score(rows[:1]).max(), abs=1e-6)
    other = explained(found, "v1", list("abcd"), [None if v != v else v for v in rows[0].tolist()], ["x", "y", "z"], "y")
    assert other.answer == "y"
    assert other.total == pytest.approx(answers(rows[:1], 1)[0], abs=1e-4)


def test_the_walk_of_trees_is_the_same_compiled_and_plain() -> None:
    learner, inputs, *_ = LEARNERS["boosting with missing values"]
    onnx = fitted(learner, inputs)
    found = explainer(onnx, served(onnx), inputs)
    assert isinstance(found, Trees)
    compiled = found.contributions(inputs[:2])
    found._compiled = tree_contributions
    assert (found.contributions(inputs[:2]) == compiled).all()


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[Trees, Matrix]:
    """Trees of any shape over 1 to 5 inputs, with inputs that come again on a path, and rows, some values missing."""
    width = draw(st.integers(1, 5))
    numbers = st.sampled_from([-1.0, 0.0, 0.5, 1.0, math.nan])
    columns: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "below", "above", "missing", "value")}

    def grow(depth: int) -> int:
        mine = len(columns["feature"])
        inner = depth < 5 and draw(st.booleans())
        row = [draw(st.integers(0, width - 1)), draw(st.sampled_from([-0.5, 0.0, 0.75])), 0, 0, 0, 0.0]
        for column, value in zip(columns.values(), row if inner else [-1, 0, 0, 0, 0, draw(st.integers(-4, 4))], strict=True):
            column.append(value)
        if inner:
            columns["below"][mine], columns["above"][mine] = below, above = grow(depth + 1), grow(depth + 1)
            columns["missing"][mine] = draw(st.sampled_from([below, above]))
        return mine

    roots = [grow(0) for _ in range(draw(st.integers(1, 3)))]
    rows = st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=2, max_size=4)
    background, asked = (np.array(draw(rows), np.float32) for _ in range(2))
    return Trees(np.array(roots), columns, 0.25, "log-odds", background), asked


@given(ensembles())
@settings(max_examples=150, deadline=None)
def test_any_trees_have_the_shapley_values_of_their_sum(drawn: tuple[Trees, Matrix]) -> None:
    trees, asked = drawn
    found = trees.contributions(asked)
    assert found == pytest.approx(np.array([shapley(trees.answers, row, trees._background) for row in asked]), abs=1e-9)
    assert trees.base + found.sum(axis=1) == pytest.approx(trees.answers(asked), abs=1e-9)


def test_contributions_of_a_river_snapshot_are_those_of_its_log_odds() -> None:
    from river import linear_model, preprocessing

    from penstock.inputs import squashed

    names = ["a", "b", "c", "d"]
    for learner in (preprocessing.StandardScaler() | linear_model.LogisticRegression(), linear_model.LogisticRegression()):
        for x, y in zip(squashed(WHOLE).tolist(), LABEL.tolist(), strict=True):
            learner.learn_one(dict(zip(names, x, strict=True)), y)
        found: Explainer = Squashed(learner, names)
        for row in HOLED[:20]:
            x = dict(zip(names, squashed(row[None]).tolist()[0], strict=True))
            total = found.base + found.contributions(row[None]).sum()
            assert 1 / (1 + math.exp(-total)) == pytest.approx(learner.predict_proba_one(x)[True], abs=1e-9)


def test_equal_rows_are_explained_alike_and_the_seed_decides() -> None:
    def score(rows: Matrix) -> Floats:
        return np.asarray(1 / (1 + np.exp(-rows[:, 0] * rows[:, 1] * rows[:, 2])), np.float64)

    first, other = (Permutation(score, WHOLE[:20], seed) for seed in (1, 2))
    twice = first.contributions(WHOLE[[5, 5]])
    assert (twice[0] == twice[1]).all()
    assert not (other.contributions(WHOLE[[5]]) == twice[0]).all()
    assert (twice[:, 3:] == 0).all()


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a child before its parent": lambda a: a["below"].__setitem__(0, 0),
    "a child that is no node": lambda a: a["above"].__setitem__(0, 10**6),
    "an input that is not there": lambda a: a["feature"].__setitem__(0, 4),
    "a root that is not there": lambda a: a["roots"].__setitem__(0, -1),
    "a column that is short": lambda a: a.__setitem__("value", a["value"][:-1]),
    "a column that is gone": lambda a: a.pop("value"),
    "another kind": lambda a: a.__setitem__("kind", np.frombuffer(b"spell", np.uint8)),
    "objects": lambda a: a.__setitem__("value", np.array([print], object)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_explainer_is_refused_in_words(name: str) -> None:
    import io

    learner, inputs, *_ = LEARNERS["one tree"]
    onnx = fitted(learner, inputs)
    data = dumped(explainer(onnx, served(onnx), inputs))
    with np.load(io.BytesIO(data)) as held:
        arrays: dict[str, Any] = {each: held[each].copy() for each in held.files}
    BROKEN[name](arrays)
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    with pytest.raises(PenstockError, match="the explainer is"):
        opened(file.getvalue(), served(onnx))
    with pytest.raises(PenstockError, match="damaged"):
        opened(data[: len(data) // 2], served(onnx))


def test_a_second_step_that_is_not_known_to_keep_inputs_apart_is_refused() -> None:
    scaled = Seen.plain(2).scaled(np.zeros(2, np.float32), np.full(2, 2, np.float32))
    with pytest.raises(ValueError, match="an imputer after a scaler"):
        scaled.filled(np.zeros(2, np.float32))


def test_an_answer_is_not_explained_where_functions_refuse_mixes_of_its_row_and_others() -> None:
    def score(rows: Matrix) -> Floats:
        found = rows.astype(np.float64).sum(axis=1) / 100
        found[(rows[:, 0] > 5) & (rows[:, 1] < 5)] = np.nan
        return found

    permutation = Permutation(score, np.array([[1, 1], [2, 2], [3, 3]], np.float32))
    assert explained(permutation, "v1", ["a", "b"], [4.0, 4.0]).total == pytest.approx(0.08)
    with pytest.raises(PenstockError, match="v1 gives no answer to some mixes"):
        explained(permutation, "v1", ["a", "b"], [9.0, 9.0])
