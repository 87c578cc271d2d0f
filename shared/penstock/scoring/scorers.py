"""Scorers: a version's artefact, opened and warm, in whatever process. What cannot be opened is never served.

An ONNX model is one input `X`, float32 (rows, inputs) with NaN for missing, and an output: `probabilities` (rows, 2) of yes and
no, `probabilities` (rows, classes), or `variable` (rows, 1), a number. A River snapshot is a classifier of named inputs, squashed
(`penstock.inputs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from penstock.artefact import Artefacts
from penstock.errors import PenstockError
from penstock.inputs import Floats, Matrix, squashed
from penstock.label import Label, Task
from penstock.records import Candidate
from penstock.snapshot import load_river

from .around import NOTHING, Functions, Surrounded
from .graph import Graph

__all__ = ["Logits", "Member", "OnnxScorer", "RiverScorer", "Scorer", "columns_of", "opened"]


WORDS = {"binary": "yes or no", "regression": "a number", "multiclass": "one of several classes"}


class Scorer(Protocol):
    """`score` takes float32 (rows, inputs), NaN for missing, and gives float64 (rows,): the probability of True, or the number;
    of classes (rows, classes)."""

    def score(self, X: Matrix) -> Floats: ...  # noqa: N803


@dataclass(frozen=True)
class Member:
    """A version with its scorer. `columns` picks its inputs among the model's; None takes them as they are."""

    version: str
    digest: str
    scorer: Scorer
    columns: tuple[int, ...] | None = None
    task: Task = "binary"
    classes: tuple[str, ...] = ()
    """Of multiclass: those of the columns of its answers."""

    @classmethod
    def of(cls, version: str, candidate: Candidate, scorer: Scorer, inputs: Sequence[str], label: Label | None) -> Member:
        """A version that is open, for a model of these `inputs`. PenstockError where it cannot answer this model any more: it was
        fitted on an input that is gone, or on labels of another kind (`label`)."""
        wanted = label.task if label else candidate.task
        if candidate.task != wanted:
            raise PenstockError(
                f"it answers {WORDS[candidate.task]}, and the label is {WORDS[wanted]}", "refit it on this project"
            )
        if label and (gone := [name for name in candidate.classes if name not in label.classes]):
            raise PenstockError(
                f"it was fitted on the class {gone[0]}, which the label no longer has", "refit it on this project"
            )
        columns, task = columns_of(candidate.inputs, inputs), wanted
        return cls(version, candidate.artefact.sha256, scorer, columns, task, tuple(candidate.classes))  # type: ignore[arg-type]

    @property
    def apart(self) -> bool:
        """Whether it waits for other processes: its functions."""
        return isinstance(self.scorer, Surrounded)

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        return self.scorer.score(X if self.columns is None else X[:, self.columns])


class OnnxScorer:
    """A graph that gives probabilities, or numbers. `task` is what its answers are taken for, of `classes` so many."""

    def __init__(self, data: bytes, inputs: int, task: str = "binary", classes: int = 0) -> None:
        self._graph, self._output = Graph(data), "variable" if task == "regression" else "probabilities"
        self._column = {"binary": 1, "regression": 0}.get(task)
        self._width = classes
        signature = self._graph.signature
        taken = [(tensor.name, tensor.datatype) for tensor in signature.inputs]
        if taken != [("X", "FP32")]:
            raise PenstockError(f"the ONNX model takes {taken}, not one FP32 tensor X", "export it with that signature")
        width = signature.inputs[0].shape[-1]
        if width not in (-1, inputs):
            raise PenstockError(f"the ONNX model takes {width} inputs, its record names {inputs}", "register it again")
        if self._output not in signature.names:
            raise PenstockError(f"the ONNX model has no output `{self._output}`", "export it with zipmap off")

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        parts = [X] if self._graph.signature.batched else [row[None] for row in X]  # the same row gets the same answer
        if self._column is None:
            whole = [self._graph.run((self._output,), {"X": part})[0] for part in parts]
            return np.concatenate(whole).astype(np.float64) if whole else np.empty((0, self._width))
        found = [self._graph.run((self._output,), {"X": part})[0][:, self._column] for part in parts]
        return np.concatenate(found).astype(np.float64) if found else np.empty(0)


