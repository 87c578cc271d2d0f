"""Exact measures of answers, over arrays: what the audit and the trainer report. Monitoring has sums that merge instead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .loss import log_losses

__all__ = ["auc", "log_loss"]


def auc(label: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float | None:
    """Area under the ROC curve with ties counted half (Mann and Whitney, 1947); None when one class is absent.

    >>> auc(np.array([False, True]), np.array([0.2, 0.9]))
    1.0
    """
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(label: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float:
    """Mean log loss in nats.

    >>> round(log_loss(np.array([True]), np.array([0.5])), 4)
    0.6931
    """
    return float(np.mean(log_losses(label, score)))
