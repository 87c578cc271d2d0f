"""Exact measures of answers, over arrays: what the audit and the trainer report. Monitoring has sums that merge instead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["CLIP", "auc", "log_loss"]

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one confident error costs at most 13.8 nats."""


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
    """Mean negative log likelihood in nats.

    >>> round(log_loss(np.array([True]), np.array([0.5])), 4)
    0.6931
    """
    p = np.clip(score, CLIP, 1 - CLIP)
    return float(-np.mean(np.where(label, np.log(p), np.log1p(-p))))