class Logits(NamedTuple):
    """Log-odds that are `intercept` + (squashed input - `means`) . `factors`."""

    means: Floats
    factors: Floats
    intercept: float

    @classmethod
    def of_river(cls, model: Any, names: Sequence[str]) -> Logits:
        """Of LogisticRegression after at most one StandardScaler (without one, means are 0); PenstockError for another model."""
        from river.compose import Pipeline
        from river.linear_model import LogisticRegression
        from river.optim.losses import Log
        from river.preprocessing import StandardScaler

        *before, learner = model.steps.values() if type(model) is Pipeline else [model]
        plain = all(type(step) is StandardScaler and step.window_size is None for step in before)
        if type(learner) is not LogisticRegression or type(learner.loss) is not Log or not plain or len(before) > 1:
            raise PenstockError("the River model is not LogisticRegression after at most one StandardScaler", "fit such a one")
        weights = np.array([learner.weights.get(name, 0.0) for name in names], np.float64)
        means, factors = np.zeros(len(names)), weights
        for scaler in before:
            means = np.array([scaler.means.get(name, 0.0) for name in names], np.float64)
            if scaler.with_std:
                variances = np.array([scaler.vars.get(name, 0.0) for name in names], np.float64)
                factors = weights * np.where(variances > 0, 1.0 / np.sqrt(np.where(variances > 0, variances, 1.0)), 0.0)
        return cls(means, factors, float(learner.intercept))


class RiverScorer:
    """River's LogisticRegression, with or without StandardScaler before it, on columns: the numbers that
    `predict_proba_one` gives row by row, to 1e-9, and the same bits whatever rows come together."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self._means, self._factors, self._intercept = Logits.of_river(model, names)

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        logits = np.full(len(X), self._intercept)
        for column, mean, factor in zip(squashed(X).T, self._means.tolist(), self._factors.tolist(), strict=True):
            logits += (column - mean) * factor  # not a product of matrices, whose bits depend on how many rows there are
        with np.errstate(over="ignore"):
            found = 1.0 / (1.0 + np.exp(-logits))
        return np.where(logits < -30.0, 0.0, np.where(logits > 30.0, 1.0, found))  # as river.utils.math.sigmoid cuts


def opened(artefacts: Artefacts, candidate: Candidate, functions: Functions | None = None) -> Scorer:
    """The scorer of a version, run for the first time; with the functions that it was fitted with, of those of its project.

    Unreachable when its file cannot be read now, PenstockError when it is not what the record says, or no model.
    """
    kind, names = candidate.artefact.format, candidate.inputs
    if kind not in ("onnx", "river"):
        raise PenstockError(f"its format {kind!r} is not onnx or river", "register it again")
    data = artefacts.get(candidate.artefact)
    around = (functions or Functions(NOTHING)).of(candidate.version, candidate.functions, candidate.task)
    inputs, names = names, names if around is None else around.columns(names)
    try:
        task, classes = candidate.task, len(candidate.classes)
        scorer = OnnxScorer(data, len(names), task, classes) if kind == "onnx" else RiverScorer(load_river(data), names)
        for rows in (8, 1):  # the first run is slow, and may fail: it happens here
            found = scorer.score(np.zeros((rows, len(names)), np.float32))
            shape, wanted = ((rows, classes), "class") if task == "multiclass" else ((rows,), "row")
            proper = np.isfinite(found) if task == "regression" else (found >= 0) & (found <= 1)
            if found.shape != shape or not proper.all():
                what = "number" if task == "regression" else "probability"
                raise PenstockError(f"it does not answer with one {what} a {wanted}", "fit it again")
        if around is not None:
            return Surrounded(around, tuple(inputs), scorer).warm(8)
    except PenstockError:
        raise
    except Exception as error:  # a runtime's own errors: whatever they are, the version cannot be served
        first = str(error).strip().partition("\n")[0][:300]
        raise PenstockError(f"it does not run: {type(error).__name__}: {first}", "fit it again") from None
    return scorer


def columns_of(wanted: Sequence[str], inputs: Sequence[str]) -> tuple[int, ...] | None:
    """Where the inputs that a version was fitted on lie among a model's; None: they are the same. See `Member`."""
    if list(wanted) == list(inputs):
        return None
    missing = [name for name in wanted if name not in inputs]
    if missing:
        raise PenstockError(f"it was fitted on {missing[0]}, which the project no longer has", "refit it on this project")
    return tuple(inputs.index(name) for name in wanted)
