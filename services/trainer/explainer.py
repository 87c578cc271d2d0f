"""From a fitted ONNX model to what explains it: its trees or weights where it is nothing else, else a background to walk from.

What is taken out of the graph is proven to give the graph's answers before anybody relies on it; where it does not, or where the
graph is of another make, contributions are estimated (`penstock.contributions.permutation`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock.contributions.explainer import BACKGROUND, LOG_ODDS, NUMBER, PROBABILITY, Score
from penstock.contributions.linear import Linear
from penstock.contributions.permutation import Permutation
from penstock.contributions.seen import Seen
from penstock.contributions.trees import Trees
from penstock.inputs import Floats, Matrix

__all__ = ["background_of", "explainer"]

NEAR: Final = 1e-5
"""Of a probability (of a number: of the greatest): float32 in the graph, float64 here."""

_BELOW: Final = {
    b"BRANCH_LEQ": (True, False),
    b"BRANCH_LT": (True, True),
    b"BRANCH_GT": (False, False),
    b"BRANCH_GTE": (False, True),
}
"""Mode -> whether the true child is the lower one, and whether a value equal to the threshold goes up."""


def background_of(X: Matrix) -> Matrix:  # noqa: N803
    """BACKGROUND rows, evenly spaced over the window of `X`, float32 (rows, inputs)."""
    found: Matrix = X[np.unique(np.linspace(0, len(X) - 1, BACKGROUND).astype(int))]
    return found


def explainer(
    onnx: bytes,
    score: Score,
    X: Matrix,  # noqa: N803
    seed: int = 0,
    task: str = "binary",
    surrounded: bool = False,
) -> Linear | Trees | Permutation:
    """What explains the model; `score` gives its own probabilities or numbers, `X` float32 (rows, inputs) is what it was fitted
    on. `surrounded`: functions around the graph make another model of it, which is asked as a whole."""
    background = background_of(X)
    try:
        found = None if surrounded else _additive(onnx, background)
    except (KeyError, ValueError, RecursionError):  # of another make, or too deep
        found = None
    some = X[:: max(1, len(X) // 1000)]
    near = NEAR * max(float(np.abs(score(some)).max()), 1e-30) if task == "regression" else NEAR
    if found is not None and np.abs(_probability(found, some, score)).max() <= near:
        return found
    return Permutation(score, background, seed, NUMBER if task == "regression" else PROBABILITY)


def _probability(found: Linear | Trees, X: Matrix, score: Score) -> Floats:  # noqa: N803
    """How far its answers are from the model's."""
    answers = found.answers(X)
    if found.scale == LOG_ODDS:
        answers = 1.0 / (1.0 + np.exp(-np.clip(answers, -500.0, 500.0)))
    return answers - score(X)


def _additive(onnx: bytes, background: Matrix) -> Linear | Trees | None:
    """A chain of nodes: steps that do not mix inputs, then trees or a linear model."""
    from onnx import helper, load_from_string

    graph = load_from_string(onnx).graph
    at, seen = graph.input[0].name, Seen.plain(background.shape[1])
    for node in graph.node:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if list(node.input) != [at]:
            return None
        if node.op_type == "Imputer" and np.isnan(given["replaced_value_float"]):
            seen = seen.filled(np.array(given["imputed_value_floats"], np.float32))
        elif node.op_type == "Scaler":
            seen = seen.scaled(np.array(given["offset"], np.float32), np.array(given["scale"], np.float32))
        elif node.op_type == "LinearClassifier":
            return _linear(given, seen, background)
        elif node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            return _trees(given, seen, background)
        elif node.op_type != "Identity" and not (node.op_type == "Cast" and given["to"] == 1):
            return None
        at = node.output[0]
    return None


def _linear(given: dict[str, Any], seen: Seen, background: Matrix) -> Linear | None:
    if given["post_transform"] != b"LOGISTIC":
        return None
    weights = np.array(given["coefficients"], np.float64).reshape(-1, background.shape[1])
    return Linear(weights[-1], float(given["intercepts"][-1]), seen(background).mean(axis=0), seen)


def _trees(given: dict[str, Any], seen: Seen, background: Matrix) -> Trees | None:
    """Nodes in the order in which they are reached, so that children come after their parent."""
    scale = {b"LOGISTIC": LOG_ODDS, b"NONE": PROBABILITY}.get(given["post_transform"])
    if "target_ids" in given:  # numbers; the mean of trees lies in their weights
        if given["post_transform"] != b"NONE" or given.get("aggregate_function", b"SUM") != b"SUM":
            return None
        given |= {name.replace("target", "class"): value for name, value in given.items() if name.startswith("target")}
        scale = NUMBER
    if scale is None:
        return None
    ids = list(zip(given["nodes_treeids"], given["nodes_nodeids"], strict=True))
    place = {each: at for at, each in enumerate(ids)}
    leaves = dict.fromkeys(ids, 0.0)
    positive = max(given["class_ids"])
    for tree, node, of, weight in zip(
        given["class_treeids"], given["class_nodeids"], given["class_ids"], given["class_weights"], strict=True
    ):
        if of == positive:
            leaves[tree, node] += weight
    tracks = given.get("nodes_missing_value_tracks_true") or [0] * len(ids)
    columns: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "below", "above", "missing", "value")}
    roots: list[int] = []

    def add(tree: int, node: int) -> int:
        at, mine = place[tree, node], len(columns["feature"])
        if (mode := given["nodes_modes"][at]) == b"LEAF":
            row: tuple[Any, ...] = (-1, 0.0, 0, 0, 0, leaves[tree, node])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            return mine
        first, strictly = _BELOW[mode]
        threshold = np.float32(given["nodes_values"][at])
        limit = float(np.nextafter(threshold, np.float32(-np.inf)) if strictly else threshold)
        for column, value in zip(columns.values(), (given["nodes_featureids"][at], limit, 0, 0, 0, 0.0), strict=True):
            column.append(value)
        yes, no = add(tree, given["nodes_truenodeids"][at]), add(tree, given["nodes_falsenodeids"][at])
        columns["below"][mine], columns["above"][mine] = (yes, no) if first else (no, yes)
        columns["missing"][mine] = yes if tracks[at] else no
        return mine

    started = set[int]()
    for tree, node in ids:
        if tree not in started:  # the root is a tree's first node
            started.add(tree)
            roots.append(add(tree, node))
    offset = float((given.get("base_values") or [0.0])[-1])
    return Trees(np.array(roots, np.int32), columns, offset, scale, background, seen)
