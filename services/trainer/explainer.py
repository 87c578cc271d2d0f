"""From a fitted ONNX model to what explains it: its trees or weights where it is nothing else, else a background to walk from.

What is taken out of the graph is proven to give the graph's answers before anybody relies on it; where it does not, or where the
graph is of another make, contributions are estimated (`penstock.contributions.permutation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from penstock.contributions.classes import Classes, Part, centred, column
from penstock.contributions.explainer import BACKGROUND, LOG_ODDS, LOG_RATIO, NUMBER, PROBABILITY, Score
from penstock.contributions.linear import Linear
from penstock.contributions.permutation import Permutation
from penstock.contributions.seen import Seen
from penstock.contributions.trees import Trees
from penstock.inputs import Floats, Matrix

__all__ = ["background_of", "explainer"]

NEAR: Final = 1e-5
"""Of a probability (of a number: of the greatest): float32 in the graph, float64 here."""

MOST_LEAVES: Final = 4_000_000
"""Nodes times classes: 16 MiB of a file that may have 64."""
_LINEAR: Final = {b"LOGISTIC": LOG_ODDS, b"NONE": NUMBER}
_BOOSTED: Final = {b"LOGISTIC": LOG_ODDS, b"NONE": PROBABILITY}
_SOFTMAX: Final = {b"SOFTMAX": LOG_RATIO, b"NONE": PROBABILITY}
"""By what is done to the sums: what these are."""

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
) -> Part | Classes:
    """What explains the model; `score` gives its own probabilities or numbers, `X` float32 (rows, inputs) is what it was fitted
    on. `surrounded`: functions around the graph make another model of it, which is asked as a whole."""
    background, some = background_of(X), X[:: max(1, len(X) // 1000)]
    answers = score(some)
    many = answers.shape[1] if task == "multiclass" else 1
    try:
        found = [] if surrounded else _additive(onnx, background, many)
    except (KeyError, ValueError, RecursionError):  # of another make, or too deep
        found = []
    near = NEAR * max(float(np.abs(answers).max()), 1e-30) if task == "regression" else NEAR
    proven = bool(found) and bool(np.abs(_answers(found, some) - answers.reshape(len(some), many)).max() <= near)
    if task == "multiclass":
        walks = partial(_walking, score, background, seed)
        return Classes(found.__getitem__ if proven else walks, many, score)
    return found[0] if proven else Permutation(score, background, seed, NUMBER if task == "regression" else PROBABILITY)


def _walking(score: Score, background: Matrix, seed: int, each: int) -> Permutation:
    return Permutation(column(score, each), background, seed)


def _answers(found: Sequence[Linear | Trees], X: Matrix) -> Floats:  # noqa: N803
    """Probabilities or numbers (rows, classes; one column where there are none) as the explainers have them."""
    answers = np.stack([part.answers(X) for part in found], axis=1)
    if found[0].scale == LOG_RATIO:
        shares = np.exp(answers - answers.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float64)
    return 1.0 / (1.0 + np.exp(-np.clip(answers, -500.0, 500.0))) if found[0].scale == LOG_ODDS else answers


def _additive(onnx: bytes, background: Matrix, many: int) -> Sequence[Linear | Trees]:
    """One for each of `many` outputs, of a chain of nodes: steps that do not mix inputs, then trees or a linear model. Empty of
    another make."""
    from onnx import helper, load_from_string

    graph = load_from_string(onnx).graph
    at, seen = graph.input[0].name, Seen.plain(background.shape[1])
    for node in graph.node:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if list(node.input) != [at]:
            return []
        if node.op_type == "Imputer" and np.isnan(given["replaced_value_float"]):
            seen = seen.filled(np.array(given["imputed_value_floats"], np.float32))
        elif node.op_type == "Scaler":
            seen = seen.scaled(np.array(given["offset"], np.float32), np.array(given["scale"], np.float32))
        elif node.op_type in ("LinearClassifier", "LinearRegressor"):
            return _linear(given, seen, background, many)
        elif node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            return _trees(given, seen, background, many)
        elif node.op_type != "Identity" and not (node.op_type == "Cast" and given["to"] == 1):
            return []
        at = node.output[0]
    return []


def _linear(given: dict[str, Any], seen: Seen, background: Matrix, many: int) -> Sequence[Linear]:
    scale = (_SOFTMAX if many > 1 else _LINEAR).get(given.get("post_transform", b"NONE"))
    weights = np.array(given["coefficients"], np.float64).reshape(-1, background.shape[1])
    intercepts = np.array(given.get("intercepts") or np.zeros(len(weights)), np.float64)
    if scale is None or len(weights) < many:
        return []
    weights, intercepts = (centred(weights), centred(intercepts)) if many > 1 else (weights[-1:], intercepts[-1:])
    means = seen(background).mean(axis=0)
    return [Linear(*each, means, seen, scale) for each in zip(weights, intercepts.tolist(), strict=True)]


def _trees(given: dict[str, Any], seen: Seen, background: Matrix, many: int) -> Sequence[Trees]:
    """Nodes in the order in which they are reached, so that children come after their parent."""
    scale = (_SOFTMAX if many > 1 else _BOOSTED).get(given["post_transform"])
    if "target_ids" in given:  # numbers; the mean of trees lies in their weights
        if given["post_transform"] != b"NONE" or given.get("aggregate_function", b"SUM") != b"SUM":
            return []
        given |= {name.replace("target", "class"): value for name, value in given.items() if name.startswith("target")}
        scale = NUMBER
    ids = list(zip(given["nodes_treeids"], given["nodes_nodeids"], strict=True))
    if scale is None or len(ids) * many > MOST_LEAVES:
        return []
    place = {each: at for at, each in enumerate(ids)}
    leaves = np.zeros((many, len(ids)))
    positive = max(given["class_ids"])
    for tree, node, of, weight in zip(
        given["class_treeids"], given["class_nodeids"], given["class_ids"], given["class_weights"], strict=True
    ):
        if many > 1 or of == positive:
            leaves[of if many > 1 else 0, place[tree, node]] += weight
    offsets = np.array((given.get("base_values") or [0.0] * many)[-many:], np.float64)
    if scale == LOG_RATIO:
        leaves, offsets = centred(leaves), centred(offsets)
    reached: list[int] = []
    tracks = given.get("nodes_missing_value_tracks_true") or [0] * len(ids)
    columns: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "below", "above", "missing")}
    roots: list[int] = []

    def add(tree: int, node: int) -> int:
        at, mine = place[tree, node], len(reached)
        reached.append(at)
        if (mode := given["nodes_modes"][at]) == b"LEAF":
            for held, value in zip(columns.values(), (-1, 0.0, 0, 0, 0), strict=True):
                held.append(value)
            return mine
        first, strictly = _BELOW[mode]
        threshold = np.float32(given["nodes_values"][at])
        limit = float(np.nextafter(threshold, np.float32(-np.inf)) if strictly else threshold)
        for held, value in zip(columns.values(), (given["nodes_featureids"][at], limit, 0, 0, 0), strict=True):
            held.append(value)
        yes, no = add(tree, given["nodes_truenodeids"][at]), add(tree, given["nodes_falsenodeids"][at])
        columns["below"][mine], columns["above"][mine] = (yes, no) if first else (no, yes)
        columns["missing"][mine] = yes if tracks[at] else no
        return mine

    started = set[int]()
    for tree, node in ids:
        if tree not in started:  # the root is a tree's first node
            started.add(tree)
            roots.append(add(tree, node))
    nodes = {name: np.array(held) for name, held in columns.items()}
    first = np.array(roots, np.int32)
    return [
        Trees(first, {**nodes, "value": value[reached]}, offset, scale, background, seen)
        for value, offset in zip(leaves, offsets.tolist(), strict=True)
    ]
