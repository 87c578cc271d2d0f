"""River's linear pipelines as ONNX: what an online learner of numbers or classes has learned, as a file that is only arrays.

    LinearRegression                      any loss, also that of a quantile
    SoftmaxRegression                     classes; it has no intercept
    OneVsRestClassifier of LogisticRegression

each with or without StandardScaler before it. The graph squashes its inputs as the learner sees them (`penstock.inputs`) and
counts in float64, so that its answers are the learner's to float32; that is proven on rows before anybody relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from penstock.contributions.classes import Classes, centred, column
from penstock.contributions.explainer import LOG_RATIO, NUMBER
from penstock.contributions.linear import Linear
from penstock.contributions.permutation import Permutation
from penstock.contributions.seen import Seen
from penstock.inputs import Floats, Matrix
from penstock.label import Label
from penstock.statistics.loss import loss_of

from .explainer import background_of
from .fitting import OPSETS, Unfit, answering

__all__ = ["Lines", "fits", "tame"]

TOLERANCE: Final = 1e-5
"""Of a probability; of a number, of its size: float32 at the end."""
SHAPE: Final = (
    "LinearRegression, SoftmaxRegression or OneVsRestClassifier of LogisticRegression, after at most one StandardScaler"
)
WILD: Final = 10.0
DIVERGED: Final = "the online learner has diverged"
TAMED: Final = "scale its inputs, or let it learn slower"
GREATEST: Final = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Lines:
    """answers = `link`(intercepts + weights . ((squashed input - means) x factors)), a line for each of `classes`, a single one
    of a number. `weights` are float64 (lines, inputs), `means` and `factors` (inputs,), `intercepts` (lines,)."""

    weights: Floats
    intercepts: Floats
    means: Floats
    factors: Floats
    classes: tuple[str, ...] = ()
    link: str = ""
    """Softmax, or Sigmoid, which are then divided by their sum; empty: none."""

    @classmethod
    def of_river(cls, model: Any, names: Sequence[str], label: Label) -> Lines:
        """Unfit says what a learner of `label` may be."""
        from river.compose import Pipeline
        from river.linear_model import LinearRegression, LogisticRegression, SoftmaxRegression
        from river.multiclass import OneVsRestClassifier
        from river.preprocessing import StandardScaler

        *before, learner = model.steps.values() if type(model) is Pipeline else [model]
        if len(before) > 1 or any(type(step) is not StandardScaler or step.window_size is not None for step in before):
            raise Unfit(f"the online learner is not {SHAPE}")
        means, factors = np.zeros(len(names)), np.ones(len(names))
        for scaler in before:
            means = _numbers(scaler.means, names)
            spread = np.sqrt(_numbers(scaler.vars, names)) if scaler.with_std else np.ones(len(names))
            factors = np.divide(1.0, spread, out=np.zeros(len(names)), where=spread > 0)
        if type(learner) is LinearRegression and label.task == "regression":
            return cls(_numbers(learner.weights, names)[None], np.array([float(learner.intercept)]), means, factors)
        if type(learner) is SoftmaxRegression and label.classes:
            known = tuple(name for name in label.classes if name in learner.weights)
            weights = np.array([_numbers(learner.weights[name], names) for name in known]).reshape(len(known), len(names))
            return cls(weights, np.zeros(len(known)), means, factors, known, "Softmax")
        if type(learner) is OneVsRestClassifier and type(learner.classifier) is LogisticRegression and label.classes:
            known = tuple(name for name in label.classes if name in learner.classifiers)
            each: list[Any] = [learner.classifiers[name] for name in known]
            weights = np.array([_numbers(one.weights, names) for one in each]).reshape(len(known), len(names))
            return cls(weights, np.array([float(one.intercept) for one in each]), means, factors, known, "Sigmoid")
        raise Unfit(f"{type(learner).__name__} is no online learner of this label: it is {SHAPE}")

    def onnx(self, name: str) -> bytes:
        """The graph. Unfit where there is nothing to answer with: a single class, or numbers that are not finite."""
        from onnx import TensorProto, checker, helper, numpy_helper

        if self.link and len(self.classes) < 2:
            raise Unfit(f"all labels known so far are {', '.join(self.classes) or 'none'}")
        if not all(np.isfinite(each).all() for each in (self.weights, self.intercepts, self.means, self.factors)):
            raise Unfit(f"{DIVERGED}: its weights are no numbers; {TAMED}")
        constants: dict[str, Any] = {
            "zero": np.float64(0), "one": np.float64(1), "least": np.float64(-GREATEST), "greatest": np.float64(GREATEST),
            "means": self.means, "factors": self.factors, "weights": self.weights.T, "intercepts": self.intercepts,
        }  # fmt: skip
        steps = [
            ("IsNaN", ["wide"], "missing"), ("Where", ["missing", "zero", "wide"], "filled"),
            ("Clip", ["filled", "least", "greatest"], "finite"), ("Abs", ["finite"], "size"), ("Add", ["size", "one"], "more"),
            ("Log", ["more"], "log"), ("Sign", ["finite"], "sign"), ("Mul", ["sign", "log"], "squashed"),
            ("Sub", ["squashed", "means"], "moved"), ("Mul", ["moved", "factors"], "scaled"),
            ("MatMul", ["scaled", "weights"], "product"), ("Add", ["product", "intercepts"], "sums"),
        ]  # fmt: skip
        if self.link:
            steps.append((self.link, ["sums"], "linked"))
        if self.link == "Sigmoid":
            constants["last"] = np.array([1], np.int64)
            steps += [("ReduceSum", ["linked", "last"], "whole"), ("Div", ["linked", "whole"], "shares")]
        output = "probabilities" if self.link else "variable"
        nodes = [helper.make_node("Cast", ["X"], ["wide"], to=TensorProto.DOUBLE)]
        nodes += [helper.make_node(kind, taken, [given]) for kind, taken, given in steps]
        nodes.append(helper.make_node("Cast", [steps[-1][2]], [output], to=TensorProto.FLOAT))
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, len(self.means)])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, len(self.weights)])],
            [numpy_helper.from_array(np.asarray(value), each) for each, value in constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSETS[""])], ir_version=8)
        checker.check_model(made)
        return bytes(made.SerializeToString())

    def proven(self, onnx: bytes, own: Floats, rows: Matrix) -> float:
        """The greatest difference between the graph and the learner's `own` answers to some rows; Unfit where it is more than
        rounding."""
        task = "multiclass" if self.link else "regression"
        found = float(np.abs(answering(onnx, task)(rows) - own).max()) if len(rows) else 0.0
        if not found <= TOLERANCE * max(1.0, float(np.abs(own).max(initial=0.0))):
            raise Unfit(f"the ONNX model differs from the online learner by {found:g}")
        return found

    def explainer(self, score: Callable[[Matrix], Floats], rows: Matrix, seed: int = 0) -> Linear | Classes:
        """What explains it: exact but for one against the rest. Its background is what the scaler was taught, a row of zeros
        without one; else some of `rows`."""
        if self.link == "Sigmoid":
            background = background_of(rows)
            return Classes(lambda each: Permutation(column(score, each), background, seed), len(self.classes), score)
        seen = Seen.squashed(len(self.means))
        weights = self.weights * self.factors
        intercepts = self.intercepts - weights @ self.means
        if not self.link:
            return Linear(weights[0], float(intercepts[0]), self.means, seen, NUMBER)
        weights, intercepts = centred(weights), centred(intercepts)
        return Classes(
            lambda each: Linear(weights[each], float(intercepts[each]), self.means, seen, LOG_RATIO), len(self.classes), score
        )


def fits(online: Any, names: Sequence[str], label: Label) -> None:
    """Unfit where an online learner, if there is one, cannot be of this label."""
    if online is not None and label.task != "binary":
        Lines.of_river(online, names, label)
    elif online is not None and not hasattr(online, "predict_proba_one"):
        raise Unfit(f"{type(online).__name__} gives no probabilities; online= of yes and no is LogisticRegression")


def tame(label: Label, own: Floats, truth: Floats) -> None:
    """Unfit where answers that are numbers cost more than WILD times what the best constant would: River bounds its steps, so
    that a learner that diverges stays finite for long."""
    if not len(truth):
        return
    loss, quantile = loss_of(label), label.quantile
    constant = float(truth.mean() if quantile is None else np.quantile(truth, quantile))
    costs = [float(np.mean([loss(*each) for each in zip(said, truth.tolist(), strict=True)]))
             for said in (own.tolist(), [constant] * len(truth))]  # fmt: skip
    if not costs[0] <= WILD * costs[1] and costs[1] > 0:
        raise Unfit(f"{DIVERGED}: its answers to the newest rows cost {costs[0]:.4g}, a constant {costs[1]:.4g}; {TAMED}")


def _numbers(held: Mapping[str, float], names: Sequence[str]) -> Floats:
    return np.array([held.get(name, 0.0) for name in names], np.float64)
