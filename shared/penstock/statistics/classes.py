"""Answers that name one of several classes: a table of counts per truth and answer, which adds over partitions and windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..records import Measure
from .binary import wilson
from .loss import clipped

__all__ = ["counted_classes", "mean_class_loss", "measured_classes"]


def counted_classes(truth: Sequence[int], answer: Sequence[int], classes: int) -> npt.NDArray[np.int64]:
    """The confusion matrix of class numbers, (classes, classes) int64: rows are truths, columns answers. Matrices add.

    >>> counted_classes([0, 1, 1], [0, 1, 0], 2).tolist()
    [[1, 0], [1, 1]]
    """
    cells = np.asarray(truth, np.int64) * classes + np.asarray(answer, np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def measured_classes(counts: npt.NDArray[np.int64]) -> dict[str, Measure]:
    """Accuracy (Wilson), Cohen's kappa and macro F1 (normal intervals by the delta method, from the multinomial's own
    covariance), of a confusion matrix. Macro F1 is over the classes that occur as truth or answer. Nothing of nothing.

    >>> {name: found.value for name, found in measured_classes(np.array([[3, 0], [0, 2]])).items()}
    {'accuracy': 1.0, 'kappa': 1.0, 'macro_f1': 1.0}
    """
    n = int(counts.sum())
    hits = wilson(int(np.trace(counts)), n)
    if hits is None or counts.min() < 0:
        return {}
    p, rows, columns = counts / n, counts.sum(axis=1) / n, counts.sum(axis=0) / n
    right, chance = float(np.trace(p)), float(rows @ columns)
    found = {"accuracy": hits}
    eye = np.eye(len(counts))
    if chance < 1:
        kappa = (right - chance) / (1 - chance)
        slope = (eye * (1 - chance) - (1 - right) * (columns[:, None] + rows[None, :])) / (1 - chance) ** 2
        found["kappa"] = _delta(kappa, slope, p, n)
    margins = rows + columns
    there = margins > 0
    scores = 2 * np.diag(p)[there] / margins[there]
    inverse = np.where(there, 1 / np.where(there, margins, 1), 0.0)
    each = np.zeros(len(counts))
    each[there] = scores
    slope = (2 * eye * inverse[:, None] - (each * inverse)[:, None] - (each * inverse)[None, :]) / there.sum()
    found["macro_f1"] = _delta(float(scores.mean()), slope, p, n)
    return found


def mean_class_loss(scores: npt.NDArray[np.float64], truth: Sequence[int]) -> float:
    """Mean log loss in nats of probabilities (answers, classes), of which that of the truth counts, clipped as in loss.py.

    >>> round(mean_class_loss(np.array([[0.25, 0.5, 0.25]]), [1]), 6)
    0.693147
    """
    said = scores[np.arange(len(scores)), np.asarray(truth, np.int64)]
    return float(-np.mean(np.log([clipped(score) for score in said.tolist()])))


def _delta(value: float, slope: npt.NDArray[np.float64], p: npt.NDArray[np.float64], n: int) -> Measure:
    """The interval of a smooth function of multinomial shares: its slope in each share, to first order."""
    mean = float((slope * p).sum())
    half = 1.959963984540054 * float(np.sqrt(max(float((slope**2 * p).sum()) - mean**2, 0.0) / n))
    return Measure(value=value, low=value - half, high=min(value + half, 1.0))
